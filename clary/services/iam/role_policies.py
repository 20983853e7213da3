"""The policies of a role: those written into it, and those attached to it."""

from __future__ import annotations

import re
from typing import Any

from clary.faults import Invalid, NotFound
from clary.protocol.wire import Members, ReplyMembers
from clary.services.iam.documents import (
    change,
    check_policy_document,
    encoded,
    limit_exceeded,
    page,
    role_key,
)
from clary.services.iam.policies import require_attachable
from clary.services.iam.roles import require_role
from clary.services.operation import RequestContext, operation

MAX_ATTACHED_POLICIES = 20
MAX_INLINE_POLICIES = 100

_POLICY_ARN = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}|aws):policy(/(?:.+/)?)([\w+=,.@-]{1,128})\Z")


@operation("iam")
async def put_role_policy(context: RequestContext, request: Members) -> ReplyMembers:
    check_policy_document(request["PolicyDocument"])

    def edit(spec: dict[str, Any]) -> None:
        policies = spec.setdefault("InlinePolicies", {})
        policies[request["PolicyName"]] = request["PolicyDocument"]
        if len(policies) > MAX_INLINE_POLICIES:
            raise limit_exceeded(f"A role may have {MAX_INLINE_POLICIES} inline policies.")

    await change(context.backends.store, "role", role_key(context.account, request["RoleName"]), edit)
    return {}


@operation("iam")
async def get_role_policy(context: RequestContext, request: Members) -> ReplyMembers:
    role = await require_role(context, request["RoleName"])
    policies: Any = role.spec.get("InlinePolicies") or {}
    if request["PolicyName"] not in policies:
        raise _no_policy(request["PolicyName"])
    return {
        "RoleName": role.key.name,
        "PolicyName": request["PolicyName"],
        "PolicyDocument": encoded(policies[request["PolicyName"]]),
    }


@operation("iam")
async def list_role_policies(context: RequestContext, request: Members) -> ReplyMembers:
    role = await require_role(context, request["RoleName"])
    policies: Any = role.spec.get("InlinePolicies") or {}
    return page(sorted(policies), str, request, "PolicyNames")


@operation("iam")
async def delete_role_policy(context: RequestContext, request: Members) -> ReplyMembers:
    def edit(spec: dict[str, Any]) -> None:
        if (spec.get("InlinePolicies") or {}).pop(request["PolicyName"], None) is None:
            raise _no_policy(request["PolicyName"])

    await change(context.backends.store, "role", role_key(context.account, request["RoleName"]), edit)
    return {}


@operation("iam")
async def attach_role_policy(context: RequestContext, request: Members) -> ReplyMembers:
    arn = request["PolicyArn"]
    found = _POLICY_ARN.match(arn)
    if found is None:
        raise Invalid(f"ARN {arn} is not valid.", code="InvalidInput", status=400)
    if found[1] != "aws":
        await require_attachable(context, arn)

    def edit(spec: dict[str, Any]) -> None:
        attached = spec.setdefault("AttachedPolicies", [])
        if arn not in attached:
            attached.append(arn)
        if len(attached) > MAX_ATTACHED_POLICIES:
            raise limit_exceeded(f"Cannot exceed quota for PoliciesPerRole: {MAX_ATTACHED_POLICIES}")

    await change(context.backends.store, "role", role_key(context.account, request["RoleName"]), edit)
    return {}


@operation("iam")
async def detach_role_policy(context: RequestContext, request: Members) -> ReplyMembers:
    def edit(spec: dict[str, Any]) -> None:
        attached = spec.get("AttachedPolicies") or []
        if request["PolicyArn"] not in attached:
            raise NotFound(f"Policy {request['PolicyArn']} was not found.", code="NoSuchEntity", status=404)
        attached.remove(request["PolicyArn"])

    await change(context.backends.store, "role", role_key(context.account, request["RoleName"]), edit)
    return {}


@operation("iam")
async def list_attached_role_policies(context: RequestContext, request: Members) -> ReplyMembers:
    role = await require_role(context, request["RoleName"])
    prefix = request.get("PathPrefix") or "/"
    attached = []
    for arn in role.spec.get("AttachedPolicies") or []:  # type: ignore[union-attr]
        found = _POLICY_ARN.match(str(arn))
        if found and found[2].startswith(prefix):
            attached.append({"PolicyName": found[3], "PolicyArn": str(arn)})
    attached.sort(key=lambda policy: policy["PolicyArn"])
    return page(attached, lambda policy: policy["PolicyArn"], request, "AttachedPolicies")


def _no_policy(name: str) -> NotFound:
    return NotFound(f"The role policy with name {name} cannot be found.", code="NoSuchEntity", status=404)
