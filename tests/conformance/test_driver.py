"""Every driver keeps the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clary.clock import ManualClock
from clary.compute.local import LocalDriver
from clary.compute.scripted import (
    Script,
    ScriptedDriver,
    Step,
    failing_training,
    healthy_serving,
    succeeding_training,
)
from clary.resources.task import TaskPhase, TaskSpec
from clary.testing.agent_world import AgentWorld, serving_spec, training_spec
from clary.testing.driver_conformance import DriverConformance, DriverWorld

SCRIPTS = {
    "succeeds": "open('/opt/ml/model/weights', 'w').write('7')",
    "fails": "raise ValueError('too few rows')",
    "runs": "import time\nopen('/opt/ml/model/weights', 'w').write('7')\ntime.sleep(600)",
    "serves": "def model_fn(folder):\n    return 7\ndef predict_fn(data, model):\n    return data",
}


class TestScriptedDriver(DriverConformance):
    @asynccontextmanager
    async def world(self) -> AsyncIterator[DriverWorld]:
        with AgentWorld() as aws:
            clock = ManualClock()
            forever = succeeding_training(running_seconds=1e9)
            scripts = {
                "succeeds": succeeding_training(),
                "fails": failing_training("AlgorithmError: ValueError: too few rows, exit code: 1"),
                "runs": forever,
                "serves": healthy_serving(),
            }
            kinds: dict[str, str] = {}

            def spec(kind: str, task_id: str) -> TaskSpec:
                kinds[task_id] = kind
                return serving_spec(aws, task_id, "") if kind == "serves" else training_spec(aws, task_id)

            driver = ScriptedDriver(clock, lambda ordered: scripts[kinds[ordered.id]])
            yield DriverWorld(driver, spec, lambda: clock.advance(0.5), lambda task_id: True)
            await driver.close(stop_tasks=True)

    def test_the_world_goes_on_without_a_driver_to_watch_it(self) -> None:
        async def facts() -> None:
            clock = ManualClock()
            with AgentWorld() as aws:
                driver = ScriptedDriver(clock, lambda _: Script((Step(TaskPhase.RUNNING, 5.0),)))
                await driver.start(training_spec(aws, "job"))
                driver.forget_callbacks()
                await clock.advance(6.0)
                status = await driver.inspect("job")
                assert status and status.phase is TaskPhase.RUNNING
                assert status.transitions[-1].at == status.transitions[0].at + 5.0

        asyncio.run(facts())


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["auto", "none"])
class TestLocalDriver(DriverConformance):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, sandbox: str) -> None:
        self.data, self.sandbox = tmp_path, sandbox

    @asynccontextmanager
    async def world(self) -> AsyncIterator[DriverWorld]:
        with AgentWorld() as aws:

            def spec(kind: str, task_id: str) -> TaskSpec:
                if kind == "serves":
                    return serving_spec(aws, task_id, SCRIPTS[kind])
                base = "/opt/ml" if driver.fencing != "none" else str(self.data / "tasks" / task_id / "ml")
                return training_spec(aws, task_id, SCRIPTS[kind].replace("/opt/ml", base))

            def saved(task_id: str) -> bool:
                path = self.data / "tasks" / task_id / "ml/model/weights"
                return path.is_file() and path.read_text() == "7"

            driver = LocalDriver(self.data, sandbox=self.sandbox, preload=False)
            await driver.open()
            try:
                yield DriverWorld(driver, spec, lambda: asyncio.sleep(0.01), saved)
            finally:
                await driver.close(stop_tasks=True)
