"""The training toolkit's environment: what a script finds in ``SM_*`` variables, and its arguments."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clary.frameworks.distribution import distribution_groups
from clary.frameworks.source import is_package

# Hyperparameters that speak to the toolkit and not to the script.
_RESERVED = frozenset(
    {
        "sagemaker_program", "sagemaker_submit_directory", "sagemaker_region",
        "sagemaker_container_log_level", "sagemaker_job_name", "sagemaker_enable_cloudwatch_metrics",
        "sagemaker_s3_output", "default_user_module_name", "_tuning_objective_metric",
    }
)  # fmt: skip


@dataclass(frozen=True)
class TrainingEnvironment:
    """One run of a script.

    ``hyperparameters`` are decoded and only the script's own; ``submit_directory`` is where the caller says
    that the source is. ``framework_module`` is the container's, as scripts see it.
    """

    base: Path
    program: str
    submit_directory: str
    framework_module: str
    log_level: int
    hyperparameters: Mapping[str, Any]
    framework_parameters: Mapping[str, Any]
    input_config: Mapping[str, Any]
    resources: Mapping[str, Any]

    @property
    def code(self) -> Path:
        return self.base / "code"

    def arguments(self) -> list[str]:
        """The script's command line: names sorted, ``--name value``, ``-n value`` for one letter."""
        found: list[str] = []
        for name in sorted(self.hyperparameters):
            value = self.hyperparameters[name]
            if isinstance(value, dict):
                value = ",".join(f"{key}={item}" for key, item in value.items())
            found += [f"-{name}" if len(name) == 1 else f"--{name}", str(value)]
        return found

    def variables(self) -> dict[str, str]:
        """Every ``SM_*`` variable."""
        values: dict[str, Any] = {
            **{f"SM_{name.upper()}": value for name, value in self._shared().items()},
            "SM_HPS": dict(self.hyperparameters),
            "SM_USER_ARGS": self.arguments(),
            "SM_FRAMEWORK_PARAMS": dict(self.framework_parameters),
            "SM_CHANNELS": self._channels(),
            "SM_TRAINING_ENV": self._training_env(),
        }
        for channel in self._channels():
            values[f"SM_CHANNEL_{channel.upper()}"] = f"{self.base}/input/data/{channel}"
        for name, value in self.hyperparameters.items():
            values[f"SM_HP_{name.upper()}"] = value
        return {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()
        }

    def _channels(self) -> list[str]:
        return sorted(self.input_config)

    @property
    def host(self) -> str:
        return str(self.resources.get("current_host", "algo-1"))

    @property
    def hosts(self) -> list[str]:
        """All hosts of the job, in the order that gives them their ranks."""
        return list(self.resources.get("hosts") or [self.host])

    @property
    def distribution_hosts(self) -> list[str]:
        """Those of the hosts that train together: the ones in the instance groups of the distribution."""
        groups = self.resources.get("instance_groups", [])
        hosts = {str(each.get("instance_group_name")): each.get("hosts", []) for each in groups}
        names = distribution_groups(self.framework_parameters, self.group)
        within = {host for name in names for host in hosts.get(name, self.hosts)}
        return [host for host in self.hosts if host in within]

    @property
    def group(self) -> str:
        """The instance group of this host."""
        return str(self.resources.get("current_group_name", "homogeneousCluster"))

    @property
    def network_interface(self) -> str:
        return str(self.resources.get("network_interface_name", "eth0"))

    def _shared(self) -> dict[str, Any]:
        """What is a variable of its own and also part of ``SM_TRAINING_ENV``."""
        base, hosts = self.base, self.hosts
        groups = list(self.resources.get("instance_groups", []))
        by_name = {str(each.get("instance_group_name")): each for each in groups}
        return {
            "model_dir": f"{base}/model",
            "input_dir": f"{base}/input",
            "input_config_dir": f"{base}/input/config",
            "output_dir": f"{base}/output",
            "output_data_dir": f"{base}/output/data",
            "output_intermediate_dir": f"{base}/output/intermediate",
            "resource_config": dict(self.resources),
            "input_data_config": dict(self.input_config),
            "current_host": self.host,
            "hosts": hosts,
            "network_interface_name": self.network_interface,
            "current_instance_type": self.resources.get("current_instance_type", "local"),
            "current_instance_group": self.group,
            "current_instance_group_hosts": list(by_name.get(self.group, {}).get("hosts", hosts)),
            "instance_groups": list(by_name),
            "instance_groups_dict": by_name,
            "distribution_instance_groups": distribution_groups(self.framework_parameters, self.group),
            "is_hetero": len(groups) > 1,
            "num_cpus": _count("SM_NUM_CPUS", os.cpu_count() or 1),
            "num_gpus": _count("SM_NUM_GPUS", 0),
            "num_neurons": _count("SM_NUM_NEURONS", 0),
            "module_name": self.program.removesuffix(".py"),
            "module_dir": self.submit_directory or str(self.code),
            "user_entry_point": self.program,
            "framework_module": self.framework_module,
            "log_level": self.log_level,
        }

    def _training_env(self) -> dict[str, Any]:
        hosts = self.hosts
        return {
            **self._shared(),
            "channel_input_dirs": {name: f"{self.base}/input/data/{name}" for name in self._channels()},
            "hyperparameters": dict(self.hyperparameters),
            "additional_framework_parameters": dict(self.framework_parameters),
            "is_master": self.host == hosts[0],
            "master_hostname": hosts[0],
            "job_name": os.environ.get("TRAINING_JOB_NAME", ""),
        }


def _count(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else default


def read_environment(base: Path, container: str = "") -> TrainingEnvironment:
    """From the files of ``base/input/config``. Raises ``ValueError`` naming a broken one."""

    def load(name: str) -> dict[str, Any]:
        path = base / "input" / "config" / name
        try:
            document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise ValueError(f"{path} must hold a JSON object")
        return document

    decoded = {name: _decoded(value) for name, value in load("hyperparameters.json").items()}
    for_toolkit = {name for name in decoded if name.startswith("sagemaker_") or name in _RESERVED}
    level = str(
        decoded.get("sagemaker_container_log_level") or os.environ.get("SAGEMAKER_CONTAINER_LOG_LEVEL") or ""
    )
    return TrainingEnvironment(
        base=base,
        program=str(decoded.get("sagemaker_program") or os.environ.get("SAGEMAKER_PROGRAM") or ""),
        submit_directory=str(
            decoded.get("sagemaker_submit_directory") or os.environ.get("SAGEMAKER_SUBMIT_DIRECTORY") or ""
        ),
        framework_module=f"{container}.training:main" if container else "",
        log_level=int(level) if level.isdecimal() else logging.INFO,
        hyperparameters={name: value for name, value in decoded.items() if name not in for_toolkit},
        framework_parameters={name: decoded[name] for name in sorted(for_toolkit - _RESERVED)},
        input_config=load("inputdataconfig.json"),
        resources=load("resourceconfig.json"),
    )


def _decoded(value: Any) -> Any:
    """The SDK encodes a script's hyperparameters as JSON; others come as plain text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def command_line(environment: TrainingEnvironment) -> Sequence[str]:
    """The command that AWS's toolkit would run, for logs and messages."""
    program = environment.program
    if program.endswith(".py"):
        runner = ["python", program]
    elif is_package(environment.code) and not (environment.code / program).is_file():
        runner = ["python", "-m", program]
    else:
        runner = ["/bin/sh", "-c", f"./{program}"]
    return [*runner, *environment.arguments()]
