"""A task gets its role's credentials, as long as it runs, and nobody else does."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from clary.resources.task import Connection, ServingWork, StopCause, TaskSpec
from clary.resources.task_token import TaskIdentity, issue_task_token
from clary.testing.api_world import ACCOUNT, ApiWorld

ROLE = f"arn:aws:iam::{ACCOUNT}:role/Execution"


def started(world: ApiWorld, task_id: str = "task-1", role: str = ROLE) -> str:
    """Run a task; its token."""
    token = issue_task_token(world.backends.secret, TaskIdentity(task_id, ACCOUNT, role))
    work = ServingWork("e", "v", {}, "ml.m5.large", "g", "s", 60.0, 60.0)
    connection = Connection("http://127.0.0.1:8750", "us-east-1", "", token)
    spec = TaskSpec(task_id, "owner", work, connection, 1.0, 1024, 0, 1.0)
    asyncio.run(world.driver.start(spec))
    return token


def ask(world: ApiWorld, token: str | None, task_id: str = "task-1", method: str = "GET") -> tuple[int, Any]:
    headers = {"Authorization": token} if token is not None else {}
    status, replied, body = world.send(method, f"/.clary/credentials/{task_id}", headers)
    assert replied["content-type"] == "application/json"
    assert replied["cache-control"] == "no-store"
    return status, json.loads(body)


def test_a_running_task_acts_as_its_role(tmp_path: Path) -> None:
    world = ApiWorld(tmp_path)
    status, credentials = ask(world, started(world))
    assert (status, credentials["RoleArn"]) == (200, ROLE)
    identity = world.client("sts", credentials).get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/Execution/SageMaker"


def test_a_task_without_a_role_acts_for_its_account(tmp_path: Path) -> None:
    world = ApiWorld(tmp_path)
    _, credentials = ask(world, started(world, role=""))
    assert world.client("sts", credentials).get_caller_identity()["Account"] == ACCOUNT


def test_a_task_that_ended_or_never_was_gets_nothing(tmp_path: Path) -> None:
    world = ApiWorld(tmp_path)
    unknown = issue_task_token(world.backends.secret, TaskIdentity("task-2", ACCOUNT, ROLE))
    assert ask(world, unknown, "task-2")[0] == 403
    token = started(world)
    asyncio.run(world.driver.stop("task-1", StopCause.REQUESTED))
    asyncio.run(world.clock.advance(10_000))
    asyncio.run(world.driver.remove("task-1"))
    status, document = ask(world, token)
    assert (status, document["code"]) == (403, "AccessDenied")


@pytest.mark.parametrize("token", [None, "", "nonsense", "a.b", "AAAA.AAAA"])
def test_a_token_that_was_not_issued_opens_nothing(tmp_path: Path, token: str | None) -> None:
    world = ApiWorld(tmp_path)
    started(world)
    assert ask(world, token)[0] == 403


def test_a_token_opens_its_own_task_only_and_by_get_only(tmp_path: Path) -> None:
    world = ApiWorld(tmp_path)
    token = started(world)
    started(world, "task-2")
    assert ask(world, token, "task-2")[0] == 403
    assert ask(world, token, "task-1/x")[0] == 403
    assert ask(world, token, method="POST")[0] == 405


def test_a_role_that_is_no_role_is_refused_without_a_bug(tmp_path: Path) -> None:
    world = ApiWorld(tmp_path)
    assert ask(world, started(world, role="arn:aws:iam::1:role/short-account"))[0] == 400
