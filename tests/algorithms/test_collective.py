"""Hosts that add up and hand round arrays: all get the same, in the order of hosts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import pytest

from clary.algorithms import collective
from clary.algorithms.cluster import Cluster, joined
from clary.algorithms.collective import Collective
from clary.algorithms.job import Job


def fail(message: str) -> None:
    raise AssertionError(message)


def on_each(cluster: Any, count: int, monkeypatch: Any, work: Callable[[Collective], Any]) -> Sequence[Any]:
    """What ``work`` gives on each of the hosts, which are threads here."""
    folders = cluster(count)
    monkeypatch.setenv("CLARY_CLUSTER_ADDRESSES", folders.first.environment["CLARY_CLUSTER_ADDRESSES"])
    names = list(json.loads(folders.first.environment["CLARY_CLUSTER_ADDRESSES"]))
    found: list[Any] = [None] * count

    def run(number: int) -> None:
        job = Job(folders.hosts[number].base, {}, hosts=names, current_host=names[number])
        with joined(job) as together:
            found[number] = work(Collective(together))

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_a_host_alone_gets_what_it_gave(tmp_path: Any) -> None:
    alone = Collective(Cluster(Job(tmp_path, {}), fail))
    rows = numpy.arange(6.0).reshape(2, 3)
    assert alone.total(rows) is rows and alone.everyones(rows)[0] is rows
    assert alone.any(True) and not alone.any(False)


@pytest.mark.parametrize("count", [2, 3])
def test_arrays_of_several_pieces_are_added_up(cluster: Any, monkeypatch: Any, count: int) -> None:
    monkeypatch.setattr(collective, "PIECE_BYTES", 64)
    parts = numpy.random.default_rng(1).standard_normal((count, 7, 5))
    totals = on_each(cluster, count, monkeypatch, lambda hosts: hosts.total(parts[hosts.rank]))
    expected = parts[0].copy()
    for part in parts[1:]:
        expected += part
    assert all((total == expected).all() for total in totals)


def test_rows_of_different_number_are_handed_round(cluster: Any, monkeypatch: Any) -> None:
    def work(hosts: Collective) -> Any:
        return [each.shape for each in hosts.everyones(numpy.zeros((hosts.rank * 2, 4), numpy.float32))]

    assert on_each(cluster, 3, monkeypatch, work) == [[(0, 4), (2, 4), (4, 4)]] * 3


def test_one_hosts_yes_is_everyones(cluster: Any, monkeypatch: Any) -> None:
    work = lambda hosts: (hosts.any(hosts.rank == 1), [said["n"] for said in hosts.said({"n": hosts.rank})])  # noqa: E731
    assert on_each(cluster, 2, monkeypatch, work) == [(True, [0, 1])] * 2
