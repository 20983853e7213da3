"""Access keys: what they are called, and who looks them up.

Access key ids carry the account, as AWS's do, so that GetAccessKeyInfo needs no list of them: the base32
text after the four-letter prefix holds one bit, forty bits of account number, and chance.
"""

from __future__ import annotations

import base64
import re
import secrets
from dataclasses import dataclass, field
from typing import Protocol

from clary.protocol.wire import Caller

LONG_TERM_PREFIX = "AKIA"
TEMPORARY_PREFIX = "ASIA"
_ACCESS_KEY_ID = re.compile(r"A(?:KIA|SIA)[A-Z2-7]{16}\Z")


@dataclass(frozen=True)
class AccessKey:
    """A key and whom it stands for.

    ``secret`` ``None`` means that any signature is taken (a test mode). ``expires_at`` is in epoch seconds.
    """

    caller: Caller
    secret: str | None = field(repr=False)
    expires_at: float | None = None


class KeyRing(Protocol):
    """Finds access keys."""

    async def find(self, access_key_id: str, session_token: str | None) -> AccessKey | None:
        """The key, or ``None`` if there is none, or ``session_token`` is not the one that belongs to it.

        Expired temporary keys are returned: the caller tells the client that they expired.
        """


def new_access_key_id(prefix: str, account: str, entropy: bytes | None = None) -> str:
    """An id for a key of ``account`` (twelve digits); from ``entropy`` (5 bytes or more) if it is given."""
    random_bits = int.from_bytes((entropy or secrets.token_bytes(5))[:5], "big") & ((1 << 39) - 1)
    number = (1 << 79) | (int(account) << 39) | random_bits
    return prefix + base64.b32encode(number.to_bytes(10, "big")).decode("ascii")


def access_key_account(access_key_id: str) -> str | None:
    """The account that an id made by `new_access_key_id` (or AWS) names; ``None`` for any other text."""
    if not _ACCESS_KEY_ID.match(access_key_id):
        return None
    number = int.from_bytes(base64.b32decode(access_key_id[4:]), "big")
    account = (number >> 39) & ((1 << 40) - 1)
    return f"{account:012d}" if account < 10**12 else None


def new_secret_access_key() -> str:
    """Forty characters that cannot be guessed."""
    return base64.b64encode(secrets.token_bytes(30)).decode("ascii")
