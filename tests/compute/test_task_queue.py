"""Who starts next on a machine that is full, and what those who wait are told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.compute.local.addresses import MOST_HOSTS, cluster_addresses
from clary.compute.local.queue import TaskQueue
from clary.resources.task import Connection, ServingWork, TaskSpec, TrainingWork

GIB = 1024**3
NOWHERE = Connection("http://127.0.0.1:1", "us-east-1", "", "")


def task(
    name: str,
    cpus: float = 1,
    gib: int = 1,
    *,
    gang: Sequence[str] = (),
    room_of: str = "",
    serving: bool = False,
) -> TaskSpec:
    work: TrainingWork | ServingWork = TrainingWork(
        f"job-{name}", "arn", {}, "algo-1", ("algo-1",), "ml.m5.large", "group", "g", "s", 60.0
    )
    if serving:
        work = ServingWork("e", "v", {}, "ml.m5.large", "g", "s", 1.0, 1.0)
    return TaskSpec(name, "", work, NOWHERE, cpus, gib * GIB, 0, 1.0, tuple(gang), room_of=room_of)


def queue(*waiting: TaskSpec, cpus: float = 4, gib: int = 8, admitted: Sequence[str] = ()) -> TaskQueue:
    made = TaskQueue(cpus, gib * GIB)
    for spec in waiting:
        made.add(spec, admitted=spec.id in admitted)
    return made


def started(of: TaskQueue, *running: TaskSpec) -> list[list[str]]:
    """The groups that start one after the other beside ``running``, none of which ends."""
    groups: list[list[str]] = []
    holders = list(running)
    while group := of.next(holders):
        groups.append([spec.id for spec in group])
        holders += group
    return groups


def test_tasks_start_in_order_while_there_is_room() -> None:
    assert started(queue(task("a", 2), task("b", 2), task("c", 1))) == [["a"], ["b"]]


def test_a_small_task_does_not_pass_a_large_one_that_waits() -> None:
    waiting = queue(task("large", 4), task("small", 1))
    assert started(waiting, task("other", 1)) == []


def test_memory_counts_as_processors_do() -> None:
    assert started(queue(task("a", 1, 6), task("b", 1, 6))) == [["a"]]


def test_a_task_larger_than_the_machine_has_it_for_itself() -> None:
    assert started(queue(task("huge", 64, 256))) == [["huge"]]
    assert started(queue(task("huge", 64, 256)), task("other")) == []
    assert started(queue(task("next")), task("huge", 64, 256)) == []


def test_a_cluster_starts_whole_or_not_at_all() -> None:
    gang = ("a", "b", "c")
    members = [task(name, 1, gang=gang) for name in gang]
    assert started(queue(*members)) == [["a", "b", "c"]]
    assert started(queue(*members), task("other", 2)) == []
    assert started(queue(*members[:2])) == []  # the third is about to be ordered


def test_a_cluster_that_is_not_whole_yet_does_not_hold_others_up() -> None:
    assert started(queue(task("a", gang=("a", "b")), task("c"))) == [["c"]]


def test_the_rest_of_a_cluster_that_runs_follows_at_once() -> None:
    waiting = queue(task("x", 4), task("b", 4, gang=("a", "b")), admitted=["b"])
    assert started(waiting, task("a", 4, gang=("a", "b"))) == [["b"]]


def test_servers_wait_for_nobody_and_nobody_waits_for_them() -> None:
    waiting = queue(task("large", 4), task("server", 64, serving=True))
    assert started(waiting, task("other", 1)) == [["server"]]
    assert started(queue(task("a", 4)), task("server", 64, serving=True)) == [["a"]]


def test_a_job_of_a_warm_pool_uses_its_room() -> None:
    pool = task("pool", 4)
    assert started(queue(task("stranger", 4)), pool) == []
    assert started(queue(task("heir", 4, room_of="pool")), pool) == [["heir"]]


def test_a_task_is_told_what_it_waits_for() -> None:
    waiting = queue(task("a", 2, 2), task("b", 1, 1), task("c", 1, 1))
    told = {spec.id: words for spec, words in waiting.explanations([task("x", 3, 4)])}
    room = "Waiting for {} of this machine's 4 processors and {} GiB of its 8 GiB of memory, in use by job-x"
    assert told == {
        "a": room.format(2, 2),
        "b": room.format(1, 1) + "; 1 job is ahead",
        "c": room.format(1, 1) + "; 2 jobs are ahead",
    }


def test_only_some_of_many_jobs_are_named() -> None:
    many = [task(str(number)) for number in range(6)]
    (_, words), *_ = queue(task("a")).explanations(many)
    assert words.endswith("in use by job-0, job-1, job-2 and 3 more")


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 10), st.integers(1, 4), st.booleans()), max_size=12)
)
def test_everybody_starts_in_the_end_and_no_more_run_than_fit(
    orders: list[tuple[int, int, int, bool]],
) -> None:
    specs: list[TaskSpec] = []
    for number, (cpus, gib, hosts, serving) in enumerate(orders):
        gang = tuple(f"{number}-{host}" for host in range(hosts)) if hosts > 1 and not serving else ()
        for name in gang or (f"{number}-0",):
            specs.append(task(name, cpus, gib, gang=gang, serving=serving))
    waiting = queue(*specs)
    begun: list[str] = []
    running: list[list[TaskSpec]] = []
    while waiting:
        while group := waiting.next([spec for each in running for spec in each]):
            running.append(group)
            begun += [spec.id for spec in group]
            training = [each for each in running if isinstance(each[0].work, TrainingWork)]
            if len(training) > 1:
                assert sum(min(spec.cpu_count, 4) for each in training for spec in each) <= 4
        assert running, "nothing runs and nothing starts"
        running.pop(0)
    assert sorted(begun) == sorted(spec.id for spec in specs)
    training_order = [name for name in begun if not orders[int(name.split("-")[0])][3]]
    assert training_order == sorted(training_order, key=lambda name: tuple(map(int, name.split("-"))))


def test_the_hosts_of_a_cluster_get_addresses_that_no_other_has() -> None:
    one = cluster_addresses(("a", "b"), [])
    assert list(one) == ["a", "b"] and len(set(one.values())) == 2
    assert all(address.startswith("127.") and not address.startswith("127.0.") for address in one.values())
    assert cluster_addresses(("a", "b"), []) == one
    two = cluster_addresses(("a", "b"), one.values())
    assert not set(two.values()) & set(one.values())


def test_a_cluster_larger_than_a_network_is_refused() -> None:
    with pytest.raises(ValueError, match="may have 254 hosts, not 255"):
        cluster_addresses([str(n) for n in range(MOST_HOSTS + 1)], [])
