"""Warm pools: what an ended job keeps for the next one like it.

A job that asks for ``KeepAlivePeriodInSeconds`` holds its room on the machines, and the folder that its
program keeps for its successors, for so long. A job of the same role and machines takes them over and starts
at once. Facts: AWS's "SageMaker AI Managed Warm Pools".
"""

from __future__ import annotations

import math
from typing import Any

from clary.resources.resource import Document, JsonValue

LABEL = "KeepAlive"  # of jobs that may leave a pool behind, with the value "true"
CLAIM_SECONDS = 60.0  # in which a job that claimed a pool is created
# What a job must have in common with the pool, besides what its machines are.
_SAME = ("RoleArn", "VpcConfig", "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption")
_SAME_MACHINES = ("InstanceType", "InstanceCount", "InstanceGroups", "VolumeSizeInGB", "VolumeKmsKeyId")


def keep_alive_seconds(spec: Document) -> float:
    """How long the job's machines are kept after its end; 0 if they are not."""
    resources: Any = spec.get("ResourceConfig") or {}
    return float(resources.get("KeepAlivePeriodInSeconds") or 0)


def matches(kept: Document, wanted: Document) -> bool:
    """Whether the machines of the ended job ``kept`` are such as the request ``wanted`` asks for."""
    machines: Any = kept["ResourceConfig"]
    asked: Any = wanted["ResourceConfig"]
    return all((kept.get(name) or None) == (wanted.get(name) or None) for name in _SAME) and all(
        machines.get(name) == asked.get(name) for name in _SAME_MACHINES
    )


def available() -> dict[str, JsonValue]:
    """The WarmPoolStatus of a pool that waits for a job."""
    return {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 0}


def is_available(status: Document) -> bool:
    """Whether the status of an ended job says that its pool waits for a job."""
    pool: Any = status.get("WarmPoolStatus") or {}
    return bool(pool.get("Status") == "Available")


def ended(seconds: float, reused_by: str = "") -> dict[str, JsonValue]:
    """The WarmPoolStatus of a pool that was kept for ``seconds``, until a job took it or its time was up."""
    status: dict[str, JsonValue] = {
        "Status": "Reused" if reused_by else "Terminated",
        "ResourceRetainedBillableTimeInSeconds": max(0, math.ceil(seconds)),
    }
    return {**status, "ReusedByJob": reused_by} if reused_by else status
