"""Credentials of a task's execution role, by the container-credentials protocol that every AWS SDK speaks.

``GET /.clary/credentials/<task id>`` with the task's token in the Authorization header. A token counts as
long as the driver runs its task, so what a finished task leaves lying about opens nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable

from clary.clock import Clock
from clary.compute.driver import Driver
from clary.faults import AccessDenied, Fault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse
from clary.resources.role import RoleName, presumed_role_id, read_role_arn
from clary.resources.session import Session
from clary.resources.task_token import TaskIdentity, read_task_token
from clary.services.sts.key_ring import issue_session

PATH = "/.clary/credentials/"
SESSION_SECONDS = 3600  # clients fetch new ones before these run out
SESSION_NAME = "SageMaker"  # as in AWS
NO_ROLE = "clary-task"  # the role's name in the ARN of a task that was given none


def task_credentials(
    secret: bytes, driver: Driver, clock: Clock
) -> Callable[[HttpRequest], Awaitable[HttpResponse]]:
    """The handler to be mounted at `PATH`."""

    async def answer(request: HttpRequest) -> HttpResponse:
        try:
            if request.method != "GET":
                raise AccessDenied("Credentials are fetched with GET.", status=405)
            identity = await calling_task(request, PATH, secret, driver)
            return _json(200, _document(secret, identity, clock.now()))
        except Fault as fault:
            document = {"code": fault.code or "AccessDenied", "message": fault.message}
            return _json(fault.status or 403, document)

    return answer


async def calling_task(request: HttpRequest, path: str, secret: bytes, driver: Driver) -> TaskIdentity:
    """The running task that a request to ``path`` followed by its id comes from. Raises `AccessDenied`."""
    identity = read_task_token(secret, request.headers.get("authorization") or "")
    if request.raw_path.removeprefix(path) != identity.task_id:
        raise AccessDenied("This token belongs to another task.")
    status = await driver.inspect(identity.task_id)
    if status is None or status.phase.final:
        raise AccessDenied("This task does not run any more: its credentials are gone.")
    return identity


def session_of(identity: TaskIdentity, now: float) -> Session:
    """The session a task acts in."""
    if identity.role_arn:
        role = read_role_arn(identity.role_arn)
        role = RoleName(identity.account, role.path, role.name)
    else:
        role = RoleName(identity.account, "/", NO_ROLE)
    return Session(
        account=identity.account,
        arn=role.assumed_arn(SESSION_NAME),
        user_id=f"{presumed_role_id(role)}:{SESSION_NAME}",
        expires_at=float(int(now) + SESSION_SECONDS),
    )


def _document(secret: bytes, identity: TaskIdentity, now: float) -> dict[str, str]:
    session = session_of(identity, now)
    access_key_id, keys = issue_session(secret, session)
    return {
        "RoleArn": identity.role_arn,
        "AccessKeyId": access_key_id,
        "SecretAccessKey": keys.secret_access_key,
        "Token": keys.session_token,
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(session.expires_at)),
    }


def _json(status: int, document: dict[str, str]) -> HttpResponse:
    headers = Headers([("content-type", "application/json"), ("cache-control", "no-store")])
    return HttpResponse(status, headers, json.dumps(document).encode())
