"""How requests name a log group: by name, or by ARN."""

from __future__ import annotations

from clary.faults import Invalid, NotFound
from clary.protocol.wire import Members
from clary.services.operation import RequestContext

_BEFORE_NAME = ":log-group:"


def log_group_arn(context: RequestContext, name: str) -> str:
    """Without the ``:*`` that IAM policies have."""
    return f"arn:aws:logs:{context.region}:{context.account}{_BEFORE_NAME}{name}"


def log_group_of_arn(context: RequestContext, arn: str) -> str:
    """The name of the group that ``arn`` means. Raises `Invalid`, `NotFound` for one of another account."""
    start, found, name = arn.partition(_BEFORE_NAME)
    if not found or not start.startswith("arn:") or not name:
        raise Invalid(f"The ARN {arn} is not that of a log group.")
    if log_group_arn(context, name) != start + _BEFORE_NAME + name:
        raise NotFound("The specified log group does not exist.", code="ResourceNotFoundException")
    return name


def log_group_of(context: RequestContext, request: Members) -> str:
    """The name of the group that ``logGroupName`` or ``logGroupIdentifier`` means. Raises `Invalid`."""
    name, identifier = request.get("logGroupName"), request.get("logGroupIdentifier")
    if (name is None) == (identifier is None):
        raise Invalid("Either logGroupName or logGroupIdentifier must be given, and not both.")
    if name is not None:
        return str(name)
    return log_group_of_identifier(context, str(identifier))


def log_group_of_identifier(context: RequestContext, identifier: str) -> str:
    """The name of the group that a name or an ARN means. Raises as `log_group_of_arn`."""
    return log_group_of_arn(context, identifier) if identifier.startswith("arn:") else identifier
