"""Clusters of containers, and what is left of containers when something is killed: nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from clary.agent.runtimes.docker import TASK_LABEL
from clary.resources.task import StopCause, TaskPhase, TaskSpec, TrainingWork
from clary.testing.agent_world import LOG_GROUP

if TYPE_CHECKING:
    from conftest import Yard

pytestmark = pytest.mark.slow
PYTHON = "#!/usr/bin/python3\n"
WAIT = PYTHON + "import time\nprint('ready', flush=True)\ntime.sleep(600)\n"
EXCHANGE = (
    PYTHON
    + """
import json, os, socket, sys, time
hosts = json.load(open("/opt/ml/input/config/resourceconfig.json"))
me, isolated = hosts["current_host"], sys.argv[1:] == ["isolated"]
assert hosts["hosts"] == ["algo-1", "algo-2"] and socket.gethostname() == me
addresses = json.loads(os.environ["CLARY_CLUSTER_ADDRESSES"])
assert {host: socket.gethostbyname(host) for host in addresses} == addresses
assert os.path.isdir("/sys/class/net/" + hosts["network_interface_name"])
if me == "algo-1":
    # Both listen at the same port: each host has a network of its own.
    listener = socket.create_server(("0.0.0.0", 7777))
    connection, _ = listener.accept()
    connection.sendall(b"from the first")
    said = connection.recv(100)
else:
    blocker = socket.create_server(("0.0.0.0", 7777))
    for _ in range(300):
        try:
            connection = socket.create_connection(("algo-1", 7777), 5)
            break
        except OSError:
            time.sleep(0.1)
    said = connection.recv(100)
    connection.sendall(b"from the second")
print("heard", said.decode(), flush=True)
if isolated:
    gateway = addresses["algo-1"].rpartition(".")[0] + ".1"
    for address in (gateway, "192.0.2.1", "172.17.0.1"):
        try:
            socket.create_connection((address, 22), 3)
        except ConnectionRefusedError:
            raise SystemExit("reached " + address)
        except OSError as error:
            print("cannot reach", address, error)
else:
    import urllib.request
    assert urllib.request.urlopen(
        os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] + "latest/meta-data/placement/region"
    ).read() == b"us-east-1"
open("/opt/ml/model/" + me, "w").write(said.decode())
"""
)


def cluster(yard: Yard, name: str, image: str, **options: Any) -> list[TaskSpec]:
    """The orders for two hosts."""
    gang = (f"{name}-1", f"{name}-2")
    specs = []
    for number, task_id in enumerate(gang, 1):
        spec = yard.spec(task_id, image, **options)
        assert isinstance(spec.work, TrainingWork)
        work = replace(
            spec.work,
            host=f"algo-{number}",
            hosts=("algo-1", "algo-2"),
            log_stream=f"{task_id}/algo-1-1",
            request={
                **spec.work.request,
                "OutputDataConfig": {"S3OutputPath": "s3://bucket/out", "CompressionType": "NONE"},
                "ResourceConfig": {
                    "InstanceType": "ml.m5.large",
                    "InstanceCount": 2,
                    "VolumeSizeInGB": 1,
                },
            },
        )
        specs.append(replace(spec, work=work, gang=gang))
    return specs


@pytest.mark.parametrize("isolated", [False, True])
def test_two_hosts_resolve_one_another_and_exchange_bytes(yard: Yard, isolated: bool) -> None:
    image = yard.images.make({"/usr/local/bin/train": EXCHANGE})
    arguments = {"ContainerArguments": ["train", "isolated"]} if isolated else {}

    async def story() -> None:
        async with yard.open() as driver:
            specs = cluster(yard, "c", image, algorithm=arguments, EnableNetworkIsolation=isolated)
            for spec in specs:
                await driver.start(spec)
            for spec in specs:
                status = await yard.ended(spec.id)
                assert status.phase is TaskPhase.SUCCEEDED, (status, yard.lines(spec.id))

    asyncio.run(story())
    assert yard.world.objects["bucket"]["out/c-1/output/model/algo-1"] == b"from the second"
    assert "heard from the second" in yard.world.lines(LOG_GROUP, "c-1/algo-1-1")
    assert "heard from the first" in yard.world.lines(LOG_GROUP, "c-2/algo-1-1")


def test_a_cluster_that_is_stopped_leaves_no_network(yard: Yard) -> None:
    image = yard.images.make({"/usr/local/bin/train": WAIT})

    async def story() -> None:
        async with yard.open() as driver:
            specs = cluster(yard, "c", image, grace_seconds=0.5)
            for spec in specs:
                await driver.start(spec)
            for spec in specs:
                await yard.said(spec.id, "ready")
            assert len(yard.networks()) == 1 and len(yard.containers()) == 2
            for spec in specs:
                await driver.stop(spec.id, StopCause.REQUESTED)
            for spec in specs:
                assert (await yard.ended(spec.id)).phase is TaskPhase.STOPPED
            assert yard.left() == []

    asyncio.run(story())


def test_the_container_of_an_agent_that_was_killed_is_removed(yard: Yard) -> None:
    image = yard.images.make({"/usr/local/bin/train": WAIT})

    async def story() -> None:
        async with yard.open() as driver:
            specs = cluster(yard, "c", image)
            for spec in specs:
                await driver.start(spec)
            for spec in specs:
                await yard.said(spec.id, "ready")
            status = await driver.inspect("c-1")
            assert status is not None and status.process_id
            os.kill(status.process_id, signal.SIGKILL)
            assert (await yard.ended("c-1")).phase is TaskPhase.LOST
            await yard.eventually(lambda: len(yard.containers()) == 1, "the container is still there")
            assert yard.containers()[0]["Labels"][TASK_LABEL] == "c-2"
            second = await driver.inspect("c-2")
            assert second is not None and second.process_id
            os.kill(second.process_id, signal.SIGKILL)
            await driver.remove("c-2")
            assert yard.containers() == []
            await yard.eventually(lambda: yard.left() == [], "the network is still there")

    asyncio.run(story())


def test_a_new_server_finds_what_was_left_while_there_was_none(yard: Yard) -> None:
    image = yard.images.make({"/usr/local/bin/train": WAIT})

    async def story() -> None:
        async with yard.open() as driver:
            await driver.start(yard.spec("job", image))
            await yard.said("job", "ready")
            await driver.close(stop_tasks=False)
            status = await driver.inspect("job")  # opens it again
            assert status is not None and status.process_id and not status.phase.final
            await driver.close(stop_tasks=False)
            os.kill(status.process_id, signal.SIGKILL)
            assert len(yard.containers()) == 1
        async with yard.open():
            await yard.eventually(lambda: yard.left() == [], "the container is still there")

    asyncio.run(story())


def test_the_end_of_the_server_ends_its_containers(yard: Yard) -> None:
    image = yard.images.make({"/usr/local/bin/train": WAIT})

    async def story() -> None:
        async with yard.open() as driver:
            await driver.start(yard.spec("job", image))
            await yard.said("job", "ready")
            assert len(yard.containers()) == 1
        assert yard.left() == []

    asyncio.run(story())


def test_a_container_that_somebody_removes_fails_its_job(yard: Yard) -> None:
    image = yard.images.make({"/usr/local/bin/train": WAIT})

    async def story() -> None:
        async with yard.open() as driver:
            await driver.start(yard.spec("job", image))
            await yard.said("job", "ready")
            yard.images.api.remove_container(yard.containers()[0]["Id"], force=True)
            status = await yard.ended("job")
            assert status.phase is TaskPhase.FAILED
            assert "removed by somebody" in status.reason or "exit code: 137" in status.reason

    asyncio.run(story())
