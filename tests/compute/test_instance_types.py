"""Instance types have AWS's figures, and an unknown one has sensible ones."""

from __future__ import annotations

import os

import pytest

from clary.compute.instance_types import GIB, instance_type


@pytest.mark.parametrize(
    ("name", "cpus", "gib", "gpus"),
    [
        ("ml.m5.large", 2, 8, 0),
        ("ml.m5.24xlarge", 96, 384, 0),
        ("ml.c5.4xlarge", 16, 32, 0),
        ("ml.r5.2xlarge", 8, 64, 0),
        ("ml.m4.10xlarge", 40, 160, 0),
        ("ml.t2.medium", 2, 4, 0),
        ("ml.p3.2xlarge", 8, 61, 1),
        ("ml.p4d.24xlarge", 96, 1152, 8),
        ("ml.g4dn.12xlarge", 48, 192, 4),
        ("m5.xlarge", 4, 16, 0),
    ],
)
def test_known_types_have_their_published_figures(name: str, cpus: int, gib: int, gpus: int) -> None:
    found = instance_type(name)
    assert (found.cpu_count, found.memory_bytes, found.gpu_count) == (cpus, gib * GIB, gpus)


@pytest.mark.parametrize("name", ["ml.x99.7xlarge", "ml.m5.enormous", "no type at all", "ml."])
def test_unknown_types_get_figures_too(name: str) -> None:
    found = instance_type(name)
    assert found.cpu_count >= 1
    assert found.memory_bytes >= GIB


def test_local_is_this_machine() -> None:
    assert instance_type("local").cpu_count == os.cpu_count()
