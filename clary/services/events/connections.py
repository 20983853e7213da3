"""Connections: how API destinations are told who calls. Their secrets never come back out."""

from __future__ import annotations

import copy
from typing import Any

from clary.faults import InUse, Invalid, LimitExceeded, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.event_rule import CONNECTION, MAX_CONNECTIONS, connection_arn
from clary.resources.resource import Key, Resource
from clary.services.events.listing import every, page
from clary.services.operation import RequestContext, operation

_PARAMETERS = {
    "BASIC": "BasicAuthParameters",
    "API_KEY": "ApiKeyAuthParameters",
    "OAUTH_CLIENT_CREDENTIALS": "OAuthParameters",
}
_SECRETS: tuple[tuple[str, ...], ...] = (
    ("BasicAuthParameters", "Password"),
    ("ApiKeyAuthParameters", "ApiKeyValue"),
    ("OAuthParameters", "ClientParameters", "ClientSecret"),
)
_HTTP_PARAMETERS = (("InvocationHttpParameters",), ("OAuthParameters", "OAuthHttpParameters"))


@operation("events")
async def create_connection(context: RequestContext, request: Members) -> ReplyMembers:
    _check(request)
    store = context.backends.store
    if len(await every(store, CONNECTION, context.account, context.region)) >= MAX_CONNECTIONS:
        raise LimitExceeded("The requested resource exceeds the maximum number allowed.")
    try:
        made = await store.create(
            _key(context, request["Name"]), dict(request), {}, phase="AUTHORIZED", due_at=None
        )
    except InUse:
        raise InUse(
            f"Connection {request['Name']} already exists.", code="ResourceAlreadyExistsException"
        ) from None
    return _brief(made)


@operation("events")
async def describe_connection(context: RequestContext, request: Members) -> ReplyMembers:
    connection = await require_connection(context, request["Name"])
    shown = copy.deepcopy(dict(connection.spec))
    parameters: Any = shown["AuthParameters"]
    for path in _SECRETS:
        holder = _within(parameters, path[:-1])
        holder.pop(path[-1], None)
    for path in _HTTP_PARAMETERS:
        for values in _within(parameters, path).values():
            for each in values:
                if each.get("IsValueSecret") is not False:
                    each.pop("Value", None)
    return {**shown, **_brief(connection)}


@operation("events")
async def update_connection(context: RequestContext, request: Members) -> ReplyMembers:
    """Replaces what is given; with another kind of authorization comes the whole of its parameters."""
    connection = await require_connection(context, request["Name"])

    def change(current: Resource) -> dict[str, Any]:
        parameters: Any = current.spec["AuthParameters"]
        changed = {
            **current.spec,
            **request,
            "AuthParameters": {**parameters, **(request.get("AuthParameters") or {})},
        }
        kind = _PARAMETERS[str(changed["AuthorizationType"])]
        changed["AuthParameters"] = {
            name: value
            for name, value in changed["AuthParameters"].items()
            if name == kind or name not in _PARAMETERS.values()
        }
        _check(changed)
        return changed

    return _brief(await context.backends.store.write_spec(connection.key, change, due_at=None))


@operation("events")
async def delete_connection(context: RequestContext, request: Members) -> ReplyMembers:
    connection = await require_connection(context, request["Name"])
    await context.backends.store.delete(connection.key, uid=connection.uid)
    return {**_brief(connection), "ConnectionState": "DELETING"}


@operation("events")
async def deauthorize_connection(context: RequestContext, request: Members) -> ReplyMembers:
    """Forgets the secrets; an update with new ones authorizes again."""
    connection = await require_connection(context, request["Name"])

    def change(current: Resource) -> dict[str, Any]:
        return {**current.spec, "AuthParameters": {}}

    return _brief(await context.backends.store.write_spec(connection.key, change, due_at=None))


@operation("events")
async def list_connections(context: RequestContext, request: Members) -> ReplyMembers:
    prefix, state = request.get("NamePrefix", ""), request.get("ConnectionState")
    found = await every(context.backends.store, CONNECTION, context.account, context.region, prefix=prefix)
    shown = [{**each.spec, **_brief(each)} for each in found]
    shown = [each for each in shown if state in (None, each["ConnectionState"])]
    return page(shown, lambda each: str(each["Name"]), request, "Connections", ["connections", prefix, state])


async def require_connection(context: RequestContext, name: str) -> Resource:
    """The connection. Raises `NotFound`."""
    connection = await context.backends.store.find(_key(context, name))
    if connection is None:
        raise NotFound(
            f"Failed to describe the connection(s). Connection '{name}' does not exist.",
            code="ResourceNotFoundException",
        )
    return connection


def _key(context: RequestContext, name: str) -> Key:
    return Key(CONNECTION, context.account, context.region, name)


def _check(request: Members) -> None:
    """Raises `Invalid` unless the parameters are those of the kind of authorization."""
    kind = str(request["AuthorizationType"])
    given = request["AuthParameters"]
    if _PARAMETERS[kind] not in given or sum(name in given for name in _PARAMETERS.values()) != 1:
        raise Invalid(
            f"AuthParameters must hold {_PARAMETERS[kind]}, and no others, for the AuthorizationType {kind}.",
            code="ValidationException",
        )
    if request.get("InvocationConnectivityParameters") or given.get("ConnectivityParameters"):
        raise Invalid(
            "Clary has no private connectivity: it reaches what this machine reaches.",
            code="ValidationException",
        )
    for path in _HTTP_PARAMETERS:
        for values in _within(given, path).values():
            if any(not each.get("Key") or each.get("Value") is None for each in values):
                raise Invalid(f"{'.'.join(path)}: each needs a Key and a Value.", code="ValidationException")


def _within(document: Any, path: tuple[str, ...]) -> Any:
    """What ``path`` leads to, an empty object if nothing."""
    for name in path:
        document = document.get(name) or {}
    return document


def _brief(connection: Resource) -> dict[str, Any]:
    authorized = bool(connection.spec["AuthParameters"])
    return {
        "ConnectionArn": connection_arn(connection),
        "ConnectionState": "AUTHORIZED" if authorized else "DEAUTHORIZED",
        "CreationTime": connection.created_at,
        "LastModifiedTime": connection.modified_at,
        "LastAuthorizedTime": connection.modified_at if authorized else None,
    }
