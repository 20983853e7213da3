"""The record of a task's container: a file in ``DATA/containers``, there from before the container is made
until after it is gone, so that whatever dies nothing is left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from clary.resources.task_folder import read_document, write_document

PULL_POLICIES = ("missing", "always", "never")  # when images are fetched from their registries
CLEAN_UP_MODULE = "clary.agent.runtimes.docker_clean_up"
_SUFFIX = ".json"
_MEMBERS = {"task_id", "engine", "image_id", "cluster"}


@dataclass(frozen=True)
class ContainerRecord:
    """``engine`` is its address, ``image_id`` what runs in it; ``cluster`` names its network, if any."""

    task_id: str
    engine: str
    image_id: str
    cluster: str

    def write(self, tasks: Path) -> None:
        folder = records_folder(tasks)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_document(folder / (self.task_id + _SUFFIX), asdict(self))

    def forget(self, tasks: Path) -> None:
        (records_folder(tasks) / (self.task_id + _SUFFIX)).unlink(missing_ok=True)


def records_folder(tasks: Path) -> Path:
    """Where the records for the tasks in the folder ``tasks`` are."""
    return tasks.parent / "containers"


def has_record(tasks: Path, task_id: str) -> bool:
    """Whether the task has, or may have, a container."""
    return (records_folder(tasks) / (task_id + _SUFFIX)).is_file()


def container_records(tasks: Path) -> Iterator[ContainerRecord]:
    """Every record there is. One that cannot be read is passed over: it never became whole."""
    folder = records_folder(tasks)
    for path in sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else []:
        document = read_document(path)
        if document and document.keys() == _MEMBERS:
            yield ContainerRecord(**{name: str(value) for name, value in document.items()})
