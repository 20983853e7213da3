"""The secrets in the data folder: the credentials of the account's owner, and the server's own secret.

Both are made at the first start, readable by the owner of the folder only, and never change: sessions, task
tokens and users' secret keys derive from the server's secret and so survive a restart without being stored.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from clary.protocol.key_ring import LONG_TERM_PREFIX, new_access_key_id, new_secret_access_key

SECRET_BYTES = 32


@dataclass(frozen=True)
class RootCredentials:
    """The credentials of the account's owner. ``account`` is the one they were made for."""

    account: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


def load_root_credentials(data: Path, account: str) -> RootCredentials:
    """Read ``credentials.json``, or make it for ``account``. Raises ``ValueError`` if it is broken."""
    path = data / "credentials.json"
    if not path.exists():
        made = {
            "account": account,
            "access_key_id": new_access_key_id(LONG_TERM_PREFIX, account),
            "secret_access_key": new_secret_access_key(),
        }
        _write_new(path, (json.dumps(made, indent=2) + "\n").encode())
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return RootCredentials(
            str(read["account"]), str(read["access_key_id"]), str(read["secret_access_key"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no credentials ({error}): restore it, or move it away.") from error


def load_server_secret(data: Path) -> bytes:
    """Read ``secret.key``, or make it. Raises ``ValueError`` if it is broken."""
    path = data / "secret.key"
    if not path.exists():
        _write_new(path, secrets.token_bytes(SECRET_BYTES))
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"{path} must have {SECRET_BYTES} bytes, not {len(secret)}: restore it.")
    return secret


def _write_new(path: Path, content: bytes) -> None:
    """Make ``path`` with mode 0600: whole, on the disk, or not at all; what is there already stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # another process was first; its secret counts
    finally:
        temporary.unlink()
