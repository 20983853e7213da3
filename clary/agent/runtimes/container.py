"""What an engine of containers is asked to run, and where engines are found. Knows no SDK.

Containers are recorded in ``DATA/containers`` before they are made (`clary.resources.container_record`), so
that whoever comes after an agent that was killed knows what to look for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clary.agent.runtimes.mounts import Mount

_DOCKER_SOCKETS = ("/var/run/docker.sock", "~/.docker/run/docker.sock")
_PODMAN_SOCKETS = ("/run/podman/podman.sock",)
_ECR = re.compile(r"\d+\.dkr\.ecr(?:-fips)?\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/(?P<rest>.+)\Z")
_NAME = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?/)?"  # registry
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,128})?\Z",
    re.ASCII,
)
_LONGEST_NAME = 512


class CannotContain(Exception):
    """A container cannot be run; the message is fit for a FailureReason: the cause and the remedy.

    ``callers`` says whether it is for the caller to mend, and not for who operates Clary.
    """

    def __init__(self, message: str, *, callers: bool = False) -> None:
        super().__init__(message)
        self.callers = callers


@dataclass(frozen=True)
class ContainerLimits:
    """What a container may use. ``gpu_count`` 0: it sees none."""

    cpu_count: float
    memory_bytes: int
    gpu_count: int
    processes: int  # threads count

    @property
    def shared_memory_bytes(self) -> int:
        """The size of ``/dev/shm``: as the kernel has it for a machine."""
        return self.memory_bytes // 2


@dataclass(frozen=True)
class ContainerProgram:
    """One container of a task. ``ml`` on this machine becomes ``/opt/ml``; ``mounts`` lie below it.

    Without an ``entrypoint`` the image's own counts. ``hosts`` are all the hosts of its cluster, ``host``
    among them, in an order that is the same for all; ``cluster`` names the cluster on this machine. Without
    ``network`` nothing but its cluster is reached.
    """

    task_id: str
    image: str  # as the caller wrote it
    image_id: str  # what the engine knows it by
    ml: Path
    limits: ContainerLimits
    host: str
    hosts: tuple[str, ...]
    cluster: str
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    network: bool = True


def engine_address(setting: str, environment: Mapping[str, str] = os.environ) -> str:
    """Where the engine is: the setting ``docker_host``, ``DOCKER_HOST``, or the first socket that is there.

    Without any it is where Docker's would be, so that the failure names that.
    """
    if setting or environment.get("DOCKER_HOST"):
        return setting or environment["DOCKER_HOST"]
    runtime = environment.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    places = [*_DOCKER_SOCKETS, f"{runtime}/docker.sock", *_PODMAN_SOCKETS, f"{runtime}/podman/podman.sock"]
    for place in places:
        path = Path(place).expanduser()
        if path.is_socket():
            return f"unix://{path}"
    return f"unix://{_DOCKER_SOCKETS[0]}"


def check_name(image: str) -> None:
    """Raises `CannotContain` for what no image can be called; nothing else may reach an engine as a name."""
    if len(image) > _LONGEST_NAME or not _NAME.match(image):
        raise CannotContain(
            f"{image!r} cannot be the name of an image: a repository in lower case, perhaps with a registry "
            "before it and a tag or digest behind (registry.example/team/algo:1), is expected.",
            callers=True,
        )


def has_registry(image: str) -> bool:
    """Whether the name says which registry it is from."""
    first, slash, _ = image.partition("/")
    return bool(slash) and (first == "localhost" or "." in first or ":" in first)


def local_names(image: str) -> Sequence[str]:
    """The names under which the engine may have ``image``, the best first.

    One of ECR's names means the image as such, the repository of that name, and its last component: what
    was built here as ``algo:1`` serves for ``123456789012.dkr.ecr.us-east-1.amazonaws.com/team/algo:1``.
    """
    names = [image]
    match = _ECR.match(image)
    if match and "@" not in image:
        names += [match["rest"], match["rest"].rpartition("/")[2]]
    return list(dict.fromkeys(names))
