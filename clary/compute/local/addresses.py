"""Network addresses for the hosts of clusters on this machine: a loopback address of its own for each.

All tasks share the machine's network, so what tells the hosts of a cluster apart is the address they bind to:
127.X.Y.1, 127.X.Y.2 and so on, where no two clusters have the same X and Y.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

_NETWORKS = 254 * 256  # 127.1.0.0/24 up to 127.254.255.0/24; 127.0 is the machine's own
MOST_HOSTS = 254


def cluster_addresses(gang: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Task id -> address for a cluster; ``taken`` are addresses of clusters that live.

    Raises ``ValueError`` for more hosts than a network has.
    """
    if len(gang) > MOST_HOSTS:
        raise ValueError(f"a cluster on one machine may have {MOST_HOSTS} hosts, not {len(gang)}.")
    networks = {address.rpartition(".")[0] for address in taken}
    first = int.from_bytes(hashlib.sha256(gang[0].encode()).digest()[:4], "big")
    for step in range(_NETWORKS):
        number = (first + step) % _NETWORKS
        network = f"127.{number // 256 + 1}.{number % 256}"
        if network not in networks:
            return {task_id: f"{network}.{host}" for host, task_id in enumerate(gang, start=1)}
    raise ValueError("every loopback network is in use by a cluster.")
