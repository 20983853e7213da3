"""The caller's source: found where the agent or a channel put it, and brought to ``code/``."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tarfile
from pathlib import Path

CONTAINER_BASE = "/opt/ml"
ARCHIVE_NAME = "sourcedir.tar.gz"
LARGEST_SOURCE_BYTES = 4 * 1024**3
MOST_MEMBERS = 100_000
_LARGEST_PROJECT_BYTES = 1 << 20
_PROJECT_TABLE = re.compile(rb"^\s*\[\s*(project|build-system)\s*\]", re.M)


class NoSource(Exception):
    """The source is missing or cannot be used; the message says what is there."""


def bring_source(base: Path, program: str, submit_directory: str) -> Path:
    """The path of ``program`` in ``base/code``, where the rest of the source is too.

    Of a source that is a package, ``program`` may name a module (``trainer.main``): the path is no file then.

    An archive in ``code/``, and a local ``submit_directory`` or channel ``code`` (a folder or an archive),
    are brought there first. Raises `NoSource`.
    """
    if not program:
        raise NoSource("the job names no script: the hyperparameter sagemaker_program is not set")
    code = base / "code"
    code.mkdir(parents=True, exist_ok=True)
    script = code / program
    if not script.resolve().is_relative_to(code.resolve()):
        raise NoSource(f"the script {program} leads out of the source")
    for source in (code / ARCHIVE_NAME, _seen_here(base, submit_directory), base / "input/data/code"):
        if script.is_file() or is_package(code):
            break
        if source is not None:
            _bring(source, code)
    if not script.is_file() and not (is_package(code) and _is_module(program, code)):
        there = ", ".join(sorted(path.name for path in code.iterdir())) or "nothing"
        raise NoSource(f"the script {program} is not in the source; there is: {there}")
    return script


def is_package(code: Path) -> bool:
    """Whether pip can install the source: it has a setup.py, or a pyproject.toml that says so."""
    if (code / "setup.py").is_file():
        return True
    project = code / "pyproject.toml"
    if not project.is_file() or project.is_symlink():
        return False
    with project.open("rb") as file:
        return _PROJECT_TABLE.search(file.read(_LARGEST_PROJECT_BYTES)) is not None


def _is_module(program: str, code: Path) -> bool:
    name = program.partition(".")[0]
    if not name.isidentifier():
        return False
    # Also where the package was not installed but only lies there.
    found = (code / name).is_dir() or (code / f"{name}.py").is_file()
    return found or importlib.util.find_spec(name) is not None


def _seen_here(base: Path, submit_directory: str) -> Path | None:
    """A local submit directory as it is in this task; ``None`` for one in S3."""
    path = submit_directory.removeprefix("file://")
    if not path.startswith("/"):
        return None
    if path == CONTAINER_BASE or path.startswith(f"{CONTAINER_BASE}/"):
        return base / path.removeprefix(CONTAINER_BASE).lstrip("/")
    return Path(path)


def _bring(source: Path, code: Path) -> None:
    if source.is_file():
        extract(source, code)
    elif source.is_dir() and source.resolve() != code.resolve():
        if (source / ARCHIVE_NAME).is_file():
            extract(source / ARCHIVE_NAME, code)
        else:
            shutil.copytree(source, code, symlinks=True, dirs_exist_ok=True)


def extract(archive: Path, folder: Path) -> None:
    """Unpack a tar archive. Raises `NoSource` if it is none, grows too large, or leads out of ``folder``."""
    if not hasattr(tarfile, "data_filter"):
        raise NoSource(
            f"{archive.name} cannot be unpacked safely by this Python: 3.10.12, 3.11.4 or newer is needed"
        )
    try:
        with tarfile.open(archive) as tar:
            members = []
            total = 0
            for member in tar:
                members.append(member)
                total += member.size
                if len(members) > MOST_MEMBERS or total > LARGEST_SOURCE_BYTES:
                    raise NoSource(
                        f"{archive.name} unpacks to more than {LARGEST_SOURCE_BYTES} bytes or "
                        f"{MOST_MEMBERS} members"
                    )
            tar.extractall(folder, members, filter="data")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise NoSource(f"{archive.name} cannot be unpacked: {error}") from error
