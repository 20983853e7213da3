"""Every access key the server knows: the owner's, users', and those of sessions."""

from __future__ import annotations

import re

from clary.protocol.key_ring import (
    LONG_TERM_PREFIX,
    TEMPORARY_PREFIX,
    AccessKey,
    access_key_account,
    new_access_key_id,
)
from clary.protocol.wire import Caller
from clary.resources.arn import PARTITION
from clary.resources.resource import Resource
from clary.resources.role import RoleName, presumed_role_id
from clary.resources.session import Session, SessionKeys, long_term_secret_key, open_session, read_session
from clary.services.iam.documents import (
    ACCESS_KEY,
    access_key_key,
    entities,
    find_user,
    user_arn,
    user_id,
)
from clary.services.sts.secret_files import RootCredentials
from clary.store.store import Store

ROLE_SESSION_NAME = "clary"
_ACCOUNT = re.compile(r"\d{12}\Z", re.ASCII)


def root_caller(account: str, access_key_id: str) -> Caller:
    """The owner of ``account``."""
    return Caller(account, f"arn:{PARTITION}:iam::{account}:root", account, access_key_id)


def role_caller(account: str, role: str, access_key_id: str) -> Caller:
    """Somebody who acts as the role ``role`` of ``account``, without an end."""
    name = RoleName(account, "/", role)
    identity = f"{presumed_role_id(name)}:{ROLE_SESSION_NAME}"
    return Caller(account, name.assumed_arn(ROLE_SESSION_NAME), identity, access_key_id)


def session_access_key_id(session: Session, keys: SessionKeys) -> str:
    """The access key id of a session's credentials."""
    return new_access_key_id(TEMPORARY_PREFIX, session.account, keys.entropy)


def issue_session(secret: bytes, session: Session) -> tuple[str, SessionKeys]:
    """Fresh credentials for ``session``: the access key id and the rest."""
    keys = open_session(secret, session)
    return session_access_key_id(session, keys), keys


class ServerKeyRing:
    """The `KeyRing` of a server.

    With ``account_from_access_key`` a twelve-digit access key id is the owner of that account, with any
    secret: for tests that need accounts apart.
    """

    def __init__(
        self,
        root: RootCredentials,
        secret: bytes,
        store: Store,
        *,
        execution_role: str | None = None,
        account_from_access_key: bool = False,
    ) -> None:
        """``execution_role`` is the role whose session the owner's credentials are, which is what SDKs want
        that ask for the role they run as; without it they are those of the account's root."""
        self._root = root
        caller = root_caller(root.account, root.access_key_id)
        if execution_role is not None:
            caller = role_caller(root.account, execution_role, root.access_key_id)
        self._root_key = AccessKey(caller, root.secret_access_key)
        self._secret = secret
        self._store = store
        self._account_from_access_key = account_from_access_key

    async def find(self, access_key_id: str, session_token: str | None) -> AccessKey | None:
        """See `clary.protocol.key_ring.KeyRing`."""
        if self._account_from_access_key and _ACCOUNT.match(access_key_id):
            return AccessKey(root_caller(access_key_id, access_key_id), None)
        if session_token:
            return self._find_session(access_key_id, session_token)
        if access_key_id == self._root.access_key_id:
            return self._root_key
        if access_key_id.startswith(LONG_TERM_PREFIX):
            return await self._find_user_key(access_key_id)
        return None

    def _find_session(self, access_key_id: str, session_token: str) -> AccessKey | None:
        found = read_session(self._secret, session_token)
        if found is None:
            return None
        session, keys = found
        if session_access_key_id(session, keys) != access_key_id:
            return None
        caller = Caller(session.account, session.arn, session.user_id, access_key_id)
        return AccessKey(caller, keys.secret_access_key, session.expires_at)

    async def _find_user_key(self, access_key_id: str) -> AccessKey | None:
        account = access_key_account(access_key_id)
        if account is None:
            return None
        key = await self._store.find(access_key_key(account, access_key_id))
        caller = None if key is None else await _user_caller(self._store, key)
        return AccessKey(caller, long_term_secret_key(self._secret, access_key_id)) if caller else None


async def active_users(store: Store) -> dict[str, Caller]:
    """The callers behind the active access keys of all users, by access key id."""
    found = {}
    for key in await entities(store, ACCESS_KEY, ""):
        caller = await _user_caller(store, key)
        if caller is not None:
            found[key.key.name] = caller
    return found


async def _user_caller(store: Store, key: Resource) -> Caller | None:
    """Whom an access key stands for; ``None`` if it is inactive or its user is gone."""
    if key.spec.get("Status") != "Active":
        return None
    user = await find_user(store, key.key.account, str(key.spec["UserName"]))
    return Caller(key.key.account, user_arn(user), user_id(user), key.key.name) if user else None
