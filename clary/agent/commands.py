"""Jobs that bring a command of their own (``ContainerEntrypoint``) for a framework's image.

The command runs in the sandbox in place of the toolkit, with an environment of the job's own that it may
install into. The SDK's ``ModelTrainer`` starts every script so: ``/bin/bash`` with a script in the channel
``sm_drivers``, the source in the channel ``code``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clary.agent.code import CODE_CHANNEL, COMMAND_MODULE
from clary.agent.failure import TaskFailed
from clary.agent.runtimes.command import PIP_SETTINGS
from clary.agent.runtimes.environments import pip_settings
from clary.agent.runtimes.program import Program
from clary.agent.runtimes.sandbox import ML
from clary.agent.surroundings import Surroundings

# The SDK's: it marks its script as executable, unpacks the source there, and the script's files land there.
OWN_CHANNELS = (CODE_CHANNEL, "sm_drivers")
_TOOLKIT = ("train",)  # what the platform itself gives an image to run


def given_command(algorithm: Mapping[str, Any]) -> tuple[str, ...]:
    """The command of an AlgorithmSpecification; empty where the image's own is to run."""
    entrypoint = [str(word) for word in algorithm.get("ContainerEntrypoint") or ()]
    arguments = [str(word) for word in algorithm.get("ContainerArguments") or ()]
    command = (*entrypoint, *arguments)
    return () if command == _TOOLKIT else command


def as_command(around: Surroundings, program: Program, command: tuple[str, ...]) -> Program:
    """A framework's ``program`` with ``command`` in place of the toolkit.

    Raises `TaskFailed` where that cannot be.
    """
    if not around.runtime.fenced and any(ML in word for word in command):
        raise TaskFailed(
            f"ClientError: the job's command names files below {ML}, which is there only in the sandbox: "
            "install bubblewrap on this machine (Debian: apt-get install bubblewrap)."
        )
    settings, paths = pip_settings() if program.network else ({}, ())  # pip reaches nothing without
    environment = f"{around.runtime.scratch_seen(around.spec.id)}/python"
    return replace(
        program,
        module=COMMAND_MODULE,
        arguments=(*program.arguments[1:], *command),
        environment={
            **program.environment,
            "CLARY_PYTHON_ENVIRONMENT": environment,
            PIP_SETTINGS: json.dumps(settings),
        },
        own_channels=OWN_CHANNELS,
        read_only_paths=paths,
    )
