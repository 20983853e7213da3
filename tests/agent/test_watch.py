"""Processors are shared out, and limits are told, before and after something goes wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clary.agent.limits import GIB, TaskLimits, task_limits
from clary.agent.runtimes.program import Program
from clary.agent.surroundings import AgentSettings
from clary.agent.watch import Confinement
from clary.testing.agent_world import AgentWorld, training_spec


def settings(tmp_path: Path, cpu_count: int = 4, memory_bytes: int = 0) -> AgentSettings:
    return AgentSettings(
        tasks=str(tmp_path / "tasks"),
        environments=str(tmp_path / "environments"),
        sockets=str(tmp_path / "run/sockets"),
        fork_server="",
        driver_socket="",
        fencing="none",
        cpu_count=cpu_count,
        memory_bytes=memory_bytes,
        cgroups=False,
    )


def limits(cpu_count: float) -> TaskLimits:
    return TaskLimits("ml.m5.large", cpu_count, GIB, cpu_count, GIB, 0, 100)


@pytest.fixture
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})


@pytest.mark.usefixtures("four_processors")
def test_tasks_get_processors_of_their_own_while_there_are_enough(tmp_path: Path) -> None:
    two, one, last = (Confinement(limits(count), settings(tmp_path)) for count in (2, 0.5, 1))
    taken = [confined_to(each, tmp_path) for each in (two, one, last)]
    assert [len(each) for each in taken] == [2, 1, 1]
    assert sorted(processor for each in taken for processor in each) == [0, 1, 2, 3]
    with Confinement(limits(2), settings(tmp_path)) as crowded:
        assert len(set(confined_to(crowded, tmp_path))) == 2
    one.close()
    with Confinement(limits(1), settings(tmp_path)) as next_one:
        assert confined_to(next_one, tmp_path) == taken[1]
    two.close()
    last.close()


@pytest.mark.usefixtures("four_processors")
def test_a_task_that_may_use_all_processors_is_bound_to_none(tmp_path: Path) -> None:
    with Confinement(limits(4), settings(tmp_path)) as whole:
        assert confined_to(whole, tmp_path) == ()


def confined_to(confinement: Confinement, tmp_path: Path) -> tuple[int, ...]:
    return confinement.confined(Program("task", "module", str(tmp_path))).processors


def test_limits_are_those_of_the_instance_type_clamped_to_the_machine(tmp_path: Path) -> None:
    spec = training_spec(
        AgentWorld(),
        "task",
        cpu_count=8,
        ResourceConfig={"InstanceType": "ml.m5.2xlarge", "VolumeSizeInGB": 7},
    )
    found = task_limits(spec, settings(tmp_path, cpu_count=2, memory_bytes=GIB // 2))
    assert (found.cpu_count, found.memory_bytes, found.volume_bytes) == (2.0, GIB // 2, 7 * GIB)
    assert found.remarks() == ["ml.m5.large has 8 processors and 1 GiB; this machine gives 2 and 512 MiB."]
    assert found.memory_holder == "this machine gives ml.m5.large 512 MiB"
    roomy = task_limits(spec, settings(tmp_path, cpu_count=96, memory_bytes=64 * GIB))
    assert (roomy.remarks(), roomy.memory_holder) == ([], "ml.m5.large has 1 GiB")


@pytest.mark.parametrize("volume", [None, 0, "30", -1])
def test_a_job_without_a_volume_is_bound_by_the_disk_alone(tmp_path: Path, volume: object) -> None:
    spec = training_spec(AgentWorld(), "task", ResourceConfig={"VolumeSizeInGB": volume})
    assert task_limits(spec, settings(tmp_path)).volume_bytes == 0
