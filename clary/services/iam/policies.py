"""Managed policies and their versions. They are kept and read back; Clary does not enforce them."""

from __future__ import annotations

from typing import Any

from clary.faults import Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.arn import split_arn
from clary.resources.resource import Resource
from clary.resources.role import unique_id
from clary.services.iam.documents import (
    POLICY,
    ROLE,
    change,
    check_policy_document,
    create,
    delete,
    delete_conflict,
    encoded,
    entities,
    limit_exceeded,
    page,
    path_of,
    policy_arn,
    policy_key,
)
from clary.services.operation import RequestContext, operation

MAX_VERSIONS = 5


@operation("iam")
async def create_policy(context: RequestContext, request: Members) -> ReplyMembers:
    check_policy_document(request["PolicyDocument"])
    version = _version("v1", request["PolicyDocument"], context)
    spec = {**request, "Versions": [version], "DefaultVersionId": "v1", "NextVersion": 2}
    key = policy_key(context.account, request["PolicyName"])
    policy = await create(context.backends.store, "A policy", key, spec)
    return {"Policy": {**_described(policy, 0), "Tags": request.get("Tags")}}


@operation("iam")
async def get_policy(context: RequestContext, request: Members) -> ReplyMembers:
    policy = await require_policy(context, request["PolicyArn"])
    shown = _described(policy, (await _attachments(context)).get(policy_arn(policy), 0))
    return {
        "Policy": {**shown, "Description": policy.spec.get("Description"), "Tags": policy.spec.get("Tags")}
    }


@operation("iam")
async def list_policies(context: RequestContext, request: Members) -> ReplyMembers:
    """The account's own policies: Clary does not carry AWS's (scope ``AWS`` is an empty list)."""
    found: list[Members] = []
    if request.get("Scope") != "AWS":
        attachments = await _attachments(context)
        prefix = request.get("PathPrefix") or "/"
        for policy in await entities(context.backends.store, POLICY, context.account):
            count = attachments.get(policy_arn(policy), 0)
            if path_of(policy).startswith(prefix) and (count or not request.get("OnlyAttached")):
                found.append(_described(policy, count))
    return page(found, lambda policy: str(policy["PolicyName"]), request, "Policies")


@operation("iam")
async def delete_policy(context: RequestContext, request: Members) -> ReplyMembers:
    policy = await require_policy(context, request["PolicyArn"])
    if (await _attachments(context)).get(policy_arn(policy)):
        raise delete_conflict("Cannot delete a policy attached to entities.")
    if len(_versions(policy)) > 1:
        raise delete_conflict(
            "This policy has more than one version. Before you delete a policy, you must delete the policy's "
            "versions. The default version is deleted with the policy."
        )
    await delete(context.backends.store, "policy", policy.key)
    return {}


@operation("iam")
async def create_policy_version(context: RequestContext, request: Members) -> ReplyMembers:
    check_policy_document(request["PolicyDocument"])
    policy = await require_policy(context, request["PolicyArn"])
    made: Members = {}

    def edit(spec: dict[str, Any]) -> None:
        if len(spec["Versions"]) >= MAX_VERSIONS:
            raise limit_exceeded(
                f"A managed policy can have up to {MAX_VERSIONS} versions. Before you create a new version, "
                "you must delete an existing version."
            )
        made.clear()
        made.update(_version(f"v{spec['NextVersion']}", request["PolicyDocument"], context))
        spec["NextVersion"] += 1
        spec["Versions"].append(dict(made))
        if request.get("SetAsDefault"):
            spec["DefaultVersionId"] = made["VersionId"]

    changed = await change(context.backends.store, "policy", policy.key, edit)
    shown = _described_version(changed, made)
    del shown["Document"]
    return {"PolicyVersion": shown}


@operation("iam")
async def get_policy_version(context: RequestContext, request: Members) -> ReplyMembers:
    policy = await require_policy(context, request["PolicyArn"])
    for version in _versions(policy):
        if version["VersionId"] == request["VersionId"]:
            return {"PolicyVersion": _described_version(policy, version)}
    raise _no_version(request)


@operation("iam")
async def list_policy_versions(context: RequestContext, request: Members) -> ReplyMembers:
    policy = await require_policy(context, request["PolicyArn"])
    shown = [_described_version(policy, version) for version in _versions(policy)]
    shown.sort(key=lambda version: str(version["VersionId"]))
    reply = page(shown, lambda version: str(version["VersionId"]), request, "Versions")
    for version in reply["Versions"]:
        del version["Document"]
    return reply


@operation("iam")
async def set_default_policy_version(context: RequestContext, request: Members) -> ReplyMembers:
    policy = await require_policy(context, request["PolicyArn"])

    def edit(spec: dict[str, Any]) -> None:
        if all(version["VersionId"] != request["VersionId"] for version in spec["Versions"]):
            raise _no_version(request)
        spec["DefaultVersionId"] = request["VersionId"]

    await change(context.backends.store, "policy", policy.key, edit)
    return {}


@operation("iam")
async def delete_policy_version(context: RequestContext, request: Members) -> ReplyMembers:
    policy = await require_policy(context, request["PolicyArn"])

    def edit(spec: dict[str, Any]) -> None:
        if spec["DefaultVersionId"] == request["VersionId"]:
            raise delete_conflict("Cannot delete the default version of a policy.")
        kept = [version for version in spec["Versions"] if version["VersionId"] != request["VersionId"]]
        if len(kept) == len(spec["Versions"]):
            raise _no_version(request)
        spec["Versions"] = kept

    await change(context.backends.store, "policy", policy.key, edit)
    return {}


async def require_policy(context: RequestContext, arn: str) -> Resource:
    """The caller's policy of that ARN. Raises `NotFound`."""
    try:
        parts = split_arn(arn)
    except Invalid:
        raise Invalid(f"ARN {arn} is not valid.", code="InvalidInput", status=400) from None
    policy = await context.backends.store.find(policy_key(context.account, parts.resource.rpartition("/")[2]))
    if policy is None or policy_arn(policy) != arn:
        raise _no_policy(arn)
    return policy


async def require_attachable(context: RequestContext, arn: str) -> None:
    """Raises `NotFound` unless the caller's account has this policy."""
    try:
        await require_policy(context, arn)
    except NotFound:
        message = f"Policy {arn} does not exist or is not attachable."
        raise NotFound(message, code="NoSuchEntity", status=404) from None


async def _attachments(context: RequestContext) -> dict[str, int]:
    """How many roles each policy is attached to, by its ARN."""
    counts: dict[str, int] = {}
    for role in await entities(context.backends.store, ROLE, context.account):
        attached: Any = role.spec.get("AttachedPolicies") or []
        for arn in attached:
            counts[arn] = counts.get(arn, 0) + 1
    return counts


def _described(policy: Resource, attachment_count: int) -> Members:
    return {
        "PolicyName": policy.key.name,
        "PolicyId": unique_id("ANPA", policy.uid),
        "Arn": policy_arn(policy),
        "Path": path_of(policy),
        "DefaultVersionId": policy.spec["DefaultVersionId"],
        "AttachmentCount": attachment_count,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "CreateDate": policy.created_at,
        "UpdateDate": policy.modified_at,
    }


def _version(version_id: str, document: str, context: RequestContext) -> Members:
    return {"VersionId": version_id, "Document": document, "CreateDate": context.backends.clock.now()}


def _versions(policy: Resource) -> list[Members]:
    versions: Any = policy.spec["Versions"]
    return list(versions)


def _described_version(policy: Resource, version: Members) -> Members:
    return {
        **version,
        "Document": encoded(version["Document"]),
        "IsDefaultVersion": version["VersionId"] == policy.spec["DefaultVersionId"],
    }


def _no_policy(arn: str) -> NotFound:
    return NotFound(f"Policy {arn} was not found.", code="NoSuchEntity", status=404)


def _no_version(request: Members) -> NotFound:
    return NotFound(
        f"Policy {request['PolicyArn']} version {request['VersionId']} does not exist or is not attachable.",
        code="NoSuchEntity",
        status=404,
    )
