"""A botocore client of a running server, with the credentials of its data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import botocore.config
import botocore.session

from clary.clients.environment import client_environment
from clary.protocol.models import OWN_SERVICES
from clary.running_server import RunningServer


def connect(
    data: Path,
    server: RunningServer,
    service: str,
    *,
    attempts: int = 1,
    timeout_seconds: float = 60,
    region: str | None = None,
    endpoint_url: str | None = None,
) -> Any:
    """A client of ``service`` (botocore's name, or ``clary``) that tries ``attempts`` times.

    Raises `NotReady`.
    """
    variables, _ = client_environment(data, server, {})
    session = botocore.session.Session()
    for setting, variable in (
        ("credentials_file", "AWS_SHARED_CREDENTIALS_FILE"),
        ("config_file", "AWS_CONFIG_FILE"),
        ("profile", "AWS_PROFILE"),
        ("ca_bundle", "AWS_CA_BUNDLE"),
    ):
        session.set_config_variable(setting, variables[variable])
    session.set_config_variable("data_path", str(OWN_SERVICES))
    return session.create_client(
        service,
        endpoint_url=endpoint_url or server.endpoint_url,
        region_name=region or server.region,
        config=botocore.config.Config(
            connect_timeout=timeout_seconds,
            read_timeout=timeout_seconds,
            retries={"total_max_attempts": attempts, "mode": "standard"},
        ),
    )
