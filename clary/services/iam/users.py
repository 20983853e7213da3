"""Users and their access keys, with which they really can call.

A secret access key is not stored: it derives from the server's secret and the key's id, and is shown once.
"""

from __future__ import annotations

from typing import Any

from clary.faults import Invalid, NotFound
from clary.protocol.key_ring import LONG_TERM_PREFIX, new_access_key_id
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import PARTITION
from clary.resources.resource import Resource
from clary.resources.session import long_term_secret_key
from clary.services.iam.documents import (
    ACCESS_KEY,
    USER,
    access_key_key,
    change,
    create,
    delete,
    delete_conflict,
    entities,
    find_user,
    limit_exceeded,
    no_such,
    page,
    path_of,
    user_arn,
    user_id,
    user_key,
)
from clary.services.operation import RequestContext, operation

MAX_ACCESS_KEYS = 2  # of one user, as in AWS


def described(user: Resource) -> Members:
    """The user as IAM shows it."""
    return {
        "Path": path_of(user),
        "UserName": user.key.name,
        "UserId": user_id(user),
        "Arn": user_arn(user),
        "CreateDate": user.created_at,
        "Tags": user.spec.get("Tags") or None,
    }


@operation("iam")
async def create_user(context: RequestContext, request: Members) -> ReplyMembers:
    key = user_key(context.account, request["UserName"])
    return {"User": described(await create(context.backends.store, "User", key, request))}


@operation("iam")
async def get_user(context: RequestContext, request: Members) -> ReplyMembers:
    """The user, or the caller where none is named."""
    caller = context.caller
    if not request.get("UserName") and caller.arn.endswith(":root"):
        root = f"arn:{PARTITION}:iam::{caller.account}:root"
        return {
            "User": {
                "UserId": caller.account,
                "Arn": root,
                "CreateDate": 0.0,
                "Path": "/",
                "UserName": "root",
            }
        }
    return {"User": described(await _require_user(context, request))}


@operation("iam")
async def list_users(context: RequestContext, request: Members) -> ReplyMembers:
    prefix = request.get("PathPrefix") or "/"
    users = [
        user
        for user in await entities(context.backends.store, USER, context.account)
        if path_of(user).startswith(prefix)
    ]
    reply = page(users, lambda user: user.key.name, request, "Users")
    return {**reply, "Users": [{**described(user), "Tags": None} for user in reply["Users"]]}


@operation("iam")
async def delete_user(context: RequestContext, request: Members) -> ReplyMembers:
    user = await _require_user(context, request)
    if await _access_keys(context, user):
        raise delete_conflict("Cannot delete entity, must delete access keys first.")
    await delete(context.backends.store, "user", user.key)
    return {}


@operation("iam")
async def create_access_key(context: RequestContext, request: Members) -> ReplyMembers:
    user = await _require_user(context, request)
    if len(await _access_keys(context, user)) >= MAX_ACCESS_KEYS:
        raise limit_exceeded(f"Cannot exceed quota for AccessKeysPerUser: {MAX_ACCESS_KEYS}")
    access_key_id = new_access_key_id(LONG_TERM_PREFIX, context.account)
    key = await context.backends.store.create(
        access_key_key(context.account, access_key_id),
        {"UserName": user.key.name, "Status": "Active"},
        {},
        phase="Active",
        due_at=None,
        labels={"UserName": user.key.name},
    )
    secret = long_term_secret_key(context.backends.secret, access_key_id)
    return {"AccessKey": {**_described_key(key), "SecretAccessKey": secret}}


@operation("iam")
async def list_access_keys(context: RequestContext, request: Members) -> ReplyMembers:
    user = await _require_user(context, request)
    keys = [_described_key(key) for key in await _access_keys(context, user)]
    return page(keys, lambda key: str(key["AccessKeyId"]), request, "AccessKeyMetadata")


@operation("iam")
async def update_access_key(context: RequestContext, request: Members) -> ReplyMembers:
    key = await _require_access_key(context, request)

    def edit(spec: dict[str, Any]) -> None:
        spec["Status"] = request["Status"]

    await change(context.backends.store, "access key", key.key, edit)
    return {}


@operation("iam")
async def delete_access_key(context: RequestContext, request: Members) -> ReplyMembers:
    key = await _require_access_key(context, request)
    await delete(context.backends.store, "access key", key.key)
    return {}


@operation("iam")
async def list_account_aliases(context: RequestContext, request: Members) -> ReplyMembers:
    """Accounts have no aliases here."""
    return {"AccountAliases": [], "IsTruncated": False}


async def _require_user(context: RequestContext, request: Members) -> Resource:
    name = request.get("UserName")
    if not name:
        marker = f":iam::{context.account}:user/"
        if marker not in context.caller.arn:
            raise Invalid(
                "Must specify userName when calling with non-User credentials",
                code="ValidationError",
                status=400,
            )
        name = context.caller.arn.rpartition("/")[2]
    user = await find_user(context.backends.store, context.account, name)
    if user is None:
        raise no_such("user", name)
    return user


async def _access_keys(context: RequestContext, user: Resource) -> list[Resource]:
    return await entities(context.backends.store, ACCESS_KEY, context.account, {"UserName": user.key.name})


async def _require_access_key(context: RequestContext, request: Members) -> Resource:
    user = await _require_user(context, request)
    access_key_id = request["AccessKeyId"]
    key = await context.backends.store.find(access_key_key(context.account, access_key_id))
    if key is None or key.spec["UserName"] != user.key.name:
        raise NotFound(
            f"The Access Key with id {access_key_id} cannot be found.", code="NoSuchEntity", status=404
        )
    return key


def _described_key(key: Resource) -> Members:
    return {
        "UserName": key.spec["UserName"],
        "AccessKeyId": key.key.name,
        "Status": key.spec["Status"],
        "CreateDate": key.created_at,
    }
