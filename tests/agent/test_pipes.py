"""Pipe mode: a pass over the data for each FIFO, whatever the reader does."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import select
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clary.agent.channels import augmented, stream
from clary.agent.channels import pipe as pipe_module
from clary.agent.channels.objects import Found
from clary.agent.failure import TaskFailed
from clary.agent.inputs import bring_channels
from clary.agent.limits import Violation
from clary.agent.s3_transfer import S3Location
from clary.agent.watch import Watch
from clary.resources.task import TrainingWork
from clary.testing.agent_surroundings import agent_surroundings
from clary.testing.agent_world import AgentWorld, channel, training_spec

LIMIT_SECONDS = 30.0
MAGIC = 0xCED7230A


class _NoWatch:
    """A watch that has nothing to say of its own."""

    def look(self) -> Violation | None:
        return None

    def last_look(self, *, succeeded: bool) -> Violation | None:
        return None

    def remark(self, said: str) -> str:
        return ""


def piped(name: str, uri: str, source: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    return {**channel(name, uri, **(source or {})), "InputMode": "Pipe", **members}


@contextmanager
def piping(
    world: AgentWorld, folder: Path, *channels: dict[str, Any], host: str = "algo-1", hosts: int = 1
) -> Iterator[tuple[Path, Watch]]:
    """Fill the pipes of ``channels``: the folder of the FIFOs, and the watch over them."""
    spec = training_spec(world, "job", InputDataConfig=list(channels))
    work = spec.work
    assert isinstance(work, TrainingWork)
    names = tuple(f"algo-{number + 1}" for number in range(hosts))
    work = TrainingWork(**{**work.__dict__, "host": host, "hosts": names})
    with agent_surroundings(world, folder, spec) as around:
        data = around.folder.ml / "input/data"
        data.mkdir(parents=True, exist_ok=True)
        inputs = bring_channels(around, work, around.transfer)
        with inputs.piping() as watched:
            yield data, watched(_NoWatch())
        assert [thread for thread in threading.enumerate() if thread.name.startswith("pipe-")] == []
        assert [path.name for path in data.iterdir() if path.is_fifo()] == []


def read(data: Path, name: str, epoch: int = 0) -> bytes:
    """All of one epoch; waits for its FIFO as programs do."""
    fifo = data / f"{name}_{epoch}"
    deadline = time.monotonic() + LIMIT_SECONDS
    while not fifo.exists():
        assert time.monotonic() < deadline, f"{fifo} never came"
        time.sleep(0.002)
    content = b""
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while True:
            events = poll.poll(LIMIT_SECONDS * 1000)
            assert events, f"nothing comes from {fifo} after {len(content)} bytes"
            if block := os.read(descriptor, 1 << 20):
                content += block
            elif events[0][1] & select.POLLHUP:
                return content
    finally:
        os.close(descriptor)


def records(content: bytes) -> list[bytes]:
    """The payloads of RecordIO, read independently of what writes it."""
    found, position = [], 0
    while position < len(content):
        magic, size = struct.unpack_from("<II", content, position)
        assert magic == MAGIC
        found.append(content[position + 8 : position + 8 + size])
        end = position + 8 + size
        position = end + (-size % 4)
        assert content[end:position] == bytes(position - end)
    return found


def test_each_fifo_is_one_pass_over_the_objects_in_order(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d/": b"", "d/2": b"two", "d/1": b"one", "d/empty": b"", "e": b"no"}
        with piping(world, tmp_path, piped("train", "s3://b/d/")) as (data, watch):
            assert not (data / "train_1").exists()
            for epoch in range(4):
                assert read(data, "train", epoch) == b"onetwo"
            assert watch.look() is None


@pytest.mark.parametrize("local", [False, True])
def test_large_objects_come_whole_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    monkeypatch.setattr(stream, "PIECE_BYTES", 50_000)
    objects = {f"d/{number}": random.Random(number).randbytes(number * 40_001) for number in range(9)}
    with AgentWorld() as world:
        world.objects["b"] = dict(objects)
        if local:
            world.files = tmp_path / "files"
            world.files.mkdir()
        with piping(world, tmp_path, piped("train", "s3://b/d/")) as (data, _):
            asked = len(world.requests)
            assert read(data, "train") == b"".join(objects.values())
            assert (len(world.requests) == asked) == local


def test_memory_holds_a_few_pieces_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PIECE_BYTES", 1000)
    monkeypatch.setattr(pipe_module, "_PIPE_BYTES", 4096)
    with AgentWorld() as world:
        world.objects["b"] = {f"d/{number:03}": bytes(1000) for number in range(500)}
        with piping(world, tmp_path, piped("train", "s3://b/d/")) as (data, _):
            with (data / "train_0").open("rb", buffering=0) as fifo:
                assert fifo.read(1) == b"\0"
                time.sleep(0.2)
                fetched = sum("GET /b/d/" in request for request in world.requests)
                assert 0 < fetched <= 4 + 2 * stream.AHEAD + 2
            assert len(read(data, "train", 1)) == 500_000


def test_a_reader_that_closes_early_gets_the_next_epoch_whole(tmp_path: Path) -> None:
    with AgentWorld() as world:
        content = os.urandom(3_000_000)
        world.objects["b"] = {"d": content}
        with piping(world, tmp_path, piped("train", "s3://b/d")) as (data, _):
            with (data / "train_0").open("rb") as fifo:
                assert fifo.read(10) == content[:10]
            assert read(data, "train", 1) == content
            assert not (data / "train_0").exists()


def test_channels_do_not_wait_for_one_another(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"a": b"a" * 3_000_000, "c": b"c"}
        with (
            piping(world, tmp_path, piped("a", "s3://b/a"), piped("c", "s3://b/c")) as (data, _),
            (data / "a_0").open("rb") as slow,
        ):
            assert [read(data, "c", epoch) for epoch in range(3)] == [b"c"] * 3
            assert slow.read() == b"a" * 3_000_000


def test_a_fifo_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d": b"x" * 3_000_000}
        with piping(world, tmp_path, piped("never", "s3://b/d"), piped("half", "s3://b/d")) as (data, _):
            half = os.open(data / "half_0", os.O_RDONLY)
        os.close(half)


def test_the_pump_ends_while_the_server_is_away(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {f"d/{number}": b"x" * 100_000 for number in range(100)}
        with piping(world, tmp_path, piped("train", "s3://b/d/")) as (data, _):
            world.vanish()
            fifo = os.open(data / "train_0", os.O_RDONLY | os.O_NONBLOCK)
            time.sleep(0.05)
        os.close(fifo)
        world.appear()


def test_gzip_is_unpacked_object_by_object(tmp_path: Path) -> None:
    one, two = os.urandom(2_500_000), b"two" * 1000
    with AgentWorld() as world:
        world.objects["b"] = {
            "d/1.gz": gzip.compress(one[:7]) + gzip.compress(one[7:]) + bytes(13),  # members, and padding
            "d/2.gz": gzip.compress(two),
            "d/3.gz": b"",
        }
        with piping(world, tmp_path, piped("train", "s3://b/d/", CompressionType="Gzip")) as (data, _):
            assert read(data, "train") == one + two


def test_each_object_becomes_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PIECE_BYTES", 1000)
    contents = [os.urandom(size) for size in (0, 1, 2, 3, 4, 999, 1000, 1001, 5003)]
    with AgentWorld() as world:
        world.objects["b"] = {f"d/{number}": content for number, content in enumerate(contents)}
        world.objects["z"] = {
            f"d/{number}": gzip.compress(content) for number, content in enumerate(contents)
        }
        plain = piped("plain", "s3://b/d/", RecordWrapperType="RecordIO")
        packed = piped("packed", "s3://z/d/", RecordWrapperType="RecordIO", CompressionType="Gzip")
        with piping(world, tmp_path, plain, packed) as (data, _):
            assert records(read(data, "plain")) == contents
            assert records(read(data, "packed")) == contents


@pytest.mark.parametrize("local", [False, True])
def test_an_augmented_manifest_sends_attributes_in_their_order(tmp_path: Path, local: bool) -> None:
    image = os.urandom(9_000_001)  # larger than a piece
    lines = [
        {"source-ref": "s3://b/images/1", "label": 1, "name": "ä", "ignored": [1]},
        {"label": {"boxes": [1, 2]}, "name": "", "source-ref": "s3://b/images/2"},
    ]
    text = "\n".join(json.dumps(line) for line in lines).encode() + b"\n\n"
    source = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["source-ref", "label", "name"]}
    expected = [image, b"1", "ä".encode(), b"", b'{"boxes":[1,2]}', b""]
    with AgentWorld() as world:
        world.objects["b"] = {"images/1": image, "images/2": b"", "m": text, "m.gz": gzip.compress(text)}
        wrapped = piped("wrapped", "s3://b/m", source, RecordWrapperType="RecordIO")
        packed = piped("packed", "s3://b/m.gz", source, RecordWrapperType="RecordIO", CompressionType="Gzip")
        bare = piped("bare", "s3://b/m", source)
        if local:
            world.files = tmp_path / "files"
            world.files.mkdir()
        with piping(world, tmp_path, wrapped, packed, bare) as (data, _):
            for epoch in range(2):
                assert records(read(data, "wrapped", epoch)) == expected
            assert records(read(data, "packed")) == expected
            assert read(data, "bare") == b"".join(expected)
            assert any(request == "GET /b/images/1" for request in world.requests) != local


def test_a_manifest_is_read_in_its_order_and_lies_beside_the_pipe(tmp_path: Path) -> None:
    manifest = json.dumps([{"prefix": "s3://b/d/"}, "2", "1", "2"]).encode()
    with AgentWorld() as world:
        world.objects["b"] = {"m": manifest, "d/1": b"one", "d/2": b"two"}
        with piping(world, tmp_path, piped("train", "s3://b/m", {"S3DataType": "ManifestFile"})) as (data, _):
            assert read(data, "train") == b"twoonetwo"
            assert (data / "train-manifest").read_bytes() == manifest


def test_shuffling_is_seeded_and_anew_for_each_epoch(tmp_path: Path) -> None:
    def passes(folder: Path, seed: int) -> list[bytes]:
        folder.mkdir()
        members = {"ShuffleConfig": {"Seed": seed}}
        with piping(world, folder, piped("train", "s3://b/d/", **members)) as (data, _):
            return [read(data, "train", epoch) for epoch in range(3)]

    letters = b"abcdefghijklmnop"
    with AgentWorld() as world:
        world.objects["b"] = {f"d/{letter:c}": bytes([letter]) for letter in letters}
        first = passes(tmp_path / "1", 7)
        assert passes(tmp_path / "2", 7) == first
        assert passes(tmp_path / "3", 8) != first
    assert len(set(first)) == 3
    assert all(sorted(each) == sorted(letters) for each in first)


def test_shards_cover_the_data_once_and_move_between_hosts_when_shuffled(tmp_path: Path) -> None:
    source = {"S3DataDistributionType": "ShardedByS3Key"}
    letters = b"abcdefghijk"

    def parts(shuffled: bool, epoch: int) -> list[bytes]:
        found = []
        for host in ("algo-1", "algo-2", "algo-3"):
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            folder.mkdir()
            members = {"ShuffleConfig": {"Seed": 1}} if shuffled else {}
            train = piped("train", "s3://b/d/", source, **members)
            with piping(world, folder, train, host=host, hosts=3) as (data, _):
                for number in range(epoch):
                    read(data, "train", number)
                found.append(read(data, "train", epoch))
        return found

    with AgentWorld() as world:
        world.objects["b"] = {f"d/{letter:c}": bytes([letter]) for letter in letters}
        assert parts(False, 0) == [b"adgj", b"behk", b"cfi"]
        assert parts(False, 1) == parts(False, 0)
        first, second = parts(True, 0), parts(True, 1)
    for each in (first, second):
        assert sorted(b"".join(each)) == sorted(letters)
    assert [sorted(part) for part in first] != [sorted(part) for part in second]


@pytest.mark.parametrize(
    ("objects", "wanted", "words"),
    [
        (
            {"d/1": b"plain text"},
            piped("train", "s3://b/d/", CompressionType="Gzip"),
            "s3://b/d/1 (channel 'train') is not gzip",
        ),
        (
            {"d/1": gzip.compress(os.urandom(1000))[:-9]},
            piped("train", "s3://b/d/", CompressionType="Gzip"),
            "is gzip that was cut off",
        ),
        (
            {"m": b'{"a": 1, "b": 2}\n{"a": 1}\n'},
            piped("train", "s3://b/m", {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a", "b"]}),
            "record 2 of s3://b/m has no attribute 'b'",
        ),
        (
            {"m": b'{"a": 1}\n{"a": \n'},
            piped("train", "s3://b/m", {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a"]}),
            "record 2 of s3://b/m is not JSON",
        ),
        (
            {"m": b"[1]\n"},
            piped("train", "s3://b/m", {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a"]}),
            "is not a JSON object",
        ),
        (
            {"m": b'{"a-ref": "s3://b/missing"}\n'},
            piped("train", "s3://b/m", {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a-ref"]}),
            "s3://b/missing",
        ),
        (
            {"m": b'{"a-ref": "/etc/passwd"}\n'},
            piped("train", "s3://b/m", {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a-ref"]}),
            "'/etc/passwd' as 'a-ref', which is no S3 URI",
        ),
    ],
)
def test_data_that_cannot_be_sent_is_told_and_its_reader_never_sees_an_end(
    tmp_path: Path, objects: dict[str, bytes], wanted: dict[str, Any], words: str
) -> None:
    with AgentWorld() as world:
        world.objects["b"] = dict(objects)
        with piping(world, tmp_path, wanted) as (data, watch):
            ended = threading.Event()

            def reader() -> None:
                read(data, "train")
                ended.set()

            thread = threading.Thread(target=reader)
            thread.start()
            deadline = time.monotonic() + LIMIT_SECONDS
            while (violation := watch.look()) is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            assert not ended.is_set()
            assert words in violation.reason
            assert violation.reason.startswith("ClientError: Data download failed:")
            assert watch.last_look(succeeded=True) == violation
        thread.join(LIMIT_SECONDS)
        assert ended.is_set()


def test_an_object_written_anew_is_not_mixed_with_what_it_was(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d/1": b"one", "d/2": b"two"}
        with piping(world, tmp_path, piped("train", "s3://b/d/")) as (data, watch):
            world.objects["b"]["d/2"] = b"TWO"
            thread = threading.Thread(target=read, args=(data, "train"))
            thread.start()
            deadline = time.monotonic() + LIMIT_SECONDS
            while (violation := watch.look()) is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            assert "s3://b/d/2 was written anew while the job read it" in violation.reason
        thread.join(LIMIT_SECONDS)


def test_a_version_on_this_machine_stays_while_the_job_runs(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.files = tmp_path / "files"
        world.files.mkdir()
        world.objects["b"] = {"d/1": b"one"}
        with piping(world, tmp_path, piped("train", "s3://b/d/")) as (data, watch):
            for file in world.files.iterdir():
                file.unlink()
            world.objects["b"]["d/1"] = b"another"
            assert [read(data, "train", epoch) for epoch in range(3)] == [b"one"] * 3
            assert watch.look() is None


@pytest.mark.parametrize(
    ("content", "members", "words"),
    [
        (b"", {}, "has no lines"),
        (b"\n \n", {}, "has no lines"),
        (b"{}", {"CompressionType": "Gzip"}, "is not gzip"),
    ],
)
def test_an_augmented_manifest_that_cannot_be_used_fails_before_training(
    tmp_path: Path, content: bytes, members: dict[str, Any], words: str
) -> None:
    source = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a"]}
    with AgentWorld() as world:
        world.objects["b"] = {"m": content}
        with (
            pytest.raises(TaskFailed, match=words),
            piping(world, tmp_path, piped("train", "s3://b/m", source, **members)),
        ):
            pass


def test_bad_data_behind_what_a_program_wants_does_not_fail_it(tmp_path: Path) -> None:
    with AgentWorld() as world:
        world.objects["b"] = {"d/1": gzip.compress(b"good"), "d/2": b"bad"}
        with piping(world, tmp_path, piped("train", "s3://b/d/", CompressionType="Gzip")) as (data, watch):
            for epoch in range(3):
                deadline = time.monotonic() + LIMIT_SECONDS
                while not (data / f"train_{epoch}").exists():
                    assert time.monotonic() < deadline
                    time.sleep(0.002)
                with (data / f"train_{epoch}").open("rb", buffering=0) as fifo:
                    assert fifo.read(1) == b"g"
            assert watch.last_look(succeeded=True) is None


def test_a_pass_goes_on_when_the_server_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_module, "_PIPE_BYTES", 4096)
    monkeypatch.setattr(stream, "PIECE_BYTES", 10_000)
    objects = {f"d/{number:02}": os.urandom(50_000) for number in range(20)}
    with AgentWorld() as world:
        world.objects["b"] = dict(objects)
        with (
            piping(world, tmp_path, piped("train", "s3://b/d/")) as (data, watch),
            (data / "train_0").open("rb", buffering=0) as fifo,
        ):
            beginning = fifo.read(1000)
            world.vanish()
            back = threading.Timer(0.3, world.appear)
            back.start()
            rest = b""
            while block := fifo.read(1 << 16):
                rest += block
            back.join()
            assert beginning + rest == b"".join(objects.values())
            assert watch.look() is None


def test_an_object_that_left_this_machine_meanwhile_is_fetched(tmp_path: Path) -> None:
    source = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a-ref"]}
    with AgentWorld() as world, pytest.MonkeyPatch.context() as patch:
        world.files = tmp_path / "files"
        world.files.mkdir()
        world.objects["b"] = {"m": b'{"a-ref": "s3://b/image"}\n', "image": b"image"}
        found = Found("image", S3Location("b", "image"), 5, f'"{hashlib.md5(b"image").hexdigest()}"', "/gone")
        patch.setattr(augmented, "look_up", lambda *_: {found.location: found})
        with piping(world, tmp_path, piped("train", "s3://b/m", source)) as (data, _):
            assert read(data, "train") == b"image"


def test_what_comes_before_a_bad_line_is_sent(tmp_path: Path) -> None:
    source = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a"]}
    with AgentWorld() as world:
        world.objects["b"] = {"m": b'{"a": "good"}\n{"a": "better"}\nbad\n'}
        with (
            piping(world, tmp_path, piped("train", "s3://b/m", source)) as (data, watch),
            (data / "train_0").open("rb", buffering=0) as fifo,
        ):
            received = b""
            while len(received) < 10:
                received += fifo.read(100)
            assert received == b"goodbetter"
            deadline = time.monotonic() + LIMIT_SECONDS
            while (violation := watch.look()) is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            assert "record 3 of s3://b/m is not JSON" in violation.reason
