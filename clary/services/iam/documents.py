"""How IAM's roles, users, policies and access keys lie in the store, and what all operations on them share.

IAM knows no regions: everything lies in the region ``global``. What hangs on a role (inline and attached
policies, tags) lies inside the role's spec, so that one write changes it whole.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from clary.faults import Conflict, InUse, Invalid, LimitExceeded, NotFound
from clary.protocol.wire import Members
from clary.resources.arn import PARTITION
from clary.resources.resource import Document, Key, Resource
from clary.resources.role import RoleName, unique_id
from clary.store.store import MAX_PAGE_SIZE, Query, Store

REGION = "global"
DEFAULT_MAX_SESSION_SECONDS = 3600
DEFAULT_MAX_ITEMS = 100
MAX_ENTITIES = 5000  # of one kind in an account
MAX_DOCUMENT_CHARACTERS = 131_072

ROLE = "IamRole"
USER = "IamUser"
POLICY = "IamPolicy"
ACCESS_KEY = "IamAccessKey"

Item = TypeVar("Item")


def role_key(account: str, name: str) -> Key:
    return Key(ROLE, account, REGION, name)


def user_key(account: str, name: str) -> Key:
    return Key(USER, account, REGION, name)


def policy_key(account: str, name: str) -> Key:
    return Key(POLICY, account, REGION, name)


def access_key_key(account: str, access_key_id: str) -> Key:
    return Key(ACCESS_KEY, account, REGION, access_key_id)


async def find_role(store: Store, account: str, name: str) -> Resource | None:
    """The role, if it was created."""
    return await store.find(role_key(account, name))


async def find_user(store: Store, account: str, name: str) -> Resource | None:
    """The user, if there is one."""
    return await store.find(user_key(account, name))


def role_id(role: Resource) -> str:
    return unique_id("AROA", role.uid)


def user_id(user: Resource) -> str:
    return unique_id("AIDA", user.uid)


def path_of(resource: Resource) -> str:
    return str(resource.spec.get("Path") or "/")


def role_arn(role: Resource) -> str:
    return RoleName(role.key.account, path_of(role), role.key.name).arn


def user_arn(user: Resource) -> str:
    return f"arn:{PARTITION}:iam::{user.key.account}:user{path_of(user)}{user.key.name}"


def policy_arn(policy: Resource) -> str:
    return f"arn:{PARTITION}:iam::{policy.key.account}:policy{path_of(policy)}{policy.key.name}"


def no_such(what: str, name: str) -> NotFound:
    """``what`` (``role``, ``user``, ``policy``) does not exist."""
    return NotFound(f"The {what} with name {name} cannot be found.", code="NoSuchEntity", status=404)


def already_exists(what: str, name: str) -> InUse:
    message = f"{what} with name {name} already exists."
    return InUse(message, code="EntityAlreadyExists", status=409)


def delete_conflict(message: str) -> Conflict:
    return Conflict(message, code="DeleteConflict", status=409)


def limit_exceeded(message: str) -> LimitExceeded:
    return LimitExceeded(message, code="LimitExceeded", status=409)


def check_policy_document(text: str) -> None:
    """Raises `Invalid` unless ``text`` is a JSON object with statements, as a policy is."""
    try:
        document = json.loads(text) if len(text) <= MAX_DOCUMENT_CHARACTERS else None
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("Statement"), (list, dict)):
        raise Invalid(
            "The policy document must be a JSON object with a Statement.",
            code="MalformedPolicyDocument",
            status=400,
        )


def encoded(document: object) -> str:
    """A policy document as IAM gives it back: percent-encoded."""
    return quote(str(document), safe="")


async def create(store: Store, what: str, key: Key, spec: Document) -> Resource:
    """Add an entity. Raises `InUse` if the name is taken, `LimitExceeded` if there are too many."""
    if await store.find(key) is None and len(await entities(store, key.kind, key.account)) >= MAX_ENTITIES:
        raise limit_exceeded(f"Cannot exceed quota of {MAX_ENTITIES} for this account.")
    try:
        return await store.create(key, spec, {}, phase="Active", due_at=None)
    except InUse:
        raise already_exists(what, key.name) from None


async def change(store: Store, what: str, key: Key, edit: Callable[[dict[str, Any]], None]) -> Resource:
    """Let ``edit`` change a copy of the spec, and write it. Raises `NotFound`, and what ``edit`` raises."""

    def write(current: Resource) -> Document:
        spec = json.loads(json.dumps(dict(current.spec)))
        edit(spec)
        return spec  # type: ignore[no-any-return]

    try:
        return await store.write_spec(key, write, due_at=None)
    except NotFound as fault:
        raise fault if fault.code else no_such(what, key.name) from None


async def delete(store: Store, what: str, key: Key) -> None:
    """Delete an entity. Raises `NotFound`."""
    try:
        await store.delete(key)
    except NotFound:
        raise no_such(what, key.name) from None


async def entities(
    store: Store, kind: str, account: str, labels: Mapping[str, str] | None = None
) -> list[Resource]:
    """Every entity of a kind, by name."""
    found: list[Resource] = []
    token: str | None = None
    while True:
        query = Query(
            kind,
            account,
            REGION,
            labels=labels or {},
            sort_by="name",
            page_size=MAX_PAGE_SIZE,
            page_token=token,
        )
        page = await store.list(query)
        found += page.resources
        token = page.next_token
        if token is None:
            return found


def page(items: Sequence[Item], name_of: Callable[[Item], str], request: Members, member: str) -> Members:
    """A piece of ``items`` (sorted by name) as IAM pages: Marker, MaxItems, IsTruncated.

    Raises `Invalid` for a marker that IAM did not give.
    """
    after = _read_marker(request.get("Marker"))
    limit = int(request.get("MaxItems") or DEFAULT_MAX_ITEMS)
    left = [item for item in items if after is None or name_of(item) > after]
    shown = left[:limit]
    reply: Members = {member: shown, "IsTruncated": len(left) > limit}
    if reply["IsTruncated"]:
        reply["Marker"] = base64.urlsafe_b64encode(name_of(shown[-1]).encode()).decode()
    return reply


def _read_marker(marker: str | None) -> str | None:
    if marker is None:
        return None
    try:
        return base64.urlsafe_b64decode(marker.encode("ascii")).decode()
    except ValueError:
        raise Invalid(f"Invalid Marker: {marker[:80]}", code="ValidationError", status=400) from None
