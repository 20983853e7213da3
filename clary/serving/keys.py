"""Whose signatures the gateway takes: the keys it was told, and the sessions that its secret opens.

They come over the control socket and are kept in memory alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clary.protocol.key_ring import TEMPORARY_PREFIX, AccessKey, new_access_key_id
from clary.protocol.wire import Caller
from clary.resources.arn import PARTITION
from clary.resources.resource import JsonValue
from clary.resources.session import long_term_secret_key, read_session

MAX_SESSIONS_KEPT = 1024
_ACCOUNT = re.compile(r"\d{12}\Z", re.ASCII)


@dataclass(frozen=True)
class GatewayKeys:
    """What signatures are checked against.

    ``secret`` is the server's: session tokens and the secret keys of users derive from it. ``users`` are the
    callers behind the active access keys of users, by access key id.
    """

    account: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    secret: bytes = field(repr=False)
    region: str = "us-east-1"
    verify: bool = True
    account_from_access_key: bool = False
    users: Mapping[str, Caller] = field(default_factory=dict)


def keys_to_json(keys: GatewayKeys) -> dict[str, JsonValue]:
    """A JSON document of ``keys``; it is as secret as they are."""
    return {
        "account": keys.account,
        "access_key_id": keys.access_key_id,
        "secret_access_key": keys.secret_access_key,
        "secret": keys.secret.hex(),
        "region": keys.region,
        "verify": keys.verify,
        "account_from_access_key": keys.account_from_access_key,
        "users": {name: [c.account, c.arn, c.user_id] for name, c in keys.users.items()},
    }


def keys_from_json(document: Mapping[str, Any]) -> GatewayKeys:
    """Inverse of `keys_to_json`. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
    return GatewayKeys(
        **{
            **document,
            "secret": bytes.fromhex(document["secret"]),
            "users": {
                name: Caller(account, arn, user_id, name)
                for name, (account, arn, user_id) in document["users"].items()
            },
        }
    )


class GatewayKeyRing:
    """The `clary.protocol.key_ring.KeyRing` of a gateway; it never waits."""

    def __init__(self, keys: GatewayKeys) -> None:
        self._keys = keys
        self._root = AccessKey(self._owner(keys.account, keys.access_key_id), keys.secret_access_key)
        self._sessions: dict[tuple[str, str], AccessKey] = {}

    async def find(self, access_key_id: str, session_token: str | None) -> AccessKey | None:
        """See `clary.protocol.key_ring.KeyRing`."""
        keys = self._keys
        if keys.account_from_access_key and _ACCOUNT.match(access_key_id):
            return AccessKey(self._owner(access_key_id, access_key_id), None)
        if session_token:
            return self._session(access_key_id, session_token)
        if access_key_id == keys.access_key_id:
            return self._root
        caller = keys.users.get(access_key_id)
        return AccessKey(caller, long_term_secret_key(keys.secret, access_key_id)) if caller else None

    def _session(self, access_key_id: str, token: str) -> AccessKey | None:
        known = self._sessions.get((access_key_id, token))
        if known is not None:
            return known
        found = read_session(self._keys.secret, token)
        if found is None:
            return None
        session, keys = found
        if new_access_key_id(TEMPORARY_PREFIX, session.account, keys.entropy) != access_key_id:
            return None
        caller = Caller(session.account, session.arn, session.user_id, access_key_id)
        key = AccessKey(caller, keys.secret_access_key, session.expires_at)
        if len(self._sessions) >= MAX_SESSIONS_KEPT:
            self._sessions.clear()
        self._sessions[access_key_id, token] = key
        return key

    @staticmethod
    def _owner(account: str, access_key_id: str) -> Caller:
        return Caller(account, f"arn:{PARTITION}:iam::{account}:root", account, access_key_id)
