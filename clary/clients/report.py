"""What `clary status` says: whether the server is ready, and what runs on it, asked through its own API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from clary.clients.environment import NotReady
from clary.running_server import RunningServer, find_running

_TIMEOUT_SECONDS = 5
_MOST_ROWS = 20


def server_report(data: Path) -> tuple[bool, str]:
    """Whether the server on ``data`` is ready, and a few lines about it."""
    server = find_running(data)
    if server is None:
        return False, f"No server runs on {data}. Start one with: clary up --data {data}"
    try:
        lines = list(_what_runs(data, server))
    except NotReady as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001 - whatever the client raises, the server is not ready
        return False, f"The server at {server.endpoint_url} does not answer: {error}"
    up = _duration(time.time() - server.started_at)
    head = f"Clary {server.version} is ready at {server.endpoint_url} (up {up}, process {server.process_id})"
    return True, "\n".join([head, *(lines or ["  Nothing runs."])])


def _what_runs(data: Path, server: RunningServer) -> Iterator[str]:
    from clary.clients.connect import connect

    client = connect(data, server, "sagemaker", timeout_seconds=_TIMEOUT_SECONDS)
    now = time.time()
    jobs = client.list_training_jobs(StatusEquals="InProgress", MaxResults=_MOST_ROWS)
    for job in jobs["TrainingJobSummaries"]:
        age = _duration(now - job["CreationTime"].timestamp())
        yield f"  training job  {job['TrainingJobName']:<40} {job['TrainingJobStatus']:<12} {age}"
    endpoints = client.list_endpoints(MaxResults=_MOST_ROWS)
    for endpoint in endpoints["Endpoints"]:
        age = _duration(now - endpoint["CreationTime"].timestamp())
        yield f"  endpoint      {endpoint['EndpointName']:<40} {endpoint['EndpointStatus']:<12} {age}"
    if "NextToken" in jobs or "NextToken" in endpoints:
        yield "  and more"


def _duration(seconds: float) -> str:
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
