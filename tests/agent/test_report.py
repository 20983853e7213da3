"""What became of a task can be said even on a disk that is full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clary.agent.runtimes.sandbox import bubblewrap_path
from clary.compute.local.fencing import bubblewrap_works

ON_A_FULL_DISK = """
import sys
from pathlib import Path
from clary.agent.report import Report
from clary.resources.task import TaskPhase
from clary.resources.task_folder import TaskFolder
from clary.testing.agent_world import AgentWorld, training_spec

folder = TaskFolder(Path(sys.argv[1], "task"))
folder.path.mkdir()
report = Report(folder, training_spec(AgentWorld(), "task"), "/nowhere")
with open(folder.path / "big", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError as error:
        print(error.strerror)
report.finish(TaskPhase.FAILED, reason="the disk is full")
print(folder.read_status()[0].reason)
"""


@pytest.mark.skipif(bool(bubblewrap_works()), reason="bubblewrap does not work here")
def test_the_end_of_a_task_is_written_although_the_disk_is_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    view = [str(bubblewrap_path()), "--dev-bind", "/", "/", "--size", str(8 << 20), "--tmpfs", str(small)]
    done = subprocess.run(
        [*view, sys.executable, "-c", ON_A_FULL_DISK, str(small)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["No space left on device", "the disk is full"], done.stderr
