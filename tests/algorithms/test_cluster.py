"""The connections among a job's hosts: what they tell one another, whom they let in, and how a loss is told.

The hosts are threads of the test, each with its own end of the connections.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clary.algorithms import cluster as clusters
from clary.algorithms.cluster import PORT, Cluster, Told
from clary.algorithms.faults import ClientError, HostLost, NothingTrained
from clary.algorithms.job import Job

PATIENCE_SECONDS = 30


class Hosts:
    """A `Cluster` for each of several hosts, and what their ``end`` was called with."""

    def __init__(self, base: Path, addresses: dict[str, str]) -> None:
        names = list(addresses)
        self.ended: list[str] = []
        self.addresses = addresses
        self.jobs = {name: Job(base / name, {}, hosts=names, current_host=name, name="job") for name in names}
        self.clusters = {name: Cluster(job, self.ended.append) for name, job in self.jobs.items()}

    def each(self, call: Callable[[Cluster], Any], *names: str) -> dict[str, Any]:
        """What ``call`` gives, or raises, on each host, all at once."""
        found: dict[str, Any] = {}

        def run(name: str) -> None:
            try:
                found[name] = call(self.clusters[name])
            except Exception as error:  # noqa: BLE001 - the test looks at it
                found[name] = error

        threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in names or self.clusters]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
        return found

    def leave(self) -> None:
        self.each(lambda cluster: cluster.leave())


@pytest.fixture
def hosts(
    tmp_path: Path, free_loopback: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Hosts]]:
    made: list[Hosts] = []

    def make(count: int, *, join: bool = True) -> Hosts:
        addresses = dict(zip((f"algo-{n}" for n in range(1, count + 1)), free_loopback(count), strict=True))
        monkeypatch.setenv("CLARY_CLUSTER_ADDRESSES", json.dumps(addresses))
        made.append(Hosts(tmp_path, addresses))
        if join:
            assert made[-1].each(lambda cluster: cluster.join()) == dict.fromkeys(addresses)
        return made[-1]

    yield make
    for each in made:
        each.leave()


def test_every_host_learns_what_each_told_in_the_order_of_hosts(hosts: Callable[..., Hosts]) -> None:
    found = hosts(11)
    for step in range(3):
        told = found.each(lambda c, step=step: c.gather({"from": c.host, "step": step}, c.host.encode()))
        wanted = [
            Told({"from": f"algo-{number}", "step": step}, f"algo-{number}".encode())
            for number in range(1, 12)  # algo-10 comes after algo-9
        ]
        assert all(each == wanted for each in told.values())


def test_a_large_payload_arrives_whole(hosts: Callable[..., Hosts]) -> None:
    found = hosts(2)
    model = bytes(range(256)) * 40_000
    told = found.each(lambda c: c.gather({}, model if c.is_first else b""))
    assert told["algo-2"][0].payload == model and told["algo-1"][1].payload == b""


def test_one_host_needs_no_network(tmp_path: Path) -> None:
    cluster = Cluster(Job(tmp_path, {}), pytest.fail)
    cluster.join()
    assert cluster.gather({"a": 1}, b"x") == [Told({"a": 1}, b"x")]
    cluster.leave()


def test_a_host_that_is_none_of_the_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="names the hosts algo-1, algo-2, not algo-3"):
        Cluster(Job(tmp_path, {}, hosts=["algo-2", "algo-1"], current_host="algo-3"), pytest.fail)


def test_a_host_that_fails_is_named_to_all_with_its_reason(hosts: Callable[..., Hosts]) -> None:
    found = hosts(3)
    found.clusters["algo-3"].leave("ClientError: train/a.csv, line 2: no number")
    told = found.each(lambda c: c.gather({}), "algo-1", "algo-2")
    for fault in told.values():
        assert isinstance(fault, HostLost)
        assert str(fault) == "ClientError: algo-3: train/a.csv, line 2: no number"


def test_a_host_that_vanishes_is_named_to_all(hosts: Callable[..., Hosts]) -> None:
    found = hosts(3)
    found.clusters["algo-2"]._peers["algo-1"].connection.shutdown(socket.SHUT_RDWR)
    told = found.each(lambda c: c.gather({}), "algo-1", "algo-3")
    for fault in told.values():
        assert str(fault) == "AlgorithmError: algo-2: the host ended in the middle of the training"


def test_what_a_library_says_of_a_loss_is_explained(hosts: Callable[..., Hosts]) -> None:
    found = hosts(2)
    found.clusters["algo-2"].leave("AlgorithmError: MemoryError: ")
    with pytest.raises(HostLost, match="AlgorithmError: algo-2: MemoryError"):
        found.clusters["algo-1"].explain(RuntimeError("Ring allreduce failed"))


def test_a_program_that_is_stuck_is_ended_after_a_loss(
    hosts: Callable[..., Hosts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "LONGEST_END_SECONDS", 0.1)
    found = hosts(2)
    found.clusters["algo-1"].leave("AlgorithmError: KeyError: 'x'")
    until = time.monotonic() + PATIENCE_SECONDS
    while not found.ended and time.monotonic() < until:
        time.sleep(0.02)
    assert found.ended == ["AlgorithmError: algo-1: KeyError: 'x'"]


def test_a_host_told_to_stop_ends_the_others_without_a_fault(hosts: Callable[..., Hosts]) -> None:
    found = hosts(3)
    found.jobs["algo-2"].stop_requested = True

    def gather(cluster: Cluster) -> None:
        try:
            for _ in range(2):  # what a host told before it was told to stop may still go round
                cluster.gather({})
        except NothingTrained:
            cluster.leave("it was told to stop", stopped=True)
            raise

    told = found.each(gather)
    assert all(isinstance(fault, NothingTrained) for fault in told.values())


def test_what_there_is_to_keep_is_handed_over_though_told_to_stop(hosts: Callable[..., Hosts]) -> None:
    found = hosts(2)
    for job in found.jobs.values():
        job.stop_requested = True
    told = found.each(lambda c: c.gather({}, b"model" if not c.is_first else b"", stops=False))
    assert told["algo-1"][1].payload == b"model"


def test_those_that_come_late_learn_why_there_is_nothing_to_come_to(hosts: Callable[..., Hosts]) -> None:
    found = hosts(3, join=False)

    def first(cluster: Cluster) -> None:
        try:
            cluster.join()
        except HostLost as error:
            cluster.leave(str(error))
            raise

    def second(cluster: Cluster) -> None:
        cluster.join()
        cluster.leave("ClientError: bad rows")

    def third(cluster: Cluster) -> None:
        time.sleep(1)
        cluster.join()
        cluster.gather({})

    parts = {"algo-1": first, "algo-2": second, "algo-3": third}
    told = found.each(lambda c: parts[c.host](c))
    assert told["algo-2"] is None
    assert str(told["algo-1"]) == str(told["algo-3"]) == "ClientError: algo-2: bad rows"


def test_waiting_for_hosts_has_a_limit_that_names_them(
    hosts: Callable[..., Hosts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "LONGEST_JOIN_SECONDS", 0.2)
    monkeypatch.setattr(clusters, "_LOOK_SECONDS", 0.05)
    found = hosts(3, join=False)
    told = found.each(lambda c: c.join(), "algo-1", "algo-3")
    assert "AlgorithmError: algo-2: no answer within" in str(told["algo-1"])
    alone = hosts(2, join=False).each(lambda c: c.join(), "algo-2")
    assert "AlgorithmError: algo-1: it did not answer within" in str(alone["algo-2"])


def test_a_host_told_to_stop_while_it_waits_for_others_stops(hosts: Callable[..., Hosts]) -> None:
    found = hosts(2, join=False)
    for name in ("algo-2", "algo-1"):
        found.jobs[name].stop_requested = True
        assert isinstance(found.each(lambda c: c.join(), name)[name], NothingTrained)


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
        struct.pack("!IQ", 1 << 31, 0),
        struct.pack("!IQ", 2, 1 << 60) + b"{}",
        struct.pack("!IQ", 5, 0) + b"[1,2]",
        struct.pack("!IQ", 3, 0) + b"\xff\xfe{",
        *(
            struct.pack("!IQ", len(text), 0) + text
            for text in (
                b'{"kind":"hello","host":"algo-2","job":"another"}',
                b'{"kind":"hello","host":"algo-9","job":"job"}',
                b'{"kind":"hello","host":"algo-1","job":"job"}',
            )
        ),
    ],
)
def test_strangers_are_not_let_in(hosts: Callable[..., Hosts], greeting: bytes) -> None:
    found = hosts(2, join=False)
    joining = threading.Thread(target=found.clusters["algo-1"].join, daemon=True)
    joining.start()
    address = (found.addresses["algo-1"], PORT)
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            stranger = socket.create_connection(address, timeout=PATIENCE_SECONDS)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < until
            time.sleep(0.02)
    with stranger:
        with contextlib.suppress(OSError):  # it may be closed at any point
            stranger.sendall(greeting)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(1) == b""
        found.clusters["algo-2"].join()
        joining.join(PATIENCE_SECONDS)
        told = found.each(lambda c: c.gather({"host": c.host}))
    assert [each.document["host"] for each in told["algo-1"]] == ["algo-1", "algo-2"]
