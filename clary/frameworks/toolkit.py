"""The training toolkit's environment: what a script finds in ``SM_*`` variables and its arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Hyperparameters that speak to the toolkit and not to the script.
_RESERVED = frozenset(
    {
        "sagemaker_program",
        "sagemaker_submit_directory",
        "sagemaker_region",
        "sagemaker_container_log_level",
        "sagemaker_job_name",
        "sagemaker_enable_cloudwatch_metrics",
        "sagemaker_s3_output",
        "default_user_module_name",
        "_tuning_objective_metric",
    }
)


@dataclass(frozen=True)
class TrainingEnvironment:
    """One run of a script. ``hyperparameters`` are decoded and only the script's own."""

    base: Path
    program: str
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

    def variables(self, framework_module: str) -> dict[str, str]:
        """Every ``SM_*`` variable."""
        base = self.base
        channels = sorted(self.input_config)
        groups = list(self.resources.get("instance_groups", []))
        host = str(self.resources.get("current_host", "algo-1"))
        hosts = list(self.resources.get("hosts", [host]))
        group = str(self.resources.get("current_group_name", "homogeneousCluster"))
        group_hosts = next((g["hosts"] for g in groups if g.get("instance_group_name") == group), hosts)
        module = self.program.removesuffix(".py")
        values: dict[str, Any] = {
            "SM_MODEL_DIR": f"{base}/model",
            "SM_INPUT_DIR": f"{base}/input",
            "SM_INPUT_CONFIG_DIR": f"{base}/input/config",
            "SM_OUTPUT_DIR": f"{base}/output",
            "SM_OUTPUT_DATA_DIR": f"{base}/output/data",
            "SM_OUTPUT_INTERMEDIATE_DIR": f"{base}/output/intermediate",
            "SM_CHANNELS": channels,
            "SM_HPS": dict(self.hyperparameters),
            "SM_USER_ARGS": self.arguments(),
            "SM_FRAMEWORK_PARAMS": dict(self.framework_parameters),
            "SM_RESOURCE_CONFIG": dict(self.resources),
            "SM_INPUT_DATA_CONFIG": dict(self.input_config),
            "SM_CURRENT_HOST": host,
            "SM_HOSTS": hosts,
            "SM_NETWORK_INTERFACE_NAME": self.resources.get("network_interface_name", "lo"),
            "SM_CURRENT_INSTANCE_TYPE": self.resources.get("current_instance_type", "local"),
            "SM_CURRENT_INSTANCE_GROUP": group,
            "SM_CURRENT_INSTANCE_GROUP_HOSTS": list(group_hosts),
            "SM_INSTANCE_GROUPS": [g.get("instance_group_name") for g in groups],
            "SM_INSTANCE_GROUPS_DICT": {str(g.get("instance_group_name")): g for g in groups},
            "SM_DISTRIBUTION_INSTANCE_GROUPS": [],
            "SM_IS_HETERO": str(len({g.get("instance_type") for g in groups}) > 1).lower(),
            "SM_NUM_CPUS": os.environ.get("SM_NUM_CPUS", "1"),
            "SM_NUM_GPUS": os.environ.get("SM_NUM_GPUS", "0"),
            "SM_NUM_NEURONS": "0",
            "SM_MODULE_NAME": module,
            "SM_MODULE_DIR": f"{base}/code",
            "SM_USER_ENTRY_POINT": self.program,
            "SM_FRAMEWORK_MODULE": framework_module,
            "SM_LOG_LEVEL": str(self.framework_parameters.get("sagemaker_container_log_level", 20)),
        }
        for channel in channels:
            values[f"SM_CHANNEL_{channel.upper()}"] = f"{base}/input/data/{channel}"
        for name, value in self.hyperparameters.items():
            values[f"SM_HP_{name.upper()}"] = value
        values["SM_TRAINING_ENV"] = {
            "channel_input_dirs": {channel: f"{base}/input/data/{channel}" for channel in channels},
            "current_host": host,
            "framework_module": framework_module,
            "hosts": hosts,
            "hyperparameters": dict(self.hyperparameters),
            "input_config_dir": f"{base}/input/config",
            "input_data_config": dict(self.input_config),
            "input_dir": f"{base}/input",
            "is_master": host == hosts[0],
            "job_name": os.environ.get("TRAINING_JOB_NAME", ""),
            "log_level": 20,
            "master_hostname": hosts[0],
            "model_dir": f"{base}/model",
            "module_dir": f"{base}/code",
            "module_name": module,
            "num_cpus": int(os.environ.get("SM_NUM_CPUS", "1")),
            "num_gpus": int(os.environ.get("SM_NUM_GPUS", "0")),
            "output_data_dir": f"{base}/output/data",
            "output_dir": f"{base}/output",
            "output_intermediate_dir": f"{base}/output/intermediate",
            "resource_config": dict(self.resources),
            "user_entry_point": self.program,
        }
        return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_environment(base: Path) -> TrainingEnvironment:
    """From the files of ``base/input/config``. Raises ``OSError``, ``ValueError``; see `entrypoint`."""

    def load(name: str) -> dict[str, Any]:
        path = base / "input" / "config" / name
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    decoded = {name: _decoded(value) for name, value in load("hyperparameters.json").items()}
    program = decoded.get("sagemaker_program") or os.environ.get("SAGEMAKER_PROGRAM") or ""
    own = {n: v for n, v in decoded.items() if not n.startswith("sagemaker_") and n not in _RESERVED}
    return TrainingEnvironment(
        base=base,
        program=str(program),
        hyperparameters=own,
        framework_parameters={n: v for n, v in decoded.items() if n.startswith("sagemaker_")},
        input_config=load("inputdataconfig.json"),
        resources=load("resourceconfig.json"),
    )


def _decoded(value: Any) -> Any:
    """The SDK encodes a script's hyperparameters as JSON; others come as plain text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def script_command(environment: TrainingEnvironment) -> Sequence[str]:
    """The script's path and its arguments. Raises ``FileNotFoundError`` naming what is missing."""
    if not environment.program:
        raise FileNotFoundError("the job names no script: sagemaker_program is not set")
    script = environment.code / environment.program
    if not script.resolve().is_relative_to(environment.code.resolve()) or not script.is_file():
        there = sorted(path.name for path in environment.code.iterdir()) if environment.code.is_dir() else []
        raise FileNotFoundError(f"the script {environment.program} is not in the source (there are: {there})")
    return [str(script), *environment.arguments()]
