"""GetCallerIdentity, AssumeRole, GetSessionToken, GetAccessKeyInfo.

AssumeRole takes any role of the caller's own account whose ARN is well formed, whether it was created with
IAM or not: code written for SageMaker names roles that were made by hand in somebody's AWS account. A role
that was created lends its unique id and its longest session.
"""

from __future__ import annotations

from clary.faults import AccessDenied, Invalid
from clary.protocol.key_ring import TEMPORARY_PREFIX, access_key_account
from clary.protocol.wire import Members, ReplyMembers
from clary.resources.role import presumed_role_id, read_role_arn
from clary.resources.session import Session
from clary.services.iam.documents import DEFAULT_MAX_SESSION_SECONDS, find_role, role_id
from clary.services.operation import RequestContext, operation
from clary.services.sts.key_ring import issue_session

DEFAULT_ROLE_SESSION_SECONDS = 3600
CHAINED_SESSION_SECONDS = 3600  # the longest session of a role that another session assumed
DEFAULT_SESSION_TOKEN_SECONDS = 12 * 3600
ROOT_SESSION_TOKEN_SECONDS = 3600  # the longest session of the account's owner
NOMINAL_POLICY_PERCENT = 6


@operation("sts")
async def get_caller_identity(context: RequestContext, request: Members) -> ReplyMembers:
    """Who the caller is."""
    caller = context.caller
    return {"UserId": caller.user_id, "Account": caller.account, "Arn": caller.arn}


@operation("sts")
async def assume_role(context: RequestContext, request: Members) -> ReplyMembers:
    """Temporary credentials of a role; see the module."""
    role = read_role_arn(request["RoleArn"])
    caller = context.caller
    if role.account != caller.account:
        raise AccessDenied(
            f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: "
            f"{request['RoleArn']}",
            code="AccessDenied",
            status=403,
        )
    seconds = int(request.get("DurationSeconds") or DEFAULT_ROLE_SESSION_SECONDS)
    if caller.access_key_id.startswith(TEMPORARY_PREFIX) and seconds > CHAINED_SESSION_SECONDS:
        raise _invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by "
            "role chaining"
        )
    created = await find_role(context.backends.store, role.account, role.name)
    longest = DEFAULT_MAX_SESSION_SECONDS
    if created is not None:
        longest = int(str(created.spec.get("MaxSessionDuration") or longest))
    else:
        longest = max(longest, seconds)  # nobody said how long a made-up role's sessions may be
    if seconds > longest:
        raise _invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
    identity = role_id(created) if created is not None else presumed_role_id(role)
    session = Session(
        account=role.account,
        arn=role.assumed_arn(request["RoleSessionName"]),
        user_id=f"{identity}:{request['RoleSessionName']}",
        expires_at=float(int(context.backends.clock.now()) + seconds),
    )
    reply: Members = {
        "Credentials": _credentials(context, session),
        "AssumedRoleUser": {"AssumedRoleId": session.user_id, "Arn": session.arn},
    }
    if request.get("SourceIdentity"):
        reply["SourceIdentity"] = request["SourceIdentity"]
    if request.get("Policy") or request.get("PolicyArns"):
        reply["PackedPolicySize"] = NOMINAL_POLICY_PERCENT
    return reply


@operation("sts")
async def get_session_token(context: RequestContext, request: Members) -> ReplyMembers:
    """Temporary credentials of the caller itself."""
    caller = context.caller
    if caller.access_key_id.startswith(TEMPORARY_PREFIX):
        raise AccessDenied(
            "Cannot call GetSessionToken with session credentials", code="AccessDenied", status=403
        )
    seconds = int(request.get("DurationSeconds") or DEFAULT_SESSION_TOKEN_SECONDS)
    if caller.arn.endswith(":root"):
        seconds = min(seconds, ROOT_SESSION_TOKEN_SECONDS)
    expires_at = float(int(context.backends.clock.now()) + seconds)
    session = Session(caller.account, caller.arn, caller.user_id, expires_at)
    return {"Credentials": _credentials(context, session)}


@operation("sts")
async def get_access_key_info(context: RequestContext, request: Members) -> ReplyMembers:
    """The account that an access key id belongs to: the id itself says it."""
    account = access_key_account(request["AccessKeyId"])
    if account is None:
        raise _invalid(f"Invalid Access Key ID: {request['AccessKeyId']}")
    return {"Account": account}


def _credentials(context: RequestContext, session: Session) -> Members:
    access_key_id, keys = issue_session(context.backends.secret, session)
    return {
        "AccessKeyId": access_key_id,
        "SecretAccessKey": keys.secret_access_key,
        "SessionToken": keys.session_token,
        "Expiration": session.expires_at,
    }


def _invalid(message: str) -> Invalid:
    return Invalid(message, code="ValidationError", status=400)
