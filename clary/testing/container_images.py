"""Images for tests of containers, made of what this machine has: no registry is asked.

The base holds a shell, a few of the usual commands and this machine's Python with its standard library. An
image with files of a test's own is one layer on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clary.agent.runtimes.container import CannotContain, engine_address
from clary.agent.runtimes.docker import Engine

REPOSITORY = "clary-test"
_COMMANDS = (
    "sh",
    "cat",
    "cp",
    "chmod",
    "env",
    "head",
    "id",
    "ls",
    "mkdir",
    "mv",
    "rm",
    "sleep",
    "touch",
    "true",
)
_LIBRARY = re.compile(r"(/\S+) \(0x")
_LEFT_OUT = {
    "site-packages", "test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "turtledemo",
    "pydoc_data", "__pycache__", "venv", "distutils",
}  # fmt: skip
_PATH = "PATH=/usr/local/bin:/usr/bin:/bin"


class Images:
    """Makes images in the engine at ``address``, and removes those it made but the base."""

    def __init__(self, address: str = "") -> None:
        """Raises `CannotContain` if there is no engine."""
        self.address = address or engine_address("")
        import docker

        engine = Engine.connect(self.address)
        engine.close()
        self._api: Any = docker.APIClient(base_url=self.address, version="auto", timeout=120)
        components = self._api.version().get("Components") or []
        podman = any("Podman" in str(component.get("Name")) for component in components)
        self._prefix = "localhost/" if podman else ""  # as each calls what it builds
        self._made: list[str] = []
        self._base = ""

    @property
    def api(self) -> Any:
        """The SDK's low-level client, to look at the engine with."""
        return self._api

    def base(self) -> str:
        """The base's name; it is made if the engine does not have it."""
        if self._base:
            return self._base
        contents = list(_contents())
        digest = hashlib.sha256()
        for source, target in contents:
            found = source.stat()
            digest.update(f"{target} {found.st_size} {found.st_mtime_ns}\n".encode())
        tag = digest.hexdigest()[:16]
        repository = f"{self._prefix}{REPOSITORY}"
        name = f"{repository}:{tag}"
        with Path(tempfile.gettempdir(), f"{REPOSITORY}-{os.getuid()}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run at the same time make it once
            if not self._has(name):
                self._make_base(contents, repository, tag)
        self._base = name
        return name

    def _make_base(self, contents: Sequence[tuple[Path, str]], repository: str, tag: str) -> None:
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                _pack(contents, archive)
            file.seek(0)
            reply = self._api.import_image_from_data(file, changes=[f"ENV {_PATH}"])
        # Engines differ in what they make of names while importing.
        made = json.loads(reply.strip().splitlines()[-1])["status"]
        self._api.tag(made, repository, tag)

    def make(
        self,
        files: Mapping[str, str] | None = None,
        *,
        name: str = "",
        changes: Sequence[str] = (),
        mode: int = 0o755,
    ) -> str:
        """An image of the base with ``files`` (absolute path to text), changed by lines of a Dockerfile."""
        name = name or f"{REPOSITORY}-{uuid.uuid4().hex[:12]}:1"
        base = self._api.inspect_image(self.base())["Id"]
        container = self._api.create_container(base, command=["true"])["Id"]
        try:
            self._api.put_archive(container, "/", _archive(files or {}, mode))
            repository, _, tag = f"{self._prefix}{name}".rpartition(":")
            self._api.commit(container, repository=repository, tag=tag, changes=list(changes) or None)
        finally:
            self._api.remove_container(container, force=True)
        self._made.append(f"{self._prefix}{name}")
        return name

    def _has(self, name: str) -> bool:
        import docker

        try:
            self._api.inspect_image(name)
        except docker.errors.ImageNotFound:
            return False
        return True

    def close(self) -> None:
        """Remove what was made."""
        for name in self._made:
            with contextlib.suppress(Exception):
                self._api.remove_image(name, force=True)
        self._api.close()


def engine_here() -> str:
    """Why there is no engine that tests could use, or ""."""
    try:
        Engine.connect(engine_address("")).close()
    except CannotContain as error:
        return str(error)
    return ""


def _contents() -> Iterator[tuple[Path, str]]:
    """Files of this machine and where they go."""
    programs = {name: Path(found).resolve() for name in _COMMANDS if (found := shutil.which(name))}
    python = Path(sys.executable).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    standard = Path(sysconfig.get_paths()["stdlib"])
    extensions = sorted((standard / "lib-dynload").glob("*.so"))
    libraries = _libraries([*programs.values(), python, *extensions])
    for name, program in sorted(programs.items()):
        yield program, f"bin/{name}"
    yield python, "usr/bin/python3"
    for library in sorted(libraries):
        yield library, str(library).lstrip("/")
    for path in sorted(standard.rglob("*")):
        inside = path.relative_to(standard)
        if path.is_file() and not _LEFT_OUT & set(inside.parts) and not inside.parts[0].startswith("config-"):
            yield path, f"usr/lib/{version}/{inside}"


def _libraries(programs: Sequence[Path]) -> set[Path]:
    listing = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    return {Path(found) for found in _LIBRARY.findall(listing.stdout)}


def _pack(contents: Sequence[tuple[Path, str]], archive: tarfile.TarFile) -> None:
    for folder in ("tmp", "root", "opt", "etc", "usr", "usr/local", "usr/local/bin", "var", "var/tmp"):
        member = tarfile.TarInfo(folder)
        member.type, member.mode = tarfile.DIRTYPE, 0o1777 if folder.endswith("tmp") else 0o755
        archive.addfile(member)
    _add(archive, "etc/passwd", b"root:x:0:0::/root:/bin/sh\nsomebody:x:1234:1234::/tmp:/bin/sh\n", 0o644)
    _add(archive, "etc/group", b"root:x:0:\nsomebody:x:1234:\n", 0o644)
    for source, target in contents:
        member = archive.gettarinfo(str(source.resolve()), arcname=target)
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode |= 0o444
        if member.islnk():
            member.type, member.size = tarfile.REGTYPE, source.stat().st_size
        with source.open("rb") as file:
            archive.addfile(member, file)


def _archive(files: Mapping[str, str], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            _add(archive, name.lstrip("/"), text.encode(), mode)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))
