"""Roles: created, read, listed, updated, deleted, tagged; and the roles that belong to a service."""

from __future__ import annotations

import json
from typing import Any

from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.resource import Resource
from clary.services.iam.documents import (
    DEFAULT_MAX_SESSION_SECONDS,
    ROLE,
    change,
    check_policy_document,
    create,
    delete,
    delete_conflict,
    encoded,
    entities,
    find_role,
    limit_exceeded,
    no_such,
    page,
    path_of,
    role_arn,
    role_id,
    role_key,
)
from clary.services.operation import RequestContext, operation

MAX_TAGS = 50
SERVICE_ROLE_PATH = "/aws-service-role/"
# The name behind "AWSServiceRoleFor", of the services that SageMaker's users link roles to.
_SERVICE_ROLE_NAMES = {
    "sagemaker.application-autoscaling.amazonaws.com": "ApplicationAutoScaling_SageMakerEndpoint",
    "sagemaker.amazonaws.com": "AmazonSageMakerNotebooks",
}


def described(role: Resource) -> Members:
    """The role as IAM shows it."""
    spec = role.spec
    shown: Members = {
        "Path": path_of(role),
        "RoleName": role.key.name,
        "RoleId": role_id(role),
        "Arn": role_arn(role),
        "CreateDate": role.created_at,
        "AssumeRolePolicyDocument": encoded(spec["AssumeRolePolicyDocument"]),
        "Description": spec.get("Description"),
        "MaxSessionDuration": spec.get("MaxSessionDuration") or DEFAULT_MAX_SESSION_SECONDS,
    }
    if spec.get("PermissionsBoundary"):
        shown["PermissionsBoundary"] = {
            "PermissionsBoundaryType": "Policy",
            "PermissionsBoundaryArn": spec["PermissionsBoundary"],
        }
    return shown


def described_whole(role: Resource) -> Members:
    """The role as GetRole and CreateRole show it: with tags, and when it was last used."""
    return {**described(role), "Tags": role.spec.get("Tags") or None, "RoleLastUsed": {}}


async def require_role(context: RequestContext, name: str) -> Resource:
    """The caller's role. Raises `NotFound`."""
    role = await find_role(context.backends.store, context.account, name)
    if role is None:
        raise no_such("role", name)
    return role


@operation("iam")
async def create_role(context: RequestContext, request: Members) -> ReplyMembers:
    check_policy_document(request["AssumeRolePolicyDocument"])
    _check_tags(request.get("Tags") or [])
    if str(request.get("Path") or "/").startswith(SERVICE_ROLE_PATH):
        raise Invalid(
            f"Role path must not start with {SERVICE_ROLE_PATH}", code="ValidationError", status=400
        )
    key = role_key(context.account, request["RoleName"])
    role = await create(context.backends.store, "Role", key, request)
    return {"Role": described_whole(role)}


@operation("iam")
async def get_role(context: RequestContext, request: Members) -> ReplyMembers:
    return {"Role": described_whole(await require_role(context, request["RoleName"]))}


@operation("iam")
async def list_roles(context: RequestContext, request: Members) -> ReplyMembers:
    prefix = request.get("PathPrefix") or "/"
    roles = [
        role
        for role in await entities(context.backends.store, ROLE, context.account)
        if path_of(role).startswith(prefix)
    ]
    reply = page(roles, lambda role: role.key.name, request, "Roles")
    return {**reply, "Roles": [described(role) for role in reply["Roles"]]}


@operation("iam")
async def update_role(context: RequestContext, request: Members) -> ReplyMembers:
    def edit(spec: dict[str, Any]) -> None:
        for member in ("Description", "MaxSessionDuration"):
            if request.get(member) is not None:
                spec[member] = request[member]

    await change(context.backends.store, "role", role_key(context.account, request["RoleName"]), edit)
    return {}


@operation("iam")
async def update_role_description(context: RequestContext, request: Members) -> ReplyMembers:
    def edit(spec: dict[str, Any]) -> None:
        spec["Description"] = request["Description"]

    key = role_key(context.account, request["RoleName"])
    return {"Role": described(await change(context.backends.store, "role", key, edit))}


@operation("iam")
async def update_assume_role_policy(context: RequestContext, request: Members) -> ReplyMembers:
    check_policy_document(request["PolicyDocument"])

    def edit(spec: dict[str, Any]) -> None:
        spec["AssumeRolePolicyDocument"] = request["PolicyDocument"]

    await change(context.backends.store, "role", role_key(context.account, request["RoleName"]), edit)
    return {}


@operation("iam")
async def delete_role(context: RequestContext, request: Members) -> ReplyMembers:
    role = await require_role(context, request["RoleName"])
    if role.spec.get("AttachedPolicies"):
        raise delete_conflict("Cannot delete entity, must detach all policies first.")
    if role.spec.get("InlinePolicies"):
        raise delete_conflict("Cannot delete entity, must delete policies first.")
    await delete(context.backends.store, "role", role.key)
    return {}


@operation("iam")
async def create_service_linked_role(context: RequestContext, request: Members) -> ReplyMembers:
    service = request["AWSServiceName"]
    first = service.partition(".")[0]
    name = "AWSServiceRoleFor" + _SERVICE_ROLE_NAMES.get(service, first.title().replace("-", ""))
    if request.get("CustomSuffix"):
        name += f"_{request['CustomSuffix']}"
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}],
    }
    key = role_key(context.account, name)
    if await context.backends.store.find(key) is not None:
        raise Invalid(
            f"Service role name {name} has been taken in this account, please try a different suffix.",
            code="InvalidInput",
            status=400,
        )
    spec = {
        "RoleName": name,
        "Path": f"{SERVICE_ROLE_PATH}{service}/",
        "AssumeRolePolicyDocument": json.dumps(trust),
        "Description": request.get("Description"),
    }
    return {"Role": described_whole(await create(context.backends.store, "Role", key, spec))}


@operation("iam")
async def tag_role(context: RequestContext, request: Members) -> ReplyMembers:
    def edit(spec: dict[str, Any]) -> None:
        tags = {tag["Key"]: tag for tag in spec.get("Tags") or []}
        tags |= {tag["Key"]: tag for tag in request["Tags"]}
        _check_tags(list(tags.values()))
        spec["Tags"] = list(tags.values())

    await change(context.backends.store, "role", role_key(context.account, request["RoleName"]), edit)
    return {}


@operation("iam")
async def untag_role(context: RequestContext, request: Members) -> ReplyMembers:
    def edit(spec: dict[str, Any]) -> None:
        spec["Tags"] = [tag for tag in spec.get("Tags") or [] if tag["Key"] not in request["TagKeys"]]

    await change(context.backends.store, "role", role_key(context.account, request["RoleName"]), edit)
    return {}


@operation("iam")
async def list_role_tags(context: RequestContext, request: Members) -> ReplyMembers:
    role = await require_role(context, request["RoleName"])
    tags: Any = role.spec.get("Tags") or []
    return page(sorted(tags, key=lambda tag: tag["Key"]), lambda tag: str(tag["Key"]), request, "Tags")


def _check_tags(tags: list[Members]) -> None:
    if len({tag["Key"].lower() for tag in tags}) != len(tags):
        raise Invalid(
            "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
            code="InvalidInput",
            status=400,
        )
    if len(tags) > MAX_TAGS:
        raise limit_exceeded(f"The number of tags has reached the maximum limit of {MAX_TAGS}.")
