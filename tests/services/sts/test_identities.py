"""Who callers are, as STS tells them, and what temporary credentials can do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.protocol.key_ring import access_key_account
from clary.resources.session import Session, open_session, read_session
from clary.testing.api_world import ACCOUNT, ApiWorld

ROLE = f"arn:aws:iam::{ACCOUNT}:role/service-role/Made-Up"
TRUST = '{"Version": "2012-10-17", "Statement": []}'


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ApiWorld]:
    yield ApiWorld(tmp_path)


def refused(call: Any, **members: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**members)
    return str(caught.value.response["Error"]["Code"])


def test_the_owner_is_told_its_account(world: ApiWorld) -> None:
    identity = world.client("sts").get_caller_identity()
    assert (identity["Account"], identity["Arn"]) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root")


def test_a_role_that_nobody_created_can_be_assumed(world: ApiWorld) -> None:
    reply = world.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="me@work")
    credentials = reply["Credentials"]
    assert credentials["Expiration"].timestamp() == int(world.clock.now()) + 3600
    assert credentials["AccessKeyId"].startswith("ASIA")
    identity = world.client("sts", credentials).get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/Made-Up/me@work"
    assert identity["Arn"] == reply["AssumedRoleUser"]["Arn"]
    assert re.fullmatch(r"AROA[A-Z2-7]{17}:me@work", identity["UserId"])
    again = world.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="me@work")["Credentials"]
    assert again["SessionToken"] != credentials["SessionToken"]


def test_a_role_that_was_created_lends_its_id_and_its_longest_session(world: ApiWorld) -> None:
    role = world.client("iam").create_role(
        RoleName="Real", AssumeRolePolicyDocument=TRUST, MaxSessionDuration=7200
    )["Role"]
    sts = world.client("sts")
    reply = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="me", DurationSeconds=7200)
    assert reply["AssumedRoleUser"]["AssumedRoleId"] == f"{role['RoleId']}:me"
    call = {"RoleArn": role["Arn"], "RoleSessionName": "me", "DurationSeconds": 7201}
    assert refused(sts.assume_role, **call) == "ValidationError"


def test_a_session_may_assume_another_role_for_an_hour_at_most(world: ApiWorld) -> None:
    session = world.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
    chained = world.client("sts", session)
    assert chained.assume_role(RoleArn=ROLE, RoleSessionName="again")["Credentials"]
    call = {"RoleArn": ROLE, "RoleSessionName": "me", "DurationSeconds": 3601}
    assert refused(chained.assume_role, **call) == "ValidationError"


@pytest.mark.parametrize(
    ("role", "code"),
    [
        ("arn:aws:iam::999999999999:role/Theirs", "AccessDenied"),
        (f"arn:aws:iam::{ACCOUNT}:user/NotARole", "ValidationError"),
        (f"arn:aws:iam::{ACCOUNT}:role/", "ValidationError"),
        ("arn:aws:iam::123:role/me-at-least-20-long", "ValidationError"),
        ("not-an-arn-at-all-but-long", "ValidationError"),
    ],
)
def test_what_is_no_role_of_the_account_cannot_be_assumed(world: ApiWorld, role: str, code: str) -> None:
    assert refused(world.client("sts").assume_role, RoleArn=role, RoleSessionName="me") == code


def test_session_tokens_stand_for_their_owner_and_cannot_be_renewed(world: ApiWorld) -> None:
    session = world.client("sts").get_session_token()["Credentials"]
    assert session["Expiration"].timestamp() == int(world.clock.now()) + 3600  # the owner's longest
    holder = world.client("sts", session)
    assert holder.get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert refused(holder.get_session_token) == "AccessDenied"


def test_a_session_ends_at_its_time(world: ApiWorld) -> None:
    session = world.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="me", DurationSeconds=900)
    holder = world.client("sts", session["Credentials"])
    asyncio.run(world.clock.advance(890))
    holder.get_caller_identity()
    asyncio.run(world.clock.advance(20))
    assert refused(holder.get_caller_identity) == "ExpiredToken"
    logs = world.client("logs", session["Credentials"])
    assert refused(logs.describe_log_groups) == "ExpiredTokenException"


def test_sessions_survive_a_restart_and_are_worth_nothing_elsewhere(tmp_path: Path) -> None:
    session = ApiWorld(tmp_path / "a").client("sts").assume_role(RoleArn=ROLE, RoleSessionName="me")
    restarted, other = ApiWorld(tmp_path / "a"), ApiWorld(tmp_path / "b")
    identity = restarted.client("sts", session["Credentials"]).get_caller_identity()
    assert identity["Arn"].endswith("assumed-role/Made-Up/me")
    assert refused(other.client("sts", session["Credentials"]).get_caller_identity) == "InvalidClientTokenId"


def test_a_session_with_another_part_exchanged_is_refused(world: ApiWorld) -> None:
    sts = world.client("sts")
    one = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
    two = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
    for part, code in (
        ("AccessKeyId", "InvalidClientTokenId"),
        ("SecretAccessKey", "SignatureDoesNotMatch"),
        ("SessionToken", "InvalidClientTokenId"),
    ):
        mixed = {**one, part: two[part]}
        assert refused(world.client("sts", mixed).get_caller_identity) == code
    root = {"AccessKeyId": world.root.access_key_id, "SecretAccessKey": world.root.secret_access_key}
    mixed = {**root, "SessionToken": one["SessionToken"]}
    assert refused(world.client("sts", mixed).get_caller_identity) == "InvalidClientTokenId"


def test_an_access_key_id_says_its_account(world: ApiWorld) -> None:
    sts = world.client("sts")
    session = sts.assume_role(RoleArn=ROLE, RoleSessionName="me")["Credentials"]
    for access_key_id in (world.root.access_key_id, session["AccessKeyId"]):
        assert sts.get_access_key_info(AccessKeyId=access_key_id)["Account"] == ACCOUNT
    assert refused(sts.get_access_key_info, AccessKeyId="AKIA00000000000000000") == "ValidationError"
    assert access_key_account("AKIA777777777777777777") is None


def test_twelve_digits_are_an_account_where_that_is_switched_on(tmp_path: Path) -> None:
    credentials = {"AccessKeyId": "999988887777", "SecretAccessKey": "whatever", "SessionToken": "anything"}
    world = ApiWorld(tmp_path, account_from_access_key=True)
    identity = world.client("sts", credentials).get_caller_identity()
    assert (identity["Account"], identity["Arn"]) == ("999988887777", "arn:aws:iam::999988887777:root")
    closed = ApiWorld(tmp_path)
    assert refused(closed.client("sts", credentials).get_caller_identity) == "InvalidClientTokenId"


def test_a_token_says_nothing_else_than_what_was_sealed() -> None:
    session = Session(ACCOUNT, "arn:aws:sts::1:assumed-role/R/S", "AROA:S", 5.0)
    keys = open_session(b"k" * 32, session)
    assert read_session(b"k" * 32, keys.session_token) == (session, keys)
    assert read_session(b"x" * 32, keys.session_token) is None
    token = keys.session_token
    for wrong in ("", "=", "AAAA", token[:-4], token[4:], token + "AAAA", token.lower(), token * 50, "ü"):
        assert read_session(b"k" * 32, wrong) is None
    for position in range(0, len(token) - 2, 7):
        flipped = "A" if token[position] != "A" else "B"
        assert read_session(b"k" * 32, token[:position] + flipped + token[position + 1 :]) is None
