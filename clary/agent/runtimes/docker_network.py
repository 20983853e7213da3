"""Networks of containers: the engine's own for one host, a private one for the hosts of a cluster.

The addresses of a cluster's hosts are settled before any of them runs, so that ``algo-1…n`` resolve to one
another from the first moment, whoever starts first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clary.agent.runtimes.container import CannotContain, ContainerProgram
from clary.resources.container_record import records_folder

_POOL = ipaddress.ip_network("10.192.0.0/10")
_PREFIX_LENGTH = 24
_MOST_TRIES = 64
MOST_HOSTS = 200
_FIRST_HOST = 2  # the gateway is 1
_DEFAULT_NETWORK = "bridge"  # Podman's answers to that as well


class JobNetwork:
    """The network of one cluster. Made by its first host, removed by its last."""

    def __init__(self, api: Any, cluster: str, tasks: Path, *, labels: Mapping[str, str]) -> None:
        self._api = api
        self.name = f"clary-{cluster}"
        self._folder = records_folder(tasks)
        self._labels = dict(labels)
        self._subnet: ipaddress.IPv4Network | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """While this is held, no other host of this machine makes or removes a network."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def ensure(self, hosts: int, *, internal: bool) -> None:
        """Make the network, or find it. Hold `locked` until the host has started. Raises `CannotContain`."""
        import docker

        if hosts > MOST_HOSTS:
            raise CannotContain(f"a cluster of containers has at most {MOST_HOSTS} hosts here, not {hosts}.")
        for found in self._api.networks(names=[self.name]):
            if found["Name"] == self.name:
                self._subnet = ipaddress.IPv4Network(found["IPAM"]["Config"][0]["Subnet"])
                return
        refusal: Exception | None = None
        for subnet in _subnets(self.name):
            pool = docker.types.IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))
            try:
                self._api.create_network(
                    self.name,
                    driver="bridge",
                    ipam=docker.types.IPAMConfig(pool_configs=[pool]),
                    internal=internal,
                    labels=self._labels,
                    check_duplicate=True,
                    # Isolated hosts must not reach what listens on this machine either.
                    options={"com.docker.network.bridge.inhibit_ipv4": "true"} if internal else None,
                )
            except docker.errors.APIError as error:
                refusal = error  # mostly an overlap with another network: the next one may do
            else:
                self._subnet = subnet
                return
        raise CannotContain(
            f"the engine made no network for the cluster: {refusal}. Remove networks that nobody uses: "
            "docker network prune."
        )

    @property
    def gateway(self) -> str:
        return str(self._given()[1])

    def addresses(self, hosts: Sequence[str]) -> dict[str, str]:
        """The address of every host."""
        return {host: str(self._given()[_FIRST_HOST + at]) for at, host in enumerate(hosts)}

    def addresses_json(self, hosts: Sequence[str]) -> str:
        return json.dumps(self.addresses(hosts))

    def endpoint(self, api: Any, program: ContainerProgram) -> Any:
        """The program's place in the network."""
        address = self.addresses(program.hosts)[program.host]
        return api.create_networking_config({self.name: api.create_endpoint_config(ipv4_address=address)})

    def remove_unused(self) -> None:
        """Remove the network, unless it is gone or a host is still in it."""
        import docker

        if not self._folder.is_dir():
            return
        with self.locked():
            for found in self._api.networks(names=[self.name]):
                if found["Name"] != self.name:
                    continue
                try:
                    self._api.remove_network(found["Id"])
                except docker.errors.NotFound:
                    pass
                except docker.errors.APIError:
                    if not self._api.inspect_network(found["Id"]).get("Containers"):
                        raise

    def _given(self) -> ipaddress.IPv4Network:
        assert self._subnet is not None, "ensure comes first"
        return self._subnet


def network_mode(network: bool) -> str:
    """The mode for a single host."""
    return _DEFAULT_NETWORK if network else "none"


def default_gateway(api: Any) -> str:
    """This machine's address as a container of the engine's own network sees it; "" if it cannot be told."""
    import docker

    try:
        found = api.inspect_network(_DEFAULT_NETWORK)
    except docker.errors.NotFound:
        return ""
    for pool in found.get("IPAM", {}).get("Config") or []:
        if pool.get("Gateway"):
            return str(pool["Gateway"])
        if pool.get("Subnet"):
            return str(ipaddress.ip_network(pool["Subnet"])[1])
    return ""


def _subnets(name: str) -> Iterator[ipaddress.IPv4Network]:
    """Candidates for a network's addresses, those left out that this machine routes elsewhere."""
    count = 2 ** (_PREFIX_LENGTH - _POOL.prefixlen)
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    routes = _routes()
    for step in range(_MOST_TRIES):
        at = (start + step * 97) % count
        subnet = ipaddress.IPv4Network((int(_POOL[0]) + at * 2 ** (32 - _PREFIX_LENGTH), _PREFIX_LENGTH))
        if not any(subnet.overlaps(route) for route in routes):
            yield subnet


def _routes() -> list[ipaddress.IPv4Network]:
    """Where this machine's routes lead, the default one left out."""
    found = []
    try:
        lines = Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    for line in lines:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[at])[::-1], "big") for at in (1, 7))
        if mask:
            found.append(ipaddress.IPv4Network((address & mask, mask.bit_count())))
    return found
