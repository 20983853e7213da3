"""AWS's instance types: what a machine of a name offers.

The figures are AWS's published ones for the families that SageMaker lets a caller name. They decide what a
task asks of a driver and what ``SM_NUM_CPUS`` and ``SM_NUM_GPUS`` say; an unknown name gets a value derived
from its size, so that tomorrow's instance type works today.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache

GIB = 1024**3

# Virtual processors by size suffix, where a family has nothing of its own to say.
_CPUS_BY_SIZE = {
    "nano": 2, "micro": 2, "small": 2, "medium": 2, "large": 2, "xlarge": 4, "2xlarge": 8, "3xlarge": 12,
    "4xlarge": 16, "6xlarge": 24, "8xlarge": 32, "9xlarge": 36, "10xlarge": 40, "12xlarge": 48,
    "16xlarge": 64, "18xlarge": 72, "24xlarge": 96, "32xlarge": 128, "48xlarge": 192, "56xlarge": 224,
    "metal": 96,
}  # fmt: skip

# GiB of memory for each virtual processor.
_GIB_PER_CPU = {
    "c4": 1.875, "c5": 2.0, "c5d": 2.0, "c5n": 2.625, "c6g": 2.0, "c6gd": 2.0, "c6gn": 2.0, "c6i": 2.0,
    "c6id": 2.0, "c7g": 2.0, "c7i": 2.0, "c8g": 2.0, "m4": 4.0, "m5": 4.0, "m5d": 4.0, "m6g": 4.0,
    "m6gd": 4.0, "m6i": 4.0, "m6id": 4.0, "m7g": 4.0, "m7i": 4.0, "m8g": 4.0, "r4": 7.625, "r5": 8.0,
    "r5d": 8.0, "r6g": 8.0, "r6gd": 8.0, "r6i": 8.0, "r6id": 8.0, "r7g": 8.0, "r7i": 8.0, "r8g": 8.0,
    "inf1": 2.0, "inf2": 4.0, "g4dn": 4.0, "g5": 4.0, "g6": 4.0, "p2": 15.25, "p3": 7.625,
}  # fmt: skip
_OTHER_GIB_PER_CPU = 4.0

# Types whose figures do not follow from family and size: processors, GiB, GPUs.
_EXACT: dict[str, tuple[float, float, int]] = {
    "t2.medium": (2, 4, 0), "t2.large": (2, 8, 0), "t2.xlarge": (4, 16, 0), "t2.2xlarge": (8, 32, 0),
    "t3.medium": (2, 4, 0), "t3.large": (2, 8, 0), "t3.xlarge": (4, 16, 0), "t3.2xlarge": (8, 32, 0),
    "c4.8xlarge": (36, 60, 0), "c5.4xlarge": (16, 32, 0), "c5.9xlarge": (36, 72, 0),
    "m4.10xlarge": (40, 160, 0), "m4.16xlarge": (64, 256, 0), "m6g.medium": (1, 4, 0),
    "m7g.medium": (1, 4, 0), "c6g.medium": (1, 2, 0),
    "c7g.medium": (1, 2, 0), "r6g.medium": (1, 8, 0), "r7g.medium": (1, 8, 0),
    "p2.xlarge": (4, 61, 1), "p2.8xlarge": (32, 488, 8), "p2.16xlarge": (64, 732, 16),
    "p3.2xlarge": (8, 61, 1), "p3.8xlarge": (32, 244, 4), "p3.16xlarge": (64, 488, 8),
    "p3dn.24xlarge": (96, 768, 8), "p4d.24xlarge": (96, 1152, 8), "p4de.24xlarge": (96, 1152, 8),
    "p5.4xlarge": (16, 256, 1), "p5.48xlarge": (192, 2048, 8), "p5e.48xlarge": (192, 2048, 8),
    "p5en.48xlarge": (192, 2048, 8),
    "g4dn.xlarge": (4, 16, 1), "g4dn.2xlarge": (8, 32, 1), "g4dn.4xlarge": (16, 64, 1),
    "g4dn.8xlarge": (32, 128, 1), "g4dn.12xlarge": (48, 192, 4), "g4dn.16xlarge": (64, 256, 1),
    "g5.xlarge": (4, 16, 1), "g5.2xlarge": (8, 32, 1), "g5.4xlarge": (16, 64, 1), "g5.8xlarge": (32, 128, 1),
    "g5.12xlarge": (48, 192, 4), "g5.16xlarge": (64, 256, 1), "g5.24xlarge": (96, 384, 4),
    "g5.48xlarge": (192, 768, 8),
    "g6.xlarge": (4, 16, 1), "g6.2xlarge": (8, 32, 1), "g6.4xlarge": (16, 64, 1), "g6.8xlarge": (32, 128, 1),
    "g6.12xlarge": (48, 192, 4), "g6.16xlarge": (64, 256, 1), "g6.24xlarge": (96, 384, 4),
    "g6.48xlarge": (192, 768, 8),
    "inf1.xlarge": (4, 8, 0), "inf1.2xlarge": (8, 16, 0), "inf1.6xlarge": (24, 48, 0),
    "inf1.24xlarge": (96, 192, 0), "inf2.xlarge": (4, 16, 0), "inf2.8xlarge": (32, 128, 0),
    "inf2.24xlarge": (96, 384, 0), "inf2.48xlarge": (192, 768, 0),
    "trn1.2xlarge": (8, 32, 0), "trn1.32xlarge": (128, 512, 0), "trn1n.32xlarge": (128, 512, 0),
}  # fmt: skip

_NAME = re.compile(r"(?:ml\.)?([a-z][a-z0-9-]*)\.([a-z0-9-]+)\Z")
_MULTIPLE = re.compile(r"(\d+)xlarge\Z")


@dataclass(frozen=True)
class InstanceType:
    """What one machine of the type has."""

    name: str
    cpu_count: float
    memory_bytes: int
    gpu_count: int


@lru_cache(maxsize=1024)
def instance_type(name: str) -> InstanceType:
    """The figures of ``name`` (``ml.m5.xlarge``, ``m5.xlarge``, or ``local``: this machine).

    An unknown family counts as a general-purpose one of that size; an unknown size as ``xlarge``.
    """
    if name in ("local", "local_gpu", ""):
        return InstanceType(name, float(os.cpu_count() or 1), machine_memory_bytes(), 0)
    match = _NAME.match(name)
    family, size = match.groups() if match else ("m5", "xlarge")
    exact = _EXACT.get(f"{family}.{size}")
    if exact:
        cpus, gib, gpus = exact
        return InstanceType(name, float(cpus), int(gib * GIB), gpus)
    cpus = _CPUS_BY_SIZE.get(size, 0)
    if not cpus:
        multiple = _MULTIPLE.match(size)
        cpus = 4 * min(int(multiple.group(1)), 1024) if multiple else 4
    gib = cpus * _GIB_PER_CPU.get(family, _OTHER_GIB_PER_CPU)
    return InstanceType(name, float(cpus), int(gib * GIB), 1 if re.match(r"(g|p)\d", family) else 0)


def machine_memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
