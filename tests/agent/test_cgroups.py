"""Control groups are made only where Clary may, with the limits asked for, and are gone afterwards.

Version 2 is shown on a folder that looks like its file system, since a machine has one version or the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from clary.agent.cgroups import Cgroup, CgroupPlaces, find_places, group_name, surrounding_memory_bytes

MIB = 1024**2
GROUPS = "sys/fs/cgroup"


def machine(root: Path, own: str, mountinfo: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    (root / "proc/self/mountinfo").write_text(mountinfo)
    return root


def group(root: Path, path: str, hands_on: str = "") -> Path:
    folder = root / GROUPS / path.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").touch()
    (folder / "cgroup.subtree_control").write_text(hands_on)
    return folder


def version_2(root: Path, own: str, tree: str = "/") -> Path:
    return machine(root, f"0::{own}\n", f"30 24 0:27 {tree} /{GROUPS} rw,nosuid - cgroup2 cgroup2 rw\n")


def test_the_nearest_group_that_hands_memory_on_is_found(tmp_path: Path) -> None:
    root = version_2(tmp_path, "/user.slice/app.scope")
    group(root, "/", "cpu memory pids")
    wanted = group(root, "/user.slice", "memory pids")
    group(root, "/user.slice/app.scope")
    assert find_places(root) == CgroupPlaces(2, {"memory": wanted, "pids": wanted})


def test_a_container_that_sees_only_its_own_tree_looks_no_higher(tmp_path: Path) -> None:
    root = version_2(tmp_path, "/docker/abc", tree="/docker/abc")
    top = group(root, "/")
    assert find_places(root) is None
    (top / "cgroup.subtree_control").write_text("memory")
    assert find_places(root) == CgroupPlaces(2, {"memory": top})


def test_a_group_that_nobody_can_enter_is_not_used(tmp_path: Path) -> None:
    root = version_2(tmp_path, "/")
    (group(root, "/", "memory") / "cgroup.procs").unlink()
    assert find_places(root) is None


def test_a_machine_without_control_groups_has_none(tmp_path: Path) -> None:
    assert find_places(tmp_path) is None
    assert find_places(machine(tmp_path / "a", "0::/\n", "")) is None
    assert (
        find_places(machine(tmp_path / "b", "", f"30 24 0:27 / /{GROUPS} rw - cgroup2 cgroup2 rw\n")) is None
    )


def test_each_controller_of_version_1_has_a_place_of_its_own(tmp_path: Path) -> None:
    mounts = (
        f"31 24 0:28 / /{GROUPS}/memory rw - cgroup cgroup rw,memory\n"
        f"32 24 0:29 / /{GROUPS}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        f"33 24 0:30 /elsewhere /{GROUPS}/pids rw - cgroup cgroup rw,pids\n"
    )
    root = machine(tmp_path, "3:memory:/jobs\n2:cpu,cpuacct:/\n1:pids:/\n", mounts)
    memory, cpu = group(root, "memory/jobs"), group(root, "cpu")
    group(root, "pids")
    assert find_places(root) == CgroupPlaces(1, {"memory": memory, "cpu": cpu})


def test_a_container_leaves_its_tasks_what_it_has_itself(tmp_path: Path) -> None:
    assert surrounding_memory_bytes(tmp_path) == 0
    root = version_2(tmp_path / "two", "/outer/inner")
    (group(root, "/outer") / "memory.max").write_text(f"{5 * MIB}\n")
    (group(root, "/outer/inner") / "memory.max").write_text("max\n")
    assert surrounding_memory_bytes(root) == 5 * MIB
    mounts = f"31 24 0:28 / /{GROUPS}/memory rw - cgroup cgroup rw,memory\n"
    root = machine(tmp_path / "one", "3:memory:/jobs\n", mounts)
    stat = group(root, "memory/jobs") / "memory.stat"
    stat.write_text(f"cache 1\nhierarchical_memory_limit {7 * MIB}\n")
    assert surrounding_memory_bytes(root) == 7 * MIB
    stat.write_text("cache 1\nhierarchical_memory_limit 9223372036854771712\n")
    assert surrounding_memory_bytes(root) == 0


def test_limits_of_version_2_are_written_and_its_counts_read(tmp_path: Path) -> None:
    root = version_2(tmp_path, "/")
    top = group(root, "/", "cpu memory pids")
    places = find_places(root)
    assert places
    made_by_kernel = top / "clary-x"
    made_by_kernel.mkdir()
    (made_by_kernel / "memory.swap.max").touch()
    made = Cgroup.create(places, "clary-x", memory_bytes=5 * MIB, cpu_count=1.5, processes=7)

    def written(name: str) -> str:
        return (made_by_kernel / name).read_text()

    assert (written("memory.max"), written("pids.max")) == (str(5 * MIB), "7")
    assert (written("cpu.max"), written("memory.swap.max")) == ("150000 100000", "0")
    assert not (made_by_kernel / "memory.oom.group").exists()  # an older kernel has none
    assert (made.memory_kills(), made.refused_processes(), made.memory_peak_bytes()) == (0, 0, 0)
    (made_by_kernel / "memory.events").write_text("low 0\nmax 3\noom 2\noom_kill 2\n")
    (made_by_kernel / "pids.events").write_text("max 4\n")
    (made_by_kernel / "memory.peak").write_text("5242880\n")
    assert (made.memory_kills(), made.refused_processes(), made.memory_peak_bytes()) == (2, 4, 5 * MIB)
    assert made.parents() == [top]


def test_a_group_whose_maker_is_gone_is_swept_up_and_others_are_left(tmp_path: Path) -> None:
    root = version_2(tmp_path, "/")
    top = group(root, "/", "memory")
    places = find_places(root)
    assert places
    gone = subprocess.run([sys.executable, "-c", ""], check=True)
    assert gone.returncode == 0
    own = group_name()
    dead = own.replace(f"-{os.getpid()}-", "-4194304999-")
    for name in (dead, own, "clary-1-1-0", "docker"):
        (top / name).mkdir()
    Cgroup.create(places, group_name(1), memory_bytes=MIB, cpu_count=1.0, processes=1)
    assert {entry.name for entry in top.iterdir() if entry.is_dir()} == {
        own,
        "clary-1-1-0",
        "docker",
        group_name(1),
    }


if find_places():

    def test_a_real_group_holds_a_process_to_its_limits_and_is_gone_afterwards() -> None:
        places = find_places()
        assert places
        made = Cgroup.create(places, group_name(99), memory_bytes=64 * MIB, cpu_count=1.0, processes=20)
        try:
            enter = (
                f"import os\n"
                f"for parent in {[str(parent) for parent in made.parents()]!r}:\n"
                f"    open(parent + '/{made.name}/cgroup.procs', 'w').write('0')\n"
            )
            hog = subprocess.run([sys.executable, "-c", enter + "x = b'x' * (200 << 20)"], check=False)
            assert hog.returncode == -9
            assert made.memory_kills() == 1
            assert made.memory_peak_bytes() > 60 * MIB
            assert made.members() == 0
        finally:
            made.remove()
        assert not [p for p in places.folders if (p / made.name).exists()]
