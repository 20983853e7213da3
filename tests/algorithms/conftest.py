"""A job's folder as the platform lays it out, and the algorithm run in it as a program of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy
import pytest

from clary.algorithms.job import Job, read_job

RUN = "import sys; from clary.algorithms.entrypoint import main; sys.exit(main(sys.argv[1:]))"


class JobFolder:
    """``/opt/ml`` of a test."""

    def __init__(self, base: Path) -> None:
        self.base = base
        (base / "input/config").mkdir(parents=True)
        self.channels: dict[str, dict[str, str]] = {}
        self.environment: dict[str, str] = {}

    def channel(self, name: str, files: Mapping[str, bytes], content_type: str | None = "text/csv") -> None:
        folder = self.base / "input/data" / name
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        self.channels[name] = {"ContentType": content_type} if content_type else {}
        self.write("inputdataconfig.json", self.channels)

    def write(self, name: str, document: object) -> None:
        (self.base / "input/config" / name).write_text(json.dumps(document))

    def job(self, **hyperparameters: object) -> Job:
        self.write("hyperparameters.json", {name: str(value) for name, value in hyperparameters.items()})
        return read_job(self.base)

    def start(self, algorithm: str = "xgboost", **hyperparameters: object) -> subprocess.Popen[str]:
        self.job(**hyperparameters)
        return subprocess.Popen(
            [sys.executable, "-c", RUN, "train", algorithm, "1.7-1"],
            env={
                **os.environ,
                "SAGEMAKER_BASE_DIR": str(self.base),
                "SM_NUM_CPUS": "1",
                "OMP_WAIT_POLICY": "passive",
                **self.environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, algorithm: str = "xgboost", **hyperparameters: object) -> tuple[int, str, str]:
        process = self.start(algorithm, **hyperparameters)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    @property
    def failure(self) -> str:
        path = self.base / "output/failure"
        return path.read_text() if path.exists() else ""

    @property
    def model(self) -> Path:
        return self.base / "model/xgboost-model"


def loopback_addresses(folder: Path, count: int) -> list[str]:
    """Addresses for the hosts of a cluster, by the test's folder: tests run beside one another."""
    seed = hashlib.sha256(str(folder).encode()).digest()
    return [f"127.{100 + seed[0] % 100}.{seed[1]}.{(seed[2] + number) % 250 + 1}" for number in range(count)]


@pytest.fixture
def free_loopback(tmp_path: Path) -> Callable[[int], list[str]]:
    return lambda count: loopback_addresses(tmp_path / str(count), count)


class ClusterFolders:
    """An ``/opt/ml`` for each of several hosts, which find one another at addresses of their own."""

    def __init__(self, base: Path, count: int) -> None:
        names = [f"algo-{number}" for number in range(1, count + 1)]
        addresses = dict(zip(names, loopback_addresses(base, count), strict=True))
        self.hosts = [JobFolder(base / name) for name in names]
        for name, host in zip(names, self.hosts, strict=True):
            host.write("resourceconfig.json", {"current_host": name, "hosts": names})
            host.environment = {
                "CLARY_CLUSTER_ADDRESSES": json.dumps(addresses),
                "TRAINING_JOB_NAME": base.name,
            }

    @property
    def first(self) -> JobFolder:
        return self.hosts[0]

    def start(self, **hyperparameters: object) -> list[subprocess.Popen[str]]:
        return [host.start(**hyperparameters) for host in self.hosts]

    def run(self, **hyperparameters: object) -> list[tuple[int, str, str]]:
        """Exit code, standard output and error of each host's program."""
        return self.finish(self.start(**hyperparameters))

    @staticmethod
    def finish(programs: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
        ends = []
        try:
            for program in programs:
                out, err = program.communicate(timeout=120)
                ends.append((program.returncode, out, err))
        finally:
            for program in programs:
                program.kill()
        return ends


@pytest.fixture
def cluster(tmp_path: Path) -> Callable[[int], ClusterFolders]:
    return lambda count: ClusterFolders(tmp_path / f"cluster-{count}", count)


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path / "ml")


@pytest.fixture
def csv_bytes() -> Callable[[object], bytes]:
    """Rows as CSV that reads back as the same 32-bit numbers."""

    def write(rows: object) -> bytes:
        return "".join(
            ",".join(f"{value:.9g}" for value in row) + "\n" for row in numpy.asarray(rows)
        ).encode()

    return write
