"""The targets of rules. Clary delivers to SQS queues, log groups and API destinations."""

from __future__ import annotations

from typing import Any

from clary.event_bus.target_input import check_input
from clary.faults import Invalid, LimitExceeded
from clary.protocol.wire import Members, ReplyMembers
from clary.queues.queue_store import queue_of_arn
from clary.resources.arn import Arn, split_arn
from clary.resources.event_rule import MAX_TARGETS, targets_of
from clary.resources.resource import Resource
from clary.services.events.buses import require_bus
from clary.services.events.listing import page
from clary.services.events.rules import require_rule, rules_of
from clary.services.operation import RequestContext, operation

_OFFERED = "an SQS queue, a CloudWatch Logs log group or an API destination"


@operation("events")
async def put_targets(context: RequestContext, request: Members) -> ReplyMembers:
    """Adds targets, or replaces those of the same id: all or none."""
    for target in request["Targets"]:
        _check_target(context, target)
    rule = await require_rule(context, request["Rule"], request.get("EventBusName"))

    def change(current: Resource) -> dict[str, Any]:
        targets: dict[str, Any] = dict(targets_of(current))
        targets |= {target["Id"]: target for target in request["Targets"]}
        if len(targets) > MAX_TARGETS:
            raise LimitExceeded("The requested resource exceeds the maximum number allowed.")
        return {**current.spec, "Targets": targets}

    await context.backends.store.write_spec(rule.key, change, due_at=None)
    return {"FailedEntryCount": 0, "FailedEntries": []}


@operation("events")
async def remove_targets(context: RequestContext, request: Members) -> ReplyMembers:
    """Ids that the rule does not have fail, and nothing else does."""
    rule = await require_rule(context, request["Rule"], request.get("EventBusName"))
    missing: list[str] = []

    def change(current: Resource) -> dict[str, Any]:
        targets: dict[str, Any] = dict(targets_of(current))
        missing[:] = [each for each in request["Ids"] if targets.pop(each, None) is None]
        return {**current.spec, "Targets": targets}

    await context.backends.store.write_spec(rule.key, change, due_at=None)
    failed = [
        {
            "TargetId": each,
            "ErrorCode": "ResourceNotFoundException",
            "ErrorMessage": f"Rule {request['Rule']} does not have a target with the Id {each}.",
        }
        for each in missing
    ]
    return {"FailedEntryCount": len(failed), "FailedEntries": failed}


@operation("events")
async def list_targets_by_rule(context: RequestContext, request: Members) -> ReplyMembers:
    rule = await require_rule(context, request["Rule"], request.get("EventBusName"))
    targets = sorted(targets_of(rule).values(), key=lambda target: str(target["Id"]))
    question = ["targets", rule.key.name]
    return page(targets, lambda target: str(target["Id"]), request, "Targets", question)


@operation("events")
async def list_rule_names_by_target(context: RequestContext, request: Members) -> ReplyMembers:
    bus = await require_bus(context, request.get("EventBusName"))
    arn = request["TargetArn"]
    names = [
        str(rule.spec["Name"])
        for rule in await rules_of(context, bus)
        if any(target["Arn"] == arn for target in targets_of(rule).values())
    ]
    return page(names, lambda name: name, request, "RuleNames", ["names", bus, arn])


def _check_target(context: RequestContext, target: Members) -> None:
    """Raises `Invalid` for a target that could never be delivered to."""
    parts = _deliverable(context, target["Arn"])
    dead_letters = (target.get("DeadLetterConfig") or {}).get("Arn")
    if dead_letters is not None:
        queue = queue_of_arn(dead_letters)
        if queue is None or queue.name.endswith(".fifo"):
            raise _not_valid(dead_letters, "A dead-letter queue is a standard SQS queue.")
        _deliverable(context, dead_letters)
    group = (target.get("SqsParameters") or {}).get("MessageGroupId")
    if parts.service == "sqs" and parts.resource.endswith(".fifo") and not group:
        raise Invalid(
            f"Parameter(s) SqsParameters must be specified for target: {target['Id']}.",
            code="ValidationException",
        )
    try:
        check_input(target)
    except Invalid as fault:
        raise Invalid(fault.message, code="ValidationException") from None


def _deliverable(context: RequestContext, arn: str) -> Arn:
    try:
        parts = split_arn(arn)
    except Invalid:
        raise _not_valid(arn, "Provided Arn is not in correct format.") from None
    offered = (
        (parts.service == "sqs" and "/" not in parts.resource)
        or (parts.service == "logs" and parts.resource.startswith("log-group:"))
        or (parts.service == "events" and parts.resource.startswith("api-destination/"))
    )
    if not offered:
        raise _not_valid(arn, f"Clary delivers to {_OFFERED}, not to this.")
    if (parts.account, parts.region) != (context.account, context.region):
        raise _not_valid(arn, "The target must be of the rule's own account and region.")
    return parts


def _not_valid(arn: str, reason: str) -> Invalid:
    return Invalid(f"Parameter {arn} is not valid. Reason: {reason}", code="ValidationException")
