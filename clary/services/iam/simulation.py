"""What a principal may do. Clary enforces no policies inside an account, and says so here: everything."""

from __future__ import annotations

from clary.protocol.wire import Members, ReplyMembers
from clary.resources.role import read_role_arn
from clary.services.iam.roles import require_role
from clary.services.operation import RequestContext, operation


@operation("iam")
async def simulate_principal_policy(context: RequestContext, request: Members) -> ReplyMembers:
    """SDKs ask before they use a role. Raises `NotFound` for a role that does not exist."""
    if ":role/" in request["PolicySourceArn"]:
        await require_role(context, read_role_arn(request["PolicySourceArn"]).name)
    resources = request.get("ResourceArns") or ["*"]
    return {
        "EvaluationResults": [
            {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": "allowed"}
            for action in request["ActionNames"]
            for resource in resources
        ],
        "IsTruncated": False,
    }
