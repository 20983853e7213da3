"""What a task shows to get the temporary credentials of its execution role.

The token says who asks and is sealed with the server's secret, so nothing about it needs to be stored.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass

from clary.faults import AccessDenied


@dataclass(frozen=True)
class TaskIdentity:
    """Which task, and as whom it acts. ``role_arn`` may be "" (a model without a role)."""

    task_id: str
    account: str
    role_arn: str


def issue_task_token(secret: bytes, identity: TaskIdentity) -> str:
    """A token for ``identity``; the same each time, so that a task is ordered the same twice."""
    body = json.dumps([identity.task_id, identity.account, identity.role_arn]).encode()
    return _text(body) + "." + _text(_seal(secret, body))


def read_task_token(secret: bytes, token: str) -> TaskIdentity:
    """Whom ``token`` was issued for. Raises `AccessDenied` if this server did not issue it."""
    try:
        body, seal = (base64.urlsafe_b64decode(part) for part in token.split("."))
        if hmac.compare_digest(seal, _seal(secret, body)):
            return TaskIdentity(*json.loads(body))
    except (ValueError, TypeError):
        pass
    raise AccessDenied("This task token was not issued by this server.")


def _seal(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, b"clary task token\0" + body, hashlib.sha256)


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode()
