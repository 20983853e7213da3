"""What a task writes is measured wherever it lies, within the time that measuring may take."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from clary.agent import volume
from clary.agent.limits import GIB, TaskLimits, size_text
from clary.agent.volume import VolumeWatch

MIB = 1024**2


def limits(volume_bytes: int) -> TaskLimits:
    return TaskLimits("ml.m5.large", 2, 8 * GIB, 2, 8 * GIB, volume_bytes, 4096)


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))


def watch(tmp_path: Path, volume_bytes: int = MIB) -> VolumeWatch:
    folders = {tmp_path / "ml": "/opt/ml", tmp_path / "tmp": "/tmp"}
    for folder in folders:
        folder.mkdir(exist_ok=True)
    return VolumeWatch(limits(volume_bytes), folders, skipped=frozenset({tmp_path / "ml/input"}))


def test_the_biggest_folder_is_named_as_the_algorithm_knows_it(tmp_path: Path) -> None:
    watched = watch(tmp_path)
    assert watched.look() is None
    write(tmp_path / "ml/model/a/b/weights", 2 * MIB)
    write(tmp_path / "tmp/cache/rows", MIB)
    violation = watched.last_look()
    assert violation
    assert violation.reason == (
        "ClientError: DiskQuotaExceeded: the algorithm wrote 3 MiB; VolumeSizeInGB is 0. Most of it is in "
        "/opt/ml/model (2 MiB). Ask for a larger VolumeSizeInGB, or write less."
    )


def test_input_does_not_count_and_a_file_of_two_names_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "ml/input/data/train/rows", 9 * MIB)
    write(tmp_path / "ml/model/one", 700 * 1024)
    (tmp_path / "ml/model/two").hardlink_to(tmp_path / "ml/model/one")
    (tmp_path / "ml/model/three").symlink_to(tmp_path / "ml/input/data")
    assert watch(tmp_path).last_look() is None


def test_holes_of_a_file_take_no_room(tmp_path: Path) -> None:
    (tmp_path / "ml/model").mkdir(parents=True)
    with (tmp_path / "ml/model/sparse").open("wb") as file:
        file.truncate(GIB)
    assert watch(tmp_path).last_look() is None


def test_links_in_circles_and_folders_that_are_closed_end_no_walk(tmp_path: Path) -> None:
    (tmp_path / "ml/model/deep").mkdir(parents=True)
    (tmp_path / "ml/model/deep/up").symlink_to("..")
    (tmp_path / "ml/model/closed").mkdir(mode=0)
    os.mkfifo(tmp_path / "ml/model/pipe")
    assert watch(tmp_path).last_look() is None


def test_a_look_takes_a_moment_whatever_there_is_and_all_is_found_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3000):
        write(tmp_path / f"ml/model/{number % 50}/{number}", 1)
    monkeypatch.setattr(volume, "_SLICE_SECONDS", 0.0005)
    monkeypatch.setattr(volume, "_LONG_SLICE_SECONDS", 0.0005)
    watched = watch(tmp_path, 3000 * 4096 - 1)
    looks = 1
    while watched.look() is None:
        looks += 1
        assert looks < 10_000
    assert looks > 1, "it took one long look"


def test_no_walk_is_due_right_after_another(tmp_path: Path) -> None:
    watched = watch(tmp_path)
    assert watched.look() is None
    write(tmp_path / "ml/model/weights", 2 * MIB)
    began = time.monotonic()
    while watched.look() is None and time.monotonic() - began < 30:
        time.sleep(0.01)
    assert watched.look()


def test_a_full_disk_ends_the_job_that_filled_it_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = os.statvfs(tmp_path)
    monkeypatch.setattr(volume, "DISK_RESERVE_BYTES", found.f_blocks * found.f_frsize)
    small = watch(tmp_path, 0)
    write(tmp_path / "ml/model/weights", MIB)
    assert small.look() is None
    monkeypatch.setattr(volume, "_WRITES_MUCH_BYTES", MIB)
    violation = watch(tmp_path, 0).look()
    assert violation
    assert "the disk of this machine is full: " in violation.reason
    assert "the algorithm wrote 1 MiB, most of it to /opt/ml/model (1 MiB)" in violation.reason


def test_last_words_of_a_full_disk_are_explained(tmp_path: Path) -> None:
    watched = watch(tmp_path, GIB)
    assert "the disk of this machine is full (" in watched.remark(
        "OSError: [Errno 28] No space left on device"
    )
    assert "than the volume of 1 GiB" in watched.remark("OSError: [Errno 27] File too large")
    assert watched.remark("KeyError: 'price'") == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (MIB, "1 MiB"), (int(17.24 * GIB), "17.2 GiB"), (2**41, "2 TiB")],
)
def test_sizes_are_said_as_people_say_them(size: int, text: str) -> None:
    assert size_text(size) == text
