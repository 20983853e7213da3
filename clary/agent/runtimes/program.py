"""What a runtime is asked to run: a Python module's ``main``, in the container contract's surroundings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from clary.agent.runtimes.mounts import Mount, mount_from_json

MOST_OPEN_FILES = 65_536  # of one process


@dataclass(frozen=True)
class Program:
    """A program of ours in a sandbox of its own.

    It runs as ``sys.exit(MODULE.main(list(arguments)))``, where ``main`` gives an exit code or ``None``, in a
    fork or, if the job has an environment of its own (see `environments`), in that one's interpreter.
    ``environment`` is all the program's environment but for the few variables that every program needs
    (``PATH``, ``HOME``, ``TMPDIR`` ...).

    ``task_id`` names the task whose ``ml`` folder becomes ``/opt/ml``. ``socket_directory`` is the name
    of the folder for a server's socket, empty for a program that needs none.
    """

    task_id: str
    module: str
    directory: str  # where it starts, as it sees it
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    network: bool = True
    threads: int = 0  # for numerical libraries; 0: as many as there are processors
    socket_directory: str = ""
    python_environment: str = ""  # name of an environment below DATA/environments; "" is Clary's own
    environment_writable: bool = False  # while it is being built, in a sandbox made for that alone
    read_only_paths: tuple[str, ...] = ()  # what else of the machine it sees, in its own sandbox
    run_with_own_python: bool = False  # execute the environment's interpreter instead of forking
    cluster: str = ""  # programs of one share a network of their own where ``network`` is denied them
    host_name: str = ""  # of its machine; the file `sandbox.HOSTS` has addresses for it and its peers
    mounts: tuple[Mount, ...] = ()  # directories beside its ``ml`` folder
    own_channels: tuple[str, ...] = ()  # channels whose files it may change
    cgroup: str = ""  # a control group's name, below each of the folders whose descriptors come with this
    processors: tuple[int, ...] = ()  # those it may run on; none: all
    largest_file_bytes: int = 0  # that it may write; 0: no limit, as with the next two
    most_processes: int = 0  # threads count; only where no control group limits them
    shared_memory_bytes: int = 0  # size of its /dev/shm

    def to_json(self) -> dict[str, Any]:
        mounts = [asdict(mount) for mount in self.mounts]
        return {**self.__dict__, "environment": dict(self.environment), "mounts": mounts}


def program_from_json(document: Mapping[str, Any]) -> Program:
    """Inverse of `Program.to_json`. Raises ``TypeError`` on a document of another form."""
    arguments, mounts = tuple(document["arguments"]), tuple(map(mount_from_json, document["mounts"]))
    lists = {"arguments": arguments, "mounts": mounts, "processors": tuple(document["processors"])}
    lists["own_channels"] = tuple(document["own_channels"])
    return Program(**{**document, **lists, "read_only_paths": ()})
