"""The memory of processes that descend from one is summed, each page of it once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from clary.agent.process_tree import ProcessTree

MIB = 1024**2
PARENT = """
import os, sys, threading, time
kept = bytearray(b"x" * (100 << 20))
for _ in range(5):
    if os.fork() == 0:
        time.sleep(600)
def more():
    os.fork()  # a child of another thread
    time.sleep(600)
threading.Thread(target=more).start()
time.sleep(0.2)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def parent() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout and b"ready" in process.stdout.readline()
        yield process.pid
        os.killpg(process.pid, signal.SIGKILL)


def test_pages_that_processes_share_count_once(parent: int) -> None:
    tree = ProcessTree(parent)
    processes = tree.processes()
    assert len(processes) == 7
    assert tree.memory_above(400 * MIB, processes) == 0  # although each of seven shows 100 MiB
    used = ProcessTree(parent).memory_above(90 * MIB, processes)
    assert 100 * MIB < used < 300 * MIB


def test_a_tree_that_is_gone_holds_nothing() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    tree = ProcessTree(gone.pid)
    assert tree.memory_above(0, tree.processes()) == 0
