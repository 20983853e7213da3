"""The secrets of a data folder: made once, kept to oneself, never replaced."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from clary.protocol.key_ring import access_key_account
from clary.services.sts.secret_files import load_root_credentials, load_server_secret


def test_credentials_are_made_once_for_the_first_account(tmp_path: Path) -> None:
    made = load_root_credentials(tmp_path / "data", "123456789012")
    assert load_root_credentials(tmp_path / "data", "999999999999") == made
    assert access_key_account(made.access_key_id) == "123456789012"
    assert len(made.secret_access_key) == 40
    assert made.secret_access_key not in repr(made)
    assert load_root_credentials(tmp_path / "other", "123456789012") != made


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    load_root_credentials(tmp_path / "data", "123456789012")
    load_server_secret(tmp_path / "data")
    files = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert files == ["credentials.json", "secret.key"]
    for name in files:
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_the_server_secret_is_made_once(tmp_path: Path) -> None:
    secret = load_server_secret(tmp_path)
    assert len(secret) == 32
    assert load_server_secret(tmp_path) == secret


@pytest.mark.parametrize("content", ["", "{", "[]", '{"account": "1"}', '"text"'])
def test_broken_credentials_are_reported_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"credentials\.json"):
        load_root_credentials(tmp_path, "123456789012")
    assert path.read_text() == content


def test_a_broken_server_secret_is_reported_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_bytes(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        load_server_secret(tmp_path)
    assert (tmp_path / "secret.key").read_bytes() == b"short"


def test_credentials_are_plain_json_for_other_commands(tmp_path: Path) -> None:
    made = load_root_credentials(tmp_path, "123456789012")
    document = json.loads((tmp_path / "credentials.json").read_text())
    assert document["access_key_id"] == made.access_key_id
    assert document["secret_access_key"] == made.secret_access_key
