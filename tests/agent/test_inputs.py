"""Channels: keys become files, and keys that cannot be files are refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clary.agent import inputs as inputs_module
from clary.agent import s3_transfer
from clary.agent.aws import Clients, Patience
from clary.agent.channels.objects import relative_name
from clary.agent.failure import TaskFailed, TaskStopped
from clary.agent.inputs import Inputs, bring_channels
from clary.agent.report import Report
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


def test_a_read_that_broke_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_transfer, "PART_BYTES", 1_000_000)
    monkeypatch.setattr(s3_transfer, "_READ_BYTES", 10_000)
    content = os.urandom(2_500_000)
    with AgentWorld() as world:
        world.objects["b"] = {"d/large": content}
        world.broken_reads = 4
        bring(world, tmp_path, channel("train", "s3://b/d/"))
        ranges = [request for request in world.requests if request == "GET /b/d/large"]
    assert files(data(tmp_path) / "train") == {"large": content}
    assert len(ranges) == 3 + 4


def test_many_objects_come_in_parallel_and_the_status_says_how_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs_module, "_PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(s3_transfer, "_PROGRESS_SECONDS", 0.001)
    said: list[str] = []
    real = Report.progress

    def progress(self: Report, text: str) -> None:
        said.append(text)
        real(self, text)

    monkeypatch.setattr(Report, "progress", progress)
    objects = {f"d/{number:03}": os.urandom(10_000) for number in range(200)}
    with AgentWorld() as world:
        world.objects["b"] = dict(objects)
        bring(world, tmp_path, channel("train", "s3://b/d/"))
        assert message(world) == "Downloading input data: 1.9 MiB downloaded"
    assert files(data(tmp_path) / "train") == {key[2:]: content for key, content in objects.items()}
    assert all(re.fullmatch(r"Downloading input data: .* of 1\.9 MiB", text) for text in said[:-1])
    assert len(said) > 1


def test_objects_on_this_machine_are_linked_where_the_input_is_read_only(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.files = tmp_path / "stored"
        world.files.mkdir()
        world.objects["b"] = {
            "d/a": b"one", "d/sub/b": b"two", "m": json.dumps([{"prefix": "s3://b/d/"}, "a"]).encode(),
        }  # fmt: skip
        bring(
            world,
            tmp_path,
            channel("train", "s3://b/d/"),
            {**channel("fast", "s3://b/d/"), "InputMode": "FastFile"},
            channel("listed", "s3://b/m", S3DataType="ManifestFile"),
            shielded=True,
        )
        assert not any(request.startswith("GET /b/d/") for request in world.requests)
        assert message(world) == "Downloading input data: 15 bytes linked from the object store"
        stored = {file.stat().st_ino for file in world.files.iterdir()}
    for name in ("train", "fast"):
        assert files(data(tmp_path) / name) == {"a": b"one", "sub/b": b"two"}
    assert files(data(tmp_path) / "listed") == {"a": b"one"}
    assert json.loads((data(tmp_path) / "listed-manifest").read_bytes())[1:] == ["a"]
    linked = [path for path in data(tmp_path).rglob("*") if path.is_file() and path.parent.name != "data"]
    assert {path.stat().st_ino for path in linked} <= stored


def test_a_large_channel_is_linked_at_no_cost(tmp_path: Path) -> None:
    size = 5 * 1024**3
    stored = tmp_path / "stored"
    with stored.open("wb") as file:
        file.truncate(size)

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        return {"objects": [["d/big", size, '"etag"', str(stored)]], "next": None}

    with AgentWorld() as world, pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs_module, "ask_server", lambda *_: ask)
        free = shutil.disk_usage(tmp_path).free
        bring(world, tmp_path, channel("train", "s3://b/d/"), shielded=True)
        assert shutil.disk_usage(tmp_path).free > free - 512 * 1024**2
        assert message(world) == "Downloading input data: 5 GiB linked from the object store"
    assert (data(tmp_path) / "train/big").samefile(stored)


def test_what_cannot_be_linked_is_copied_and_what_is_gone_is_downloaded(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.files = tmp_path / "stored"
        world.files.mkdir()
        world.objects["b"] = {"d/a": b"one", "d/b": b"two", "d/c": b"six"}
        bring(world, tmp_path, channel("train", "s3://b/d/"))  # there is no sandbox
        assert all(path.stat().st_nlink == 1 for path in (data(tmp_path) / "train").iterdir())
        assert message(world) == "Downloading input data: 9 bytes copied from the object store"
        asked = len([request for request in world.requests if request.startswith("GET /b/d/")])
        assert asked == 0
        (world.files / hashlib.sha256(b"two").hexdigest()).unlink()
        (world.files / hashlib.sha256(b"six").hexdigest()).chmod(0o644)
        (world.files / hashlib.sha256(b"six").hexdigest()).write_bytes(b"too long")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "exists", lambda _: True)  # so that the world does not make it again
            bring(world, tmp_path, channel("train", "s3://b/d/"), shielded=True)
        assert "GET /b/d/b" in world.requests
        assert "GET /b/d/c" in world.requests
    assert files(data(tmp_path) / "train") == {"a": b"one", "b": b"two", "c": b"six"}


def test_an_object_that_a_manifest_lists_twice_is_one_file(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"m": json.dumps([{"prefix": "s3://b/d/"}, "a", "a"]).encode(), "d/a": b"one"}
        bring(world, tmp_path, channel("train", "s3://b/m", S3DataType="ManifestFile"))
    assert files(data(tmp_path) / "train") == {"a": b"one"}


def test_shards_of_files_differ_between_hosts(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {f"d/{number}": b"" for number in range(5)}
        found = []
        for host in ("algo-1", "algo-2"):
            train = channel("train", "s3://b/d/", S3DataDistributionType="ShardedByS3Key")
            bring(world, tmp_path / host, train, host=host, hosts=("algo-1", "algo-2"))
            found.append(sorted(files(data(tmp_path / host) / "train")))
        assert found == [["0", "2", "4"], ["1", "3"]]
        with pytest.raises(TaskFailed, match="matched no files"):
            none = channel("train", "s3://b/none", S3DataDistributionType="ShardedByS3Key")
            bring(world, tmp_path, none, hosts=("algo-1", "algo-2"))


def test_an_object_written_anew_meanwhile_fails_the_job_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d/a": b"one"}
        real = S3Transfer.download

        def download(self: S3Transfer, *arguments: Any) -> None:
            world.objects["b"]["d/a"] = b"ONE"
            real(self, *arguments)

        monkeypatch.setattr(S3Transfer, "download", download)
        with pytest.raises(TaskFailed, match="s3://b/d/a was written anew while the job read it"):
            bring(world, tmp_path, channel("train", "s3://b/d/"))


def test_a_disk_that_is_too_small_is_told_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1024))
    with AgentWorld() as world:
        world.objects["b"] = {"d/a": b"x" * 10_000}
        with pytest.raises(
            TaskFailed, match=r"9\.8 KiB of input data have to be stored, but only 1 KiB are free"
        ):
            bring(world, tmp_path, channel("train", "s3://b/d/"))


def test_channels_are_brought_anew_whatever_was_left(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d/a": b"one"}
        bring(world, tmp_path, channel("train", "s3://b/d/"))
        (data(tmp_path) / "train/left").write_text("over")
        bring(world, tmp_path, channel("train", "s3://b/d/"))
    assert files(data(tmp_path) / "train") == {"a": b"one"}
