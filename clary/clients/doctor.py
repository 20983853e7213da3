"""What this machine offers Clary, and how to get what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clary.agent.cgroups import find_places
from clary.agent.runtimes.container import CannotContain, engine_address
from clary.agent.runtimes.docker import Engine
from clary.running_server import find_running
from clary.settings import Settings

_PROBE_TIMEOUT_SECONDS = 10
_LOW_DISK_BYTES = 5 * 1024**3
_LOW_MEMORY_BYTES = 2 * 1024**3
_CONTROLLERS = {"memory": "memory", "cpu": "processors", "pids": "processes"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``missing``: Clary cannot run; ``limited``: something is not to be had."""

    verdict: Literal["ok", "limited", "missing"]
    subject: str
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> Sequence[Finding]:
    """Look at everything; takes a few seconds at most and changes nothing."""
    return [
        _python(),
        *_libraries(),
        _processors(),
        _memory(),
        _disk(settings.data),
        _sandbox(),
        _limits(settings),
        _containers(settings),
        _port(settings),
    ]


def _python() -> Finding:
    return Finding("ok", "Python", f"{platform.python_version()} at {sys.executable}")


def _libraries() -> Iterator[Finding]:
    for module, package in (
        ("botocore", "botocore"),
        ("sklearn", "scikit-learn"),
        ("xgboost", "xgboost-cpu"),
    ):
        if importlib.util.find_spec(module) is None:
            yield Finding("missing", package, "not installed", f"{sys.executable} -m pip install {package}")


def _processors() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("ok", "Processors", f"{usable} cores")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    detail = f"{total / 1024**3:.1f} GiB"
    if total < _LOW_MEMORY_BYTES:
        return Finding("limited", "Memory", detail, "Training needs at least 2 GiB to be comfortable.")
    return Finding("ok", "Memory", detail)


def _disk(data: Path) -> Finding:
    place = data
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    detail = f"{free / 1024**3:.1f} GiB free for {data}"
    if free < _LOW_DISK_BYTES:
        return Finding("limited", "Disk", detail, "Free some space, or choose another folder with --data.")
    return Finding("ok", "Disk", detail)


def _sandbox() -> Finding:
    without = "Jobs run without a fence: they can read and write what you can."
    if platform.system() != "Linux":
        return Finding("limited", "Sandbox", f"bubblewrap needs Linux. {without}")
    program = shutil.which("bwrap")
    if program is None:
        return Finding(
            "limited",
            "Sandbox",
            f"bubblewrap is not installed. {without}",
            "apt-get install bubblewrap, or dnf install bubblewrap",
        )
    probe = [program, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "true"]
    try:
        outcome = subprocess.run(
            probe, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("limited", "Sandbox", f"bubblewrap does not start ({error}). {without}")
    if outcome.returncode != 0:
        cause = (outcome.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return Finding(
            "limited",
            "Sandbox",
            f"bubblewrap cannot make a sandbox here: {cause}. {without}",
            "Allow unprivileged user namespaces: sysctl -w kernel.unprivileged_userns_clone=1 "
            "(on Ubuntu: kernel.apparmor_restrict_unprivileged_userns=0)",
        )
    return Finding("ok", "Sandbox", f"bubblewrap at {program}")


def _limits(settings: Settings) -> Finding:
    watched = "looked at every second, and killed when over the limit; processors only by affinity"
    if not settings.control_groups:
        return Finding("limited", "Limits", f"control groups are switched off: tasks are {watched}")
    places = find_places()
    if places is None:
        return Finding(
            "limited",
            "Limits",
            f"no control groups can be made here: tasks are {watched}",
            "Run Clary as root, or in a subtree that is delegated to you: systemd-run --user -p Delegate=yes "
            "--slice=clary clary up",
        )
    counted = [words for name, words in _CONTROLLERS.items() if name in places.parents]
    return Finding("ok", "Limits", f"control groups (version {places.version}) hold {', '.join(counted)}")


def _containers(settings: Settings) -> Finding:
    address = engine_address(settings.docker_host)
    without = "Built-in algorithms and scripts run, your own images do not."
    try:
        engine = Engine.connect(address)
    except CannotContain as error:
        cause = str(error)
        return Finding("limited", "Containers", f"{cause[:1].upper()}{cause[1:]} {without}")
    engine.close()
    return Finding("ok", "Containers", f"an engine answers at {address}")


def _port(settings: Settings) -> Finding:
    running = find_running(settings.data)
    if running is not None:
        return Finding("ok", "Server", f"runs at {running.endpoint_url} (process {running.process_id})")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return Finding(
                "limited",
                "Port",
                f"{settings.host}:{settings.port} cannot be used: {error.strerror}",
                "Choose another: clary up --port 0",
            )
    return Finding("ok", "Port", f"{settings.host}:{settings.port} is free")
