"""Archives: the same content makes the same bytes, and nothing unpacked leaves its folder."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from clary.agent import archives
from clary.agent.archives import BadArchive, pack, unpack


def packed(folder: Path) -> tuple[bytes, list[str]]:
    sink, warnings = io.BytesIO(), list[str]()
    pack(folder, sink, warnings.append)
    return sink.getvalue(), warnings


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    sink.seek(0)
    return sink


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_what_is_packed_comes_out_again(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "a/b").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "a/b/model.bin").write_bytes(os.urandom(3_000_000))
    (source / "run.sh").write_text("exit 0")
    (source / "run.sh").chmod(0o755)
    (source / "latest").symlink_to("a/b/model.bin")
    content, warnings = packed(source)
    target.mkdir()
    unpack(io.BytesIO(content), target, len(content))
    assert (target / "latest").read_bytes() == (source / "a/b/model.bin").read_bytes()
    assert (target / "latest").is_symlink()
    assert (target / "empty").is_dir()
    assert os.access(target / "run.sh", os.X_OK)
    assert warnings == []


def test_the_same_content_makes_the_same_bytes(tmp_path: Path) -> None:
    for name, order in (("one", "ab"), ("two", "ba")):
        (tmp_path / name).mkdir()
        for file in order:
            (tmp_path / name / file).write_text(file)
    os.utime(tmp_path / "one/a", (1, 1))
    assert packed(tmp_path / "one")[0] == packed(tmp_path / "two")[0]


def test_links_out_of_the_folder_and_pipes_are_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "absolute").symlink_to("/etc/passwd")
    (folder / "relative").symlink_to("../secret")
    os.mkfifo(folder / "pipe")
    (folder / "kept").write_text("kept")
    content, warnings = packed(folder)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["kept"]
    assert len(warnings) == 3


@pytest.mark.parametrize(
    "members",
    [
        [(member("../out"), b"x")],
        [(member("/absolute"), b"x")],
        [(member("a/../../out"), b"x")],
        [(member("link", tarfile.SYMTYPE, "/etc"), b"")],
        [(member("link", tarfile.SYMTYPE, "../.."), b"")],
        [(member("d"), b""), (member("d/link", tarfile.LNKTYPE, "../../etc/passwd"), b"")],
        [(member("inner", tarfile.SYMTYPE, "."), b""), (member("inner/file"), b"x")],
        [(member("hard", tarfile.LNKTYPE, "/etc/passwd"), b"")],
        [(member("device", tarfile.CHRTYPE), b"")],
        [(member("pipe", tarfile.FIFOTYPE), b"")],
    ],
)
def test_members_that_lead_outside_are_refused(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(BadArchive):
        unpack(tar_of(*members), folder, 1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_RATIO_MATTERS_BYTES", 1_000_000)
    bomb = tar_of((member("zeros"), bytes(3_000_000)))
    with pytest.raises(BadArchive, match="unpacks to more than"):
        unpack(bomb, tmp_path, len(bomb.getvalue()))
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    with pytest.raises(BadArchive, match="more than 2 members"):
        unpack(tar_of(*[(member(str(i)), b"") for i in range(4)]), tmp_path, 10_000)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"\x1f\x8b\x08\x00broken"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadArchive, match="no readable tar archive"):
        unpack(io.BytesIO(content), tmp_path, len(content))


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    whole = tar_of((member("file"), os.urandom(200_000))).getvalue()
    with pytest.raises(BadArchive):
        unpack(io.BytesIO(whole[: len(whole) // 2]), tmp_path, len(whole))
