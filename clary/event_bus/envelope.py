"""The envelope in which EventBridge sends events."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any


def envelope(
    *,
    id: str,
    detail_type: str,
    source: str,
    account: str,
    region: str,
    at: float,
    resources: Sequence[str],
    detail: Mapping[str, Any],
) -> dict[str, Any]:
    """An event, ``at`` in epoch seconds. Raises ``ValueError`` for a time beyond the calendar."""
    return {
        "version": "0",
        "id": id,
        "detail-type": detail_type,
        "source": source,
        "account": account,
        "time": event_time(at),
        "region": region,
        "resources": list(resources),
        "detail": detail,
    }


def event_time(seconds: float) -> str:
    """``2026-11-24T12:00:00Z``: whole seconds, as EventBridge writes times. Raises ``ValueError``."""
    try:
        moment = datetime.datetime.fromtimestamp(int(seconds), datetime.timezone.utc)
    except (OverflowError, OSError) as error:
        raise ValueError(f"{seconds} is beyond the calendar") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
