"""Channels: keys become files, and keys that cannot be files are refused by name."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clary.agent import s3_transfer
from clary.agent.aws import Clients, Patience
from clary.agent.channels.objects import relative_name
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.inputs import Inputs, bring_channels
from clary.agent.s3_transfer import S3Location, S3Transfer
from clary.resources.task import TrainingWork
from clary.testing.agent_surroundings import agent_surroundings
from clary.testing.agent_world import AgentWorld, channel, training_spec


def transfer_for(world: AgentWorld, abandoned: bool = False) -> S3Transfer:
    clients = Clients(world.connection.endpoint_url, world.connection.region)
    clients.credentials.bind(world.connection)
    return S3Transfer(clients, Patience(clients.credentials, seconds=2.0), lambda: abandoned)


def bring(
    world: AgentWorld,
    folder: Path,
    *channels: dict[str, Any],
    abandoned: bool = False,
    shielded: bool = False,
    file_systems: dict[str, str] | None = None,
    **changes: Any,
) -> Inputs:
    """Bring the channels of a task whose ``ml`` folder is ``folder/tasks/job/ml``."""
    spec = training_spec(world, "job", InputDataConfig=list(channels), **changes.pop("request", {}))
    work = spec.work
    assert isinstance(work, TrainingWork)
    work = replace(work, **changes)
    with agent_surroundings(world, folder, spec, file_systems=file_systems) as around:
        (around.folder.ml / "input/data").mkdir(parents=True, exist_ok=True)
        inputs = bring_channels(around, work, transfer_for(world, abandoned), shielded=shielded)
        world.metrics.append({"message": around.report.status.transitions[-1].message})
    return inputs


def message(world: AgentWorld) -> str:
    """What the status says when all channels were brought."""
    return str(world.metrics[-1]["message"])


def data(folder: Path) -> Path:
    return folder / "tasks/job/ml/input/data"


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(
    ("prefix", "key", "name"),
    [
        ("data/train", "data/train/a.csv", "a.csv"),
        ("data/train/", "data/train/a/b.csv", "a/b.csv"),
        ("data/tr", "data/train.csv", "train.csv"),
        ("data/train.csv", "data/train.csv", "train.csv"),
        ("", "a/b.csv", "a/b.csv"),
        ("tr", "train/a.csv", "train/a.csv"),
    ],
)
def test_a_file_is_named_by_what_follows_the_prefix(prefix: str, key: str, name: str) -> None:
    assert relative_name(prefix, key) == name


def test_channels_arrive_whole_whatever_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_transfer, "PART_BYTES", 100_000)
    large = os.urandom(1_234_567)
    with AgentWorld() as world:
        world.objects["b"] = {
            "train/": b"",
            "train/large": large,
            "train/empty": b"",
            "train/ümläut and space+plus": b"x",
            "train/sub/one": b"1",
            "test.csv": b"t",
        }
        bring(world, tmp_path, channel("train", "s3://b/train/"), channel("test", "s3://b/test.csv"))
        assert files(data(tmp_path) / "train") == {
            "large": large,
            "empty": b"",
            "ümläut and space+plus": b"x",
            "sub/one": b"1",
        }
    assert files(data(tmp_path) / "test") == {"test.csv": b"t"}


def test_a_manifest_names_the_files(tmp_path: Path) -> None:
    with AgentWorld() as world:
        manifest = json.dumps([{"prefix": "s3://b/data/"}, "one", "deep/two"])
        world.objects["b"] = {
            "m": manifest.encode(),
            "data/one": b"1",
            "data/deep/two": b"2",
            "data/three": b"3",
            "bad": b"{}",
        }
        bring(world, tmp_path, channel("train", "s3://b/m", S3DataType="ManifestFile"))
        assert files(data(tmp_path) / "train") == {"one": b"1", "deep/two": b"2"}
        with pytest.raises(TaskFailed, match="s3://b/bad is not a JSON list"):
            bring(world, tmp_path, channel("train", "s3://b/bad", S3DataType="ManifestFile"))


@pytest.mark.parametrize(
    "key",
    ["d/../x", "d/a//b", "d/./x", "d//x", "d/" + "n" * 256, "d/a/../../../../x", "d/x\0y"],
)
def test_keys_that_cannot_be_files_are_refused_by_name(tmp_path: Path, key: str) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {key: b"x"} if "\0" not in key else {"d/..": b"x"}
        with pytest.raises(TaskFailed) as failed:
            bring(world, tmp_path, channel("train", "s3://b/d/"))
    assert failed.value.reason.startswith("ClientError: Data download failed:")
    assert "s3://b/d" in failed.value.reason
    assert files(data(tmp_path)) == {}


def test_a_key_beside_a_folder_of_its_name_is_refused_by_name(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d/a": b"x", "d/a/b": b"y"}
        with pytest.raises(TaskFailed, match="s3://b/d/a would be a file"):
            bring(world, tmp_path, channel("train", "s3://b/d/"))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (channel("c", "s3://missing/x"), "NoSuchBucket"),
        (channel("c", "s3://b/none"), "matched no files on s3"),
        (channel("c", "s3://b/none", S3DataType="ManifestFile"), "s3://b/none"),
        (channel("c", "http://b/x"), "is not an S3 URI"),
        (channel("..", "s3://b/x"), "cannot be the name of a channel"),
        (channel("c", "s3://b/x", S3DataType="AugmentedManifestFile"), "AugmentedManifestFile"),
        ({"ChannelName": "c", "DataSource": {}}, "neither an S3DataSource nor"),
    ],
)
def test_what_cannot_be_brought_is_told(tmp_path: Path, wanted: dict[str, Any], words: str) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"x": b"x"}
        with pytest.raises(TaskFailed) as failed:
            bring(world, tmp_path, wanted)
    assert words in failed.value.reason
    assert failed.value.reason.startswith("ClientError: ")


def test_a_download_gives_up_when_the_job_is_stopped(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"x": b"x"}
        with pytest.raises(TaskStopped):
            bring(world, tmp_path, channel("c", "s3://b/x"), abandoned=True)


def test_a_large_upload_goes_in_parts_and_appears_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_transfer, "PART_BYTES", 100_000)
    content = os.urandom(350_001)
    with AgentWorld() as world:
        world.objects["b"] = {}
        upload = transfer_for(world).upload(S3Location("b", "key"))
        for start in range(0, len(content), 7_001):
            upload.write(content[start : start + 7_001])
        assert world.objects["b"] == {}
        upload.finish()
        assert world.objects["b"] == {"key": content}
        other = transfer_for(world).upload(S3Location("b", "other"))
        other.write(content)
        other.abandon()
        assert list(world.objects["b"]) == ["key"]
        assert world.uploads == {}


def test_a_server_that_stays_away_is_given_up_in_the_end(tmp_path: Path) -> None:
    with AgentWorld() as world:
        transfer = transfer_for(world)
        world.vanish()
        with pytest.raises(TaskFailed, match="could not be reached"):
            transfer.size(S3Location("b", "x"))
