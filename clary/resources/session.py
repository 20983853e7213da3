"""Temporary credentials that nobody stores: the session token says whose they are, sealed by the server.

The access key id and the secret key derive from the token, so any server with the same secret knows them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field

NONCE_BYTES = 9
MAX_TOKEN_CHARACTERS = 4096


@dataclass(frozen=True)
class Session:
    """Whom temporary credentials stand for, until ``expires_at`` (epoch seconds)."""

    account: str
    arn: str
    user_id: str
    expires_at: float


@dataclass(frozen=True)
class SessionKeys:
    """What a client is given. ``entropy`` is what its access key id is made of."""

    session_token: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    entropy: bytes = field(repr=False)


def open_session(secret: bytes, session: Session) -> SessionKeys:
    """Fresh credentials for ``session``: different ones at each call."""
    body = json.dumps(
        [
            session.account,
            session.arn,
            session.user_id,
            session.expires_at,
            base64.b64encode(secrets.token_bytes(NONCE_BYTES)).decode(),
        ],
        separators=(",", ":"),
    ).encode()
    token = base64.b64encode(_derive(secret, b"session seal", body) + body).decode()
    return _keys(secret, token)


def read_session(secret: bytes, token: str) -> tuple[Session, SessionKeys] | None:
    """The session of a token, expired or not; ``None`` if this server did not issue it."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        return None
    try:
        sealed = base64.b64decode(token, validate=True)
        seal, body = sealed[:32], sealed[32:]
        if not hmac.compare_digest(seal, _derive(secret, b"session seal", body)):
            return None
        account, arn, user_id, expires_at, _ = json.loads(body)
    except (ValueError, TypeError):
        return None
    # A token may be spelled in more than one way in base64; its keys belong to the one that was issued.
    if base64.b64encode(sealed).decode() != token:
        return None
    return Session(account, arn, user_id, float(expires_at)), _keys(secret, token)


def long_term_secret_key(secret: bytes, access_key_id: str) -> str:
    """The secret key of a user's access key, so that it need not be stored."""
    return _text(_derive(secret, b"user secret key", access_key_id.encode()))


def _keys(secret: bytes, token: str) -> SessionKeys:
    text = token.encode()
    return SessionKeys(
        session_token=token,
        secret_access_key=_text(_derive(secret, b"session secret key", text)),
        entropy=_derive(secret, b"session key id", text),
    )


def _derive(secret: bytes, purpose: bytes, text: bytes) -> bytes:
    return hmac.digest(secret, b"clary " + purpose + b"\0" + text, hashlib.sha256)


def _text(digest: bytes) -> str:
    return base64.b64encode(digest[:30]).decode("ascii")
