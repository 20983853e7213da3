"""PyTorch scripts: alone, and over several hosts under torchrun, as ``distribution`` asks for."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

HOSTS = ["algo-1", "algo-2"]
TOGETHER = {"sagemaker_torch_distributed_enabled": True, "sagemaker_instance_type": "ml.g4dn.xlarge"}
# Fits y = 3x - 1 from rows that each process holds a part of: only the shared gradient knows them all.
TRAIN = """
    import argparse, os
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    x = torch.linspace(-1, 1, 40)[rank::world].reshape(-1, 1)
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for epoch in range(options.epochs):
        optimizer.zero_grad()
        loss = ((model(x) - (3 * x - 1)) ** 2).mean()
        loss.backward()
        optimizer.step()
    print(f"rank={rank} world={world} loss={loss.item():.6f} threads={torch.get_num_threads()}")
    if rank == 0:
        torch.save(model.module.state_dict(), os.path.join(os.environ["SM_MODEL_DIR"], "model.pt"))
    dist.destroy_process_group()
"""


@pytest.fixture(autouse=True)
def torch_is_there() -> None:
    if importlib.util.find_spec("torch") is None:
        assert "CLARY_TESTS_MUST_RUN" not in os.environ, "the extra 'pytorch' must be installed here"
        pytest.skip("needs PyTorch: pip install 'clary[pytorch]'")


@pytest.fixture
def cluster(tmp_path: Path, folder: Any) -> list[Any]:
    """The folders of two hosts, whose addresses are of this test alone."""
    folders = [folder, type(folder)(tmp_path / "second")]
    for host, each in zip(HOSTS, folders, strict=True):
        each.write("resourceconfig.json", {"current_host": host, "hosts": HOSTS})
        each.hyperparameters = {"epochs": 60, **TOGETHER}
    return folders


def addresses() -> dict[str, str]:
    number = os.getpid() % 60_000
    return {
        host: f"127.9.{(number + place) // 250}.{(number + place) % 250 + 1}"
        for place, host in enumerate(HOSTS)
    }


def start(cluster: list[Any], script: str, **settings: str) -> list[Any]:
    found = {"CLARY_CLUSTER_ADDRESSES": json.dumps(addresses()), "OMP_NUM_THREADS": "1"} | settings
    for each in cluster:
        each.script(script)
    return [each.start(framework="pytorch", **found) for each in cluster]


def test_nothing_that_serves_or_waits_for_jobs_imports_pytorch() -> None:
    code = (
        "import importlib, sys\n"
        "from clary.agent.runtimes.fork_server import PRELOADED, _members\n"
        "import clary.assembly\n"
        "[importlib.import_module(name) for name in (*PRELOADED, *_members())]\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_two_hosts_train_one_model(cluster: list[Any]) -> None:
    running = start(cluster, TRAIN)
    outputs = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    for rank, (out, _) in enumerate(outputs):
        assert f"rank={rank} world=2 loss=0.00" in out and "threads=1" in out
        assert f"--nnodes=2 --nproc_per_node=1 --node_rank={rank} --master_addr=127.9." in out
        assert "torch 2." in out
    import torch

    found = torch.load(cluster[0].base / "model/model.pt")
    assert abs(found["weight"].item() - 3) < 0.1 and abs(found["bias"].item() + 1) < 0.1
    assert not (cluster[1].base / "model/model.pt").exists()


@pytest.mark.slow
def test_the_failure_of_a_process_is_that_of_the_script_with_its_exit_code(cluster: list[Any]) -> None:
    script = TRAIN.replace("for epoch in", "if rank == 1: raise SystemExit(7)\n    for epoch in")
    running = start(cluster, script)
    for process in running:
        process.communicate(timeout=120)
    assert running[1].returncode == 7
    assert 'ErrorMessage "the script ended with exit code 7"' in cluster[1].failure
    assert running[0].returncode == 1  # it lost its partner
    assert "/code/train.py:" in cluster[0].failure and "torchrun --nnodes=2" in cluster[0].failure


@pytest.mark.slow
def test_a_stop_reaches_the_processes_of_torchrun(folder: Any) -> None:
    folder.hyperparameters = dict(TOGETHER)
    folder.script(
        """
        import os, signal, sys, time
        def stop(number, frame):
            open(os.path.join(os.environ["SM_MODEL_DIR"], "saved"), "w").close()
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "ready"), "w").close()
        while True:
            time.sleep(0.05)
        """
    )
    process = folder.start(framework="pytorch")
    deadline = time.monotonic() + 60
    while not (folder.base / "output/data/ready").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert (folder.base / "model/saved").exists()


def test_a_script_alone_finds_the_meeting_place_of_pytorchs_container(folder: Any) -> None:
    folder.script(
        """
        import os, torch, torch.distributed as dist
        dist.init_process_group("gloo", rank=0, world_size=1)
        total = torch.ones(3)
        dist.all_reduce(total)
        print("SUM", total.sum().item(), os.environ["GLOO_SOCKET_IFNAME"], torch.get_num_threads())
        """
    )
    code, out, err = folder.run(framework="pytorch", OMP_NUM_THREADS="2")
    assert code == 0 and "SUM 3.0 lo 2" in out, out + err
