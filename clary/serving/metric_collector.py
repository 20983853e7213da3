"""Carries what the gateway counted into the metric store, as CloudWatch's metrics of endpoints.

Every few seconds, and once more at the end: what a gateway counted since the last time is lost only with the
gateway itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clary.clock import Clock
from clary.serving.gateway_client import Gateway, GatewayFailed
from clary.telemetry.metric_store import MetricStore, Point, Series

NAMESPACE = "AWS/SageMaker"
COLLECT_SECONDS = 5.0
_LATENCIES = ("ModelLatency", "OverheadLatency")
_SUMS = ("Invocations", "InvocationsPerInstance")
_ERRORS = ("Invocation4XXErrors", "Invocation5XXErrors", "InvocationModelErrors")

log = logging.getLogger("clary.gateway")


class MetricCollector:
    """See the module."""

    def __init__(self, gateway: Gateway, metrics: MetricStore, clock: Clock) -> None:
        self._gateway = gateway
        self._metrics = metrics
        self._clock = clock

    async def run(self) -> None:
        """Collect until cancelled."""
        while True:
            await asyncio.sleep(COLLECT_SECONDS)
            await self.collect()

    async def collect(self) -> None:
        """Collect once. A gateway that cannot be asked, or a store that cannot write, is logged."""
        try:
            variants = await self._gateway.stats()
            if variants:
                await self._metrics.put(list(points_of(variants, self._clock.now())))
        except GatewayFailed as error:
            log.warning("the metrics of endpoints could not be collected: %s", error)
        except Exception:
            log.exception("the metrics of endpoints could not be kept")


def points_of(variants: Sequence[Mapping[str, Any]], now: float) -> Iterator[tuple[Series, Point]]:
    """The points of what `Gateway.stats` gave. Latencies are in microseconds."""
    for each in variants:
        counts = each["counts"]
        invocations = float(counts["Invocations"])
        dimensions = {"EndpointName": each["endpoint"], "VariantName": each["variant"]}

        def series(name: str, own: Mapping[str, Any] = each, by: Mapping[str, str] = dimensions) -> Series:
            return Series(own["account"], own["region"], NAMESPACE, name, by)

        for name in _SUMS:
            average = counts[name] / invocations
            yield series(name), Point(now, counts[name], invocations, average, average)
        for name in _ERRORS:
            total = float(counts[name])
            smallest = 1.0 if total == invocations else 0.0
            yield series(name), Point(now, total, invocations, smallest, 1.0 if total else 0.0)
        for name in _LATENCIES:
            for count, total, smallest, largest in counts[name]:
                yield series(name), Point(now, total, count, smallest, largest, unit="Microseconds")
