"""Manifests, shards and names of keys, for whatever comes."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.agent.channels.augmented import AugmentedManifest, find_lines
from clary.agent.channels.channel import Channel, S3Source, channels_of
from clary.agent.channels.objects import (
    Found,
    check_names,
    manifest_entries,
    relative_name,
)
from clary.agent.failure import TaskFailed
from clary.agent.s3_transfer import S3Location
from clary.resources.task import TrainingWork
from clary.testing.agent_world import AgentWorld, channel, training_spec

KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
PATHS = st.lists(
    st.sampled_from(["a", "b", "..", ".", "", "ü", "x" * 255, "x" * 256, "a\0", "a\n", "-", "~"]), max_size=5
).map("/".join)


def found(name: str, number: int = 0) -> Found:
    return Found(name, S3Location("b", f"{number}/{name}"), 1, "etag")


def sharded(hosts: tuple[str, ...], seed: int | None, *, shards: bool = True) -> Channel:
    return Channel("train", "File", S3Source("s3://b/", "S3Prefix", shards, hosts), shuffle_seed=seed)


@given(st.integers(0, 200), st.integers(1, 20), st.none() | st.integers(), st.integers(0, 3))
def test_shards_cover_everything_once_and_evenly(
    count: int, hosts: int, seed: int | None, epoch: int
) -> None:
    names = tuple(f"algo-{number}" for number in range(hosts))
    parts = [sharded(names, seed).part(count, name, epoch) for name in names]
    assert Counter(index for part in parts for index in part) == Counter(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(0, 200), st.none() | st.integers(), st.integers(0, 3))
def test_a_replica_has_everything_in_an_order_that_the_seed_decides(
    count: int, seed: int | None, epoch: int
) -> None:
    part = sharded(("algo-1", "algo-2"), seed, shards=False).part(count, "algo-2", epoch)
    assert sorted(part) == list(range(count))
    assert list(part) == list(sharded(("x",), seed, shards=False).part(count, "x", epoch))
    if seed is None:
        assert list(part) == list(range(count))


@given(KEYS, KEYS)
def test_a_file_s_name_is_the_end_of_its_key(prefix: str, rest: str) -> None:
    key = prefix + rest
    name = relative_name(prefix, key)
    assert key.endswith(name)
    assert len(name) >= len(rest) - 1


@given(st.lists(PATHS, max_size=6))
def test_names_that_pass_can_lie_side_by_side_in_a_folder(names: list[str]) -> None:
    items = [found(name, number) for number, name in enumerate(names)]
    try:
        check_names(items, "train")
    except TaskFailed as error:
        assert "channel 'train'" in error.reason
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)
            assert Path(folder).resolve() in path.resolve().parents
        assert sum(path.is_file() for path in Path(folder).rglob("*")) == len(names)


@given(KEYS, st.lists(KEYS, max_size=10))
def test_a_manifest_names_what_it_lists(prefix: str, names: list[str]) -> None:
    text = json.dumps([{"prefix": f"s3://bucket/{prefix}"}, *names]).encode()
    assert [location.key for _, location in manifest_entries(text, "s3://m")] == [
        prefix + name for name in names
    ]


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists) | st.binary())
def test_what_is_no_manifest_is_refused_by_name(document: object) -> None:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(TaskFailed, match="the manifest s3://b/m is not a JSON list"):
        manifest_entries(text, "s3://b/m")


ATTRIBUTES = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(max_size=20) | st.integers())


@given(st.lists(ATTRIBUTES, max_size=8), st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"]), st.booleans())
def test_every_line_of_an_augmented_manifest_is_found(
    lines: list[dict[str, object]], end: str, closed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "manifest")
        text = end.join(json.dumps({"k": 0, **line}) for line in lines) + (end if closed and lines else "")
        path.write_bytes(text.encode())
        source = S3Source("s3://b/m", "AugmentedManifestFile", False, ("algo-1",), ("k",))
        manifest = AugmentedManifest(path, find_lines(path, "s3://b/m"), sharded(("algo-1",), None), source)
        assert len(manifest) == len(lines)
        assert [stretch.inline for stretch in manifest.stretches(range(len(lines)), lambda _: None)] == [
            b"0"
        ] * len(lines)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], {"algo-1": True, "algo-2": True, "algo-3": True}),
        (["small"], {"algo-1": False, "algo-2": True, "algo-3": True}),
        (["big", "small"], {"algo-1": True, "algo-2": True, "algo-3": True}),
    ],
)
def test_instance_groups_get_the_channels_meant_for_them(
    groups: list[str], expected: dict[str, bool]
) -> None:
    resources = {
        "InstanceGroups": [
            {"InstanceGroupName": "big", "InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
            {"InstanceGroupName": "small", "InstanceType": "ml.m5.large", "InstanceCount": 2},
        ]
    }
    source = {
        "S3DataDistributionType": "ShardedByS3Key",
        **({"InstanceGroupNames": groups} if groups else {}),
    }
    channels = [channel("train", "s3://b/x", **source), channel("all", "s3://b/x")]
    work = training_spec(AgentWorld(), "job", InputDataConfig=channels, ResourceConfig=resources).work
    assert isinstance(work, TrainingWork)
    shards: list[int] = []
    for host, gets in expected.items():
        mine = channels_of(TrainingWork(**{**work.__dict__, "host": host, "hosts": tuple(expected)}))
        assert [each.name for each in mine] == (["train", "all"] if gets else ["all"])
        if gets:
            shards += mine[0].part(10, host)
    assert sorted(shards) == list(range(10))
