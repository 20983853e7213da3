"""Which endpoints there are, and who answers for each of their variants.

A table is immutable and replaced whole; what lives on from table to table, the connections to replicas and
the requests that wait, hangs on objects that a new table takes over from the old one.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from clary.resources.route import EndpointRoute
from clary.serving.counters import VariantCounters
from clary.serving.upstream import Replica, VariantPool

# Account, region, name.
EndpointKey = tuple[str, str, str]


class VariantRecord:
    """A production variant as requests see it."""

    __slots__ = ("counters", "name", "pool", "weight")

    def __init__(self, name: str, weight: float, pool: VariantPool, counters: VariantCounters) -> None:
        self.name = name
        self.weight = weight
        self.pool = pool
        self.counters = counters


class EndpointRecord:
    """An endpoint as requests see it: its variants, and how chance chooses among those that can answer."""

    __slots__ = ("_chosen_from", "_cumulative", "key", "route", "variants")

    def __init__(self, key: EndpointKey, route: EndpointRoute, variants: Mapping[str, VariantRecord]) -> None:
        self.key = key
        self.route = route
        self.variants = variants
        # Variants without a replica are left out here, so that no request is lost on them. If none has any,
        # requests wait a moment, for instances may be coming back.
        weighted = [variant for variant in variants.values() if variant.weight > 0]
        self._chosen_from = [variant for variant in weighted if variant.pool.replicas] or weighted
        self._cumulative = list(accumulate(v.weight for v in self._chosen_from))

    def choose(self) -> VariantRecord | None:
        """A variant by weight; ``None`` if none has any."""
        chosen_from = self._chosen_from
        if len(chosen_from) == 1:
            return chosen_from[0]
        if not chosen_from:
            return None
        point = random.random() * self._cumulative[-1]
        return chosen_from[min(bisect_right(self._cumulative, point), len(chosen_from) - 1)]


@dataclass(frozen=True)
class RoutingTable:
    """All endpoints. ``replicas`` by address are those that some variant of the table uses."""

    endpoints: Mapping[EndpointKey, EndpointRecord]
    replicas: Mapping[str, Replica]

    @property
    def routes(self) -> list[EndpointRoute]:
        return [record.route for record in self.endpoints.values()]


EMPTY = RoutingTable({}, {})


def build_table(old: RoutingTable, routes: Iterable[EndpointRoute]) -> RoutingTable:
    """The table of ``routes``, with the live parts of ``old``: swap it in, then call `retire`."""
    replicas: dict[str, Replica] = {}
    endpoints: dict[EndpointKey, EndpointRecord] = {}
    for route in routes:
        key = (route.account, route.region, route.name)
        before = old.endpoints.get(key)
        variants: dict[str, VariantRecord] = {}
        for variant in route.variants:
            known = before.variants.get(variant.name) if before else None
            pool = known.pool if known else VariantPool()
            counters = known.counters if known else VariantCounters()
            members = []
            for each in variant.replicas:
                found = replicas.get(each.address) or old.replicas.get(each.address)
                replicas[each.address] = found or Replica(each.address)
                members.append(replicas[each.address])
            pool.replicas = tuple(members)
            variants[variant.name] = VariantRecord(variant.name, variant.weight, pool, counters)
        endpoints[key] = EndpointRecord(key, route, variants)
    return RoutingTable(endpoints, replicas)


def retire(old: RoutingTable, new: RoutingTable) -> list[Replica]:
    """After a swap: let waiting requests go on, and return the replicas that are used no more."""
    pools = {id(v.pool) for record in new.endpoints.values() for v in record.variants.values()}
    for record in old.endpoints.values():
        for variant in record.variants.values():
            if id(variant.pool) not in pools:
                variant.pool.replicas = ()
                variant.pool.abandon()
    for record in new.endpoints.values():
        for variant in record.variants.values():
            variant.pool.pump()
    gone = [replica for address, replica in old.replicas.items() if address not in new.replicas]
    for replica in gone:
        replica.retire()
    return gone
