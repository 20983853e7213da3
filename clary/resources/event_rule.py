"""Event buses, their rules, and API destinations with their connections, as they lie in the store.

A rule's targets lie inside its spec, by id, so that one write changes the rule whole. A rule on a bus other
than the default one carries the bus in its name, as its ARN does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clary.resources.arn import PARTITION
from clary.resources.resource import Key, Resource

BUS = "EventBus"
RULE = "EventRule"
CONNECTION = "EventConnection"
API_DESTINATION = "EventApiDestination"

DEFAULT_BUS = "default"
ENABLED = ("ENABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS")
MAX_TARGETS = 5  # of a rule
MAX_RULES = 300  # of a bus
MAX_BUSES = 100
MAX_CONNECTIONS = 3000
MAX_API_DESTINATIONS = 3000
DEFAULT_RETRY_ATTEMPTS = 185
DEFAULT_EVENT_AGE_SECONDS = 86_400
DEFAULT_RATE_PER_SECOND = 300


def bus_key(account: str, region: str, name: str) -> Key:
    return Key(BUS, account, region, name)


def rule_key(account: str, region: str, bus: str, name: str) -> Key:
    return Key(RULE, account, region, name if bus == DEFAULT_BUS else f"{bus}/{name}")


def bus_arn(account: str, region: str, name: str) -> str:
    return f"arn:{PARTITION}:events:{region}:{account}:event-bus/{name}"


def rule_arn(key: Key) -> str:
    return f"arn:{PARTITION}:events:{key.region}:{key.account}:rule/{key.name}"


def connection_arn(connection: Resource) -> str:
    key = connection.key
    return f"arn:{PARTITION}:events:{key.region}:{key.account}:connection/{key.name}/{_long(connection.uid)}"


def api_destination_arn(destination: Resource) -> str:
    key = destination.key
    name = f"{key.name}/{_long(destination.uid)}"
    return f"arn:{PARTITION}:events:{key.region}:{key.account}:api-destination/{name}"


def targets_of(rule: Resource) -> Mapping[str, Mapping[str, Any]]:
    """The targets by id, in the order in which they were put."""
    targets: Any = rule.spec.get("Targets") or {}
    return targets  # type: ignore[no-any-return]


def bus_of(rule: Resource) -> str:
    return str(rule.spec.get("EventBusName") or DEFAULT_BUS)


def _long(uid: str) -> str:
    """A uid in the form of a UUID, as the ARNs have it."""
    digits = (uid * 2)[:32]
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
