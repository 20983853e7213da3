"""How a job's hosts train together: what the SDK's ``distribution`` means here.

The SDK turns ``distribution={"torch_distributed": {"enabled": True}}`` into hyperparameters that speak to the
toolkit (``sagemaker_torch_distributed_enabled``). What needs a launcher that cannot be here is refused with a
reason that names what to use instead.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TORCH_DISTRIBUTED = "sagemaker_torch_distributed_enabled"
PYTORCH_DDP = "sagemaker_pytorch_ddp_enabled"
MULTI_WORKER_MIRRORED = "sagemaker_multi_worker_mirrored_strategy_enabled"
MPI = "sagemaker_mpi_enabled"
MPI_PROCESSES = "sagemaker_mpi_num_of_processes_per_host"
MPI_OPTIONS = "sagemaker_mpi_custom_mpi_options"
DATA_PARALLEL = "sagemaker_distributed_dataparallel_enabled"
# Any of these among the framework's parameters means that a job's instance group trains together.
ENABLING = (
    TORCH_DISTRIBUTED, PYTORCH_DDP, MULTI_WORKER_MIRRORED, DATA_PARALLEL, MPI,
    "sagemaker_parameter_server_enabled", "sagemaker_pytorch_xla_multi_worker_enabled",
)  # fmt: skip
INSTANCE_GROUPS = "sagemaker_distribution_instance_groups"
ADDRESSES = "CLARY_CLUSTER_ADDRESSES"  # JSON: host name to IP address, for a job of several hosts

MOST_PROCESSES = 1024  # of MPI on one host
PORT = 7777  # where hosts meet that have an address of their own
_FIRST_PORT, _PORTS = 12_000, 20_000  # below those that systems give out by themselves
_TENSORFLOW_OFFSET = 1  # its workers listen beside PyTorch's
_REFUSED = {
    DATA_PARALLEL: (
        "distribution 'smdistributed.dataparallel' needs the library smdistributed, which is in AWS's images "
        "only"
    ),
    "sagemaker_parameter_server_enabled": (
        "distribution 'parameter_server' is not offered: it belongs to versions of TensorFlow of long ago"
    ),
    "sagemaker_pytorch_xla_multi_worker_enabled": (
        "distribution 'pytorchxla' needs torch_xla and its accelerators, which are not here"
    ),
}
_MPI_OVER_SSH = (
    "distribution 'mpi' starts processes on the other hosts over SSH, which a job's hosts do not have here"
)
_NO_MPIRUN = (
    "distribution 'mpi' needs mpirun, which is not installed here: name mpich and mpi4py in a "
    "requirements.txt beside the script, or"
)
_INSTEAD = {
    "tensorflow": '{"multi_worker_mirrored_strategy": {"enabled": True}}',
    "": '{"torch_distributed": {"enabled": True}} (PyTorch), backend "gloo" or "nccl"',
}


class CannotDistribute(Exception):
    """The job asks for a way of training together that is not here; the message says what to use instead."""


@dataclass(frozen=True)
class Cluster:
    """The hosts that train together, seen from one of them. ``address`` and ``port`` are the first host's."""

    hosts: Sequence[str]
    rank: int
    address: str
    port: int
    interface: str  # "" to let libraries choose


@dataclass(frozen=True)
class Torchrun:
    """Start the script by ``torchrun``, ``processes`` times on this host."""

    cluster: Cluster
    processes: int


@dataclass(frozen=True)
class Mpirun:
    """Start the script by the ``mpirun`` at ``path``, ``processes`` times."""

    path: str
    processes: int
    options: Sequence[str]


def launch_wanted(
    parameters: Mapping[str, Any], framework: str, program: str, group: str, cluster: Cluster, gpu_count: int
) -> Torchrun | Mpirun | None:
    """The launch that a job's framework parameters ask for on a host of instance group ``group``.

    ``None`` is a script that runs once on each host. Raises `CannotDistribute`.
    """
    if group not in distribution_groups(parameters, group):
        return None
    enabled = [name for name in ENABLING if parameters.get(name)]
    if not enabled:
        return None
    torchrun = {TORCH_DISTRIBUTED, PYTORCH_DDP} & set(enabled)
    if (torchrun or MPI in enabled) and not program.endswith(".py"):
        raise CannotDistribute(f"the job's distribution starts Python scripts, and {program} is none")
    if torchrun:
        return Torchrun(cluster, max(1, gpu_count))
    if MULTI_WORKER_MIRRORED in enabled:
        return None  # `tensorflow_configuration` says all there is to say
    instead = f"use distribution={_INSTEAD.get(framework, _INSTEAD[''])}"
    refused = next((_REFUSED[name] for name in enabled if name in _REFUSED), None)
    if refused:
        raise CannotDistribute(f"{refused}: {instead}")
    if len(cluster.hosts) > 1:
        raise CannotDistribute(f"{_MPI_OVER_SSH}: {instead}")
    path = shutil.which("mpirun")
    if path is None:
        raise CannotDistribute(f"{_NO_MPIRUN} {instead}")
    return Mpirun(path, _mpi_processes(parameters, gpu_count), _mpi_options(parameters))


def _mpi_processes(parameters: Mapping[str, Any], gpu_count: int) -> int:
    """As many as the caller says, else one for each GPU. Raises `CannotDistribute`."""
    given = parameters.get(MPI_PROCESSES) or max(1, gpu_count)
    if not isinstance(given, int) or not 1 <= given <= MOST_PROCESSES:
        raise CannotDistribute(f"processes_per_host of distribution 'mpi' must be 1 to {MOST_PROCESSES}")
    return given


def _mpi_options(parameters: Mapping[str, Any]) -> list[str]:
    try:
        return shlex.split(str(parameters.get(MPI_OPTIONS) or ""))
    except ValueError as error:
        raise CannotDistribute(f"custom_mpi_options of distribution 'mpi' cannot be read: {error}") from None


def distribution_groups(parameters: Mapping[str, Any], current: str) -> list[str]:
    """The instance groups that train together: those that the caller names, else the host's own."""
    named = parameters.get(INSTANCE_GROUPS)
    if isinstance(named, list):
        return [str(name) for name in named]
    return [current] if any(parameters.get(name) for name in ENABLING) else []


def find_cluster(hosts: Sequence[str], current: str, interface: str) -> Cluster:
    """The hosts of a job and where they meet. ``interface`` is the network interface they share."""
    addresses = _addresses()
    first = hosts[0]
    address = addresses.get(first) or ("127.0.0.1" if len(hosts) == 1 else first)
    return Cluster(
        hosts,
        hosts.index(current) if current in hosts else 0,
        address,
        _meeting_port(address),
        "lo" if _is_loopback(address) else interface,
    )


def cluster_variables(cluster: Cluster) -> dict[str, str]:
    """What PyTorch's container sets: where ``torch.distributed`` meets, over which interface.

    ``PET_MASTER_PORT`` is for a script that calls ``torchrun`` without saying where.
    """
    port = str(cluster.port)
    variables = {"MASTER_ADDR": cluster.address, "MASTER_PORT": port, "PET_MASTER_PORT": port}
    if cluster.interface:
        variables |= {"GLOO_SOCKET_IFNAME": cluster.interface, "NCCL_SOCKET_IFNAME": cluster.interface}
    return variables


def tensorflow_configuration(parameters: Mapping[str, Any], cluster: Cluster) -> dict[str, str]:
    """``TF_CONFIG`` of a job whose hosts are TensorFlow's workers; nothing for other jobs."""
    if not parameters.get(MULTI_WORKER_MIRRORED):
        return {}
    port = cluster.port + _TENSORFLOW_OFFSET
    addresses = _addresses()
    workers = [f"{addresses.get(host, host)}:{port}" for host in cluster.hosts]
    task = {"type": "worker", "index": cluster.rank}
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task, "environment": "cloud"})}


def _addresses() -> Mapping[str, str]:
    given = os.environ.get(ADDRESSES, "")
    found = json.loads(given) if given else {}
    return {str(host): str(address) for host, address in found.items()} if isinstance(found, dict) else {}


def _meeting_port(address: str) -> int:
    """A port that all hosts of the job come to by themselves, and other jobs on this machine do not.

    The hosts of all jobs on one machine share its network, and ``torch.distributed`` listens on every
    address: the port comes from the first host's address, which is its own alone. A job of one host has
    nobody to agree with.
    """
    if address == "127.0.0.1":
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
            return int(probe.getsockname()[1])
    if not _is_loopback(address):
        return PORT
    return _FIRST_PORT + int(ipaddress.ip_address(address)) % (_PORTS // 2) * 2


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name
