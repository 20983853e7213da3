"""The hosts of a training job as its programs know them: their names, and where to reach one another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clary.agent.failure import TaskFailed
from clary.agent.layout import NETWORK_INTERFACE
from clary.agent.runtimes.sandbox import HOSTS
from clary.resources.task import TaskSpec, TrainingWork
from clary.resources.task_folder import TaskFolder

_ALONE = "127.0.0.1"


@dataclass(frozen=True)
class Cluster:
    """``host`` is this task's; ``addresses`` are those of all hosts by name, in the order of the job's."""

    host: str
    addresses: Mapping[str, str]

    @property
    def leader(self) -> bool:
        """Whether this is the host that answers for the job as a whole."""
        return self.host == next(iter(self.addresses))

    @property
    def peers(self) -> list[str]:
        """The other hosts."""
        return [host for host in self.addresses if host != self.host]

    @property
    def network_interface(self) -> str:
        """The interface over which a program of this machine reaches its peers, or else the world."""
        there = not self.peers and Path("/sys/class/net", NETWORK_INTERFACE).exists()
        return NETWORK_INTERFACE if there else "lo"

    def environment(self) -> dict[str, str]:
        """What tells a program of its peers where names do not resolve: outside a sandbox."""
        if not self.peers:
            return {}
        return {"CLARY_CLUSTER_ADDRESSES": json.dumps(dict(self.addresses))}

    def write_hosts(self, folder: Path) -> None:
        """Write the ``/etc/hosts`` of this host's program: the machine's own, and the cluster."""
        try:
            machine = Path("/etc/hosts").read_text(encoding="utf-8", errors="replace").rstrip("\n")
        except FileNotFoundError:
            machine = "127.0.0.1 localhost"
        lines = [f"{address} {host}" for host, address in self.addresses.items()]
        path = folder / HOSTS
        path.write_text("\n".join([machine, *lines, ""]), encoding="utf-8")
        path.chmod(0o644)


def cluster_of(spec: TaskSpec, work: TrainingWork, folder: TaskFolder) -> Cluster:
    """The cluster that the driver placed this task in. Raises `TaskFailed` if it did not say where it is."""
    if not spec.gang:
        return Cluster(work.host, {work.host: _ALONE})
    found = folder.read_addresses()
    try:
        return Cluster(
            work.host, {host: found[task] for host, task in zip(work.hosts, spec.gang, strict=True)}
        )
    except (KeyError, ValueError) as error:
        raise TaskFailed(
            f"InternalServerError: the addresses of the cluster's hosts are not known ({error!r})."
        ) from error
