"""A folder that a job writes to is in S3 while it writes; links and pipes lead nowhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from clary.agent import followed_folder
from clary.agent.aws import Clients, Patience
from clary.agent.debugger_outputs import debugger_outputs
from clary.agent.failure import TaskFailed
from clary.agent.followed_folder import DEEPEST, FollowedFolder
from clary.agent.s3_transfer import S3Location, S3Transfer
from clary.resources.task import TrainingWork
from clary.testing.agent_world import AgentWorld, training_spec

PATIENCE_SECONDS = 30.0


@dataclass
class Place:
    """A folder, the objects that it becomes, and what the log was told."""

    world: AgentWorld
    ml: Path
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.objects["bucket"] = {}
        self.folder = self.ml / "output/tensors"
        self.followed = self.follow("bucket")

    def transfer(self) -> S3Transfer:
        clients = Clients(self.world.connection.endpoint_url, self.world.connection.region)
        clients.credentials.bind(self.world.connection)
        return S3Transfer(clients, Patience(clients.credentials, seconds=2.0), lambda: False)

    def follow(self, bucket: str) -> FollowedFolder:
        return FollowedFolder(
            self.ml,
            PurePosixPath("output/tensors"),
            S3Location(bucket, "p/"),
            noun="tensor file",
            outgoing=self.transfer(),
            say=self.said.append,
        )

    @property
    def stored(self) -> dict[str, bytes]:
        return self.world.objects["bucket"]

    def write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "ml").mkdir()
    with AgentWorld() as world:
        yield Place(world, tmp_path / "ml")


def eventually(fact: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not fact():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_files_are_in_s3_while_the_job_runs_and_the_rest_when_it_has_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_folder, "LOOK_SECONDS", 0.05)
    place.followed.start()
    assert place.folder.is_dir()
    place.write("one", "1")
    place.write("deep/er/two", "2")
    eventually(lambda: place.stored == {"p/one": b"1", "p/deep/er/two": b"2"})
    place.write("one", "1, written anew")
    eventually(lambda: place.stored["p/one"] == b"1, written anew")
    (place.folder / "deep/er/two").unlink()
    place.write("last", "3")
    place.followed.finish()
    assert place.stored == {"p/one": b"1, written anew", "p/deep/er/two": b"2", "p/last": b"3"}
    assert place.said == []


def test_what_was_there_already_is_not_sent_again(place: Place) -> None:
    place.write("old", "1")
    place.followed.count_as_sent()
    place.followed.start()
    place.write("new", "2")
    place.followed.finish()
    assert place.stored == {"p/new": b"2"}


def test_links_and_pipes_are_left_alone_wherever_they_are(place: Place, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    (secrets / "tensors").mkdir(parents=True)
    (secrets / "key").write_text("secret")
    (secrets / "tensors/key").write_text("secret")
    place.followed.start()
    place.write("plain", "1")
    (place.folder / "file").symlink_to(secrets / "key")
    (place.folder / "folder").symlink_to(secrets)
    os.mkfifo(place.folder / "pipe")
    place.followed.finish()
    assert place.stored == {"p/plain": b"1"}


@pytest.mark.parametrize("replaced", ["output", "output/tensors"])
def test_a_folder_that_was_replaced_by_a_link_is_not_followed(
    place: Place, tmp_path: Path, replaced: str
) -> None:
    secrets = tmp_path / "secrets"
    (secrets / "tensors").mkdir(parents=True)
    (secrets / "key").write_text("secret")
    (secrets / "tensors/key").write_text("secret")
    place.followed.start()
    (place.ml / replaced).rename(tmp_path / "away")
    (place.ml / replaced).symlink_to(secrets)
    place.followed.finish()
    assert place.stored == {}


def test_a_folder_that_is_gone_and_one_without_end_are_no_trouble(place: Place) -> None:
    place.followed.start()
    place.folder.rmdir()
    place.followed.finish()
    again = place.follow("bucket")
    again.start()
    deep = place.folder
    for _ in range(DEEPEST + 20):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "too-deep").write_text("1")
    place.write("plain", "1")
    again.finish()
    assert place.stored == {"p/plain": b"1"}
    assert place.said == [
        f"The tensor file folder could not be uploaded: Folders more than {DEEPEST} deep stay behind."
    ]


def test_a_place_that_cannot_be_written_to_is_told_in_the_log_once(place: Place) -> None:
    followed = place.follow("no-such-bucket")
    followed.start()
    place.write("one", "1")
    followed.finish()
    followed.finish()
    assert len(place.said) == 1
    assert place.said[0].startswith("The tensor file one could not be uploaded: ")
    assert "no-such-bucket" in place.said[0]


def work_with(world: AgentWorld, **request: Any) -> TrainingWork:
    work = training_spec(world, "job", **request).work
    assert isinstance(work, TrainingWork)
    return work


def test_debuggers_and_tensorboards_output_go_where_clients_look_for_them(place: Place) -> None:
    work = work_with(
        place.world,
        DebugHookConfig={"S3OutputPath": "s3://bucket/d/"},
        TensorBoardOutputConfig={"S3OutputPath": "s3://bucket", "LocalPath": "/opt/ml/output/boards/"},
    )
    place.world.objects["bucket"].clear()
    outputs = debugger_outputs(place.ml, work, outgoing=place.transfer(), say=place.said.append)
    for output in outputs:
        output.start()
    place.write("step-1", "1")
    (place.ml / "output/boards/events").write_text("2")
    for output in outputs:
        output.finish()
    assert place.stored == {
        "d/job/debug-output/step-1": b"1",
        "job/tensorboard-output/events": b"2",
    }


def test_a_job_that_asks_for_neither_has_neither(place: Place) -> None:
    work = work_with(place.world)
    assert not debugger_outputs(place.ml, work, outgoing=place.transfer(), say=place.said.append)


@pytest.mark.parametrize("path", ["/etc", "/opt/ml", "/opt/ml/../x", "tensors"])
def test_a_folder_outside_of_opt_ml_fails_the_job(place: Place, path: str) -> None:
    work = work_with(place.world, DebugHookConfig={"S3OutputPath": "s3://bucket/d", "LocalPath": path})
    with pytest.raises(TaskFailed) as failed:
        debugger_outputs(place.ml, work, outgoing=place.transfer(), say=place.said.append)
    assert "below /opt/ml" in failed.value.reason
