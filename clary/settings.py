"""Every setting of Clary, in one frozen object.

Read in this order, the later winning: the defaults below, ``clary.toml`` (in the working directory, or
where ``CLARY_CONFIG`` says), environment variables ``CLARY_<NAME>``, and the command line's flags. The
reference page in the documentation is generated from the fields and their descriptions.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def setting(default: Any, description: str, *, table: bool = False) -> Any:
    """A field of `Settings` with the sentence that documents it.

    A ``table`` is a text ``name=value, ...`` that ``clary.toml`` may give as a table as well.
    """
    return field(default=default, metadata={"description": description, "table": table})


@dataclass(frozen=True)
class Settings:
    """See the module. Paths are absolute; ports are TCP ports, 0 meaning "pick one and keep it"."""

    data: Path = setting(Path("~/.clary"), "The folder that holds everything Clary keeps.")
    host: str = setting(
        "127.0.0.1", "The address to listen on. Anything but loopback opens Clary to the network."
    )
    port: int = setting(8750, "Port of the HTTP listener that serves every AWS API.")
    tls_port: int = setting(0, "Port of the HTTPS listener, with a certificate of Clary's own authority.")
    gateway_port: int = setting(0, "Port of the gateway, the direct way for endpoint invocations.")
    account: str = setting("123456789012", "The AWS account id of the credentials made at first start.")
    region: str = setting("us-east-1", "The region that `clary env` sets clients to; every region works.")
    verify_signatures: bool = setting(True, "Refuse requests whose SigV4 signature is wrong or missing.")
    account_from_access_key: bool = setting(
        False, "For tests: a twelve-digit access key id means that account, with any secret."
    )
    log_level: str = setting("info", "How much the server logs: debug, info, warning or error.")
    store: str = setting("sqlite", "Where resources are kept: sqlite, or memory (gone at exit).")
    objects: str = setting("filesystem", "Where S3 objects are kept: filesystem, or s3 (an external S3).")
    objects_s3_endpoint: str = setting("", "Endpoint URL of the external S3; empty means AWS's.")
    objects_s3_region: str = setting("us-east-1", "Region of the external S3.")
    objects_s3_access_key_id: str = setting("", "Access key id for the external S3.")
    objects_s3_secret_access_key: str = setting("", "Secret access key for the external S3.")
    sandbox: str = setting("auto", "How user code is fenced in: auto, bubblewrap (or fail), or none.")
    file_systems: str = setting(
        "",
        "Directories that jobs may use as FileSystemDataSource: fs-0123abcd=/directory, several with commas.",
    )
    cpu_count: float = setting(0.0, "Processor cores that tasks may use; 0 means all.")
    memory_bytes: int = setting(0, "Memory that tasks may use; 0 means all.")
    docker_host: str = setting(
        "",
        "Address of the engine (Docker, Podman) for your own images; empty means DOCKER_HOST or its socket.",
    )
    docker_pull: str = setting(
        "missing", "Whether images come from their registries: missing (if not there), always, or never."
    )
    task_processes: int = setting(4096, "Processes and threads that one task may have.")
    control_groups: bool = setting(
        True, "Enforce limits by control groups where this machine allows them; else tasks are watched."
    )
    quotas: str = setting(
        "",
        "Most instances at once, by AWS's names: ml.m5.xlarge for training job usage=4, separated by commas.",
        table=True,
    )
    spot_interruptions_per_hour: float = setting(
        0.0, "How often a managed spot job loses its machines, at random, in an hour of training."
    )


def load_settings(
    overrides: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """Settings from the file, the environment and ``overrides`` (``None`` values are skipped).

    Raises ``ValueError`` naming the setting, the value and where it came from.
    """
    environment = os.environ if environment is None else environment
    path = config or Path(environment.get("CLARY_CONFIG", "clary.toml"))
    fields = {f.name: f for f in dataclasses.fields(Settings)}
    values: dict[str, Any] = {}

    def take(name: str, value: Any, origin: str) -> None:
        if name not in fields:
            known = ", ".join(sorted(fields))
            raise ValueError(f"{origin}: there is no setting '{name}'. The settings are: {known}.")
        if fields[name].metadata["table"] and isinstance(value, dict):
            value = ", ".join(f"{key}={each}" for key, each in value.items())
        values[name] = _convert(fields[name].default, name, value, origin)

    if path.is_file():
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path}: {error}") from error
        for name, value in document.items():
            take(name, value, str(path))
    elif config is not None or "CLARY_CONFIG" in environment:
        raise ValueError(f"{path}: there is no such configuration file.")
    for name in fields:
        variable = f"CLARY_{name.upper()}"
        if variable in environment:
            take(name, environment[variable], variable)
    for name, value in (overrides or {}).items():
        if value is not None:
            take(name, value, f"--{name.replace('_', '-')}")
    settings = Settings(**values)
    return dataclasses.replace(settings, data=settings.data.expanduser().absolute())


def _convert(default: Any, name: str, value: Any, origin: str) -> Any:
    """``value`` in the type of ``default``; text as an environment variable gives it is understood."""
    try:
        if isinstance(default, bool):
            if isinstance(value, bool):
                return value
            words = {"1": True, "true": True, "yes": True, "on": True}
            words |= {"0": False, "false": False, "no": False, "off": False}
            return words[str(value).strip().lower()]
        return type(default)(value) if not isinstance(default, Path) else Path(value)
    except (KeyError, TypeError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(type(default), "text")
        raise ValueError(f"{origin}: '{name}' must be {kind}, not {value!r}.") from None
