"""The environment that points AWS clients at a running Clary, and the files it refers to.

Everything lies in ``DATA/client``; the user's own ``~/.aws`` is neither read nor written, so another
window keeps talking to AWS.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from clary.running_server import RunningServer, reachable_host

PROFILE = "clary"

# What a shell may carry from real AWS work and what would win over the profile.
_UNSET = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "REQUESTS_CA_BUNDLE",
)


class NotReady(Exception):
    """The data folder lacks what a client needs; the message says what."""


def client_environment(
    data: Path, server: RunningServer, environment: Mapping[str, str]
) -> tuple[dict[str, str], Sequence[str]]:
    """Variables to set and variables to unset, on top of ``environment``; writes the files they name.

    Raises `NotReady` if the server has not made its credentials yet.
    """
    folder = data / "client"
    hook = folder / "python"
    hook.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_credentials(data, folder, server)
    _write(
        folder / "sagemaker.yaml",
        "SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n",
    )
    shutil.copyfile(Path(__file__).parent / "startup_hook" / "sitecustomize.py", hook / "sitecustomize.py")
    host = reachable_host(server.host)
    searched = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    unproxied = [
        name for name in environment.get("NO_PROXY", environment.get("no_proxy", "")).split(",") if name
    ]
    no_proxy = ",".join(dict.fromkeys([*unproxied, "127.0.0.1", "localhost", "::1", host, ".amazonaws.com"]))
    variables = {
        "AWS_PROFILE": PROFILE,
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
        "AWS_CONFIG_FILE": str(folder / "config"),
        "AWS_REGION": server.region,
        "AWS_DEFAULT_REGION": server.region,
        "AWS_ENDPOINT_URL": server.endpoint_url,
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": server.gateway_url,
        "AWS_CA_BUNDLE": str(data / "tls" / "bundle.pem"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "CLARY_TLS_ADDRESS": f"{host}:{server.tls_port}",
        "CLARY_DATA": str(data),
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(folder / "sagemaker.yaml"),
        "PYTHONPATH": os.pathsep.join([str(hook), *(entry for entry in searched if entry != str(hook))]),
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }
    stale = [name for name in environment if name.startswith("AWS_ENDPOINT_URL_") and name not in variables]
    return variables, [*_UNSET, *stale]


def shell_script(variables: Mapping[str, str], unset: Sequence[str]) -> str:
    """Lines for ``eval`` in a POSIX shell."""
    lines = [f"unset {' '.join(unset)}"] if unset else []
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(lines) + "\n"


def _write_credentials(data: Path, folder: Path, server: RunningServer) -> None:
    try:
        root = json.loads((data / "credentials.json").read_text(encoding="utf-8"))
        key, secret = root["access_key_id"], root["secret_access_key"]
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise NotReady(
            f"{data / 'credentials.json'} holds no credentials ({error}): start `clary up` first."
        ) from error
    sections = ("default", PROFILE)
    _write(
        folder / "credentials",
        "".join(f"[{s}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n\n" for s in sections),
    )
    _write(
        folder / "config",
        "".join(f"[{s}]\nregion = {server.region}\n\n" for s in ("default", f"profile {PROFILE}")),
    )


def _write(path: Path, text: str) -> None:
    """Replace ``path``, never readable by others, not even for a moment."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
