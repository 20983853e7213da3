"""Directories that the operator allows: what the setting may say, and that no way leads out of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.agent.runtimes.mounts import MOST_FILE_SYSTEMS, Mount, parse_file_systems, steps
from clary.agent.runtimes.program import Program, program_from_json


def mount(root: Path, path: str) -> Mount:
    return Mount("fs-0123abcd", str(root), path, "input/data/train", read_only=True)


def test_the_setting_names_directories(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    text = f" fs-0123abcd = {tmp_path}/a, fs-89abcdef0123={tmp_path}/link,,"
    directory = str(tmp_path / "a")
    assert parse_file_systems(text, tmp_path / "data") == {
        "fs-0123abcd": directory,
        "fs-89abcdef0123": directory,
    }
    assert parse_file_systems("", tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fs-1={}/a", "'fs-1', which is no id"),
        ("data={}/a", "'data', which is no id"),
        ("fs-0123abcd", "''"),
        ("fs-0123abcd={}/missing", "is not there"),
        ("fs-0123abcd=a", "must be the absolute path"),
        ("fs-0123abcd={}/file", "is not there"),
        ("fs-0123abcd={}/a,fs-0123abcd={}/a", "names fs-0123abcd twice"),
        ("fs-0123abcd={}", "would show jobs what Clary keeps"),
        ("fs-0123abcd=/", "would show jobs what Clary keeps"),
        ("fs-0123abcd={}/data", "would show jobs what Clary keeps"),
        ("fs-0123abcd={}/data/objects", "would show jobs what Clary keeps"),
        ("fs-0123abcd={}/into", "would show jobs what Clary keeps"),
        (
            ",".join(f"fs-{number:08x}={{}}/a" for number in range(MOST_FILE_SYSTEMS + 1)),
            f"more than {MOST_FILE_SYSTEMS}",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "data/objects").mkdir(parents=True)
    (tmp_path / "into").symlink_to(tmp_path / "data/objects")
    with pytest.raises(ValueError, match=words):
        parse_file_systems(text.replace("{}", str(tmp_path)), tmp_path / "data")


def test_a_directory_is_opened_step_by_step(tmp_path: Path) -> None:
    (tmp_path / "root/deep/down").mkdir(parents=True)
    (tmp_path / "root/file").touch()
    (tmp_path / "root/out").symlink_to(tmp_path)
    (tmp_path / "root/in").symlink_to("deep")
    for path in ("", "/", "deep", "/deep//down/"):
        with mount(tmp_path / "root", path).opened() as descriptor:
            expected = (tmp_path / "root" / path.strip("/")).resolve()
            assert Path(f"/proc/self/fd/{descriptor}").resolve() == expected
    for path in ("out", "in", "in/down", "deep/missing", "file", "deep/down/" + "x" * 300):
        with pytest.raises(OSError), mount(tmp_path / "root", path).opened():
            pass


@given(st.text(max_size=30) | st.lists(st.sampled_from(["..", ".", "", "a", "\0"]), max_size=6).map("/".join))
def test_steps_only_lead_down(path: str) -> None:
    try:
        found = steps(path)
    except ValueError:
        assert {".", ".."} & set(path.split("/")) or "\0" in path
        return
    assert "/".join(found) == "/".join(part for part in path.split("/") if part)
    assert os.path.normpath("/allowed/" + "/".join(found)).startswith("/allowed")


def test_a_program_s_order_survives_its_way_to_the_fork_server(tmp_path: Path) -> None:
    program = Program("task", "module", "/opt/ml", mounts=(mount(tmp_path, "a"), mount(tmp_path, "b")))
    assert program_from_json(program.to_json()) == program
