"""Training in the caller's own container, on a real engine."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from clary.resources.task import StopCause, TaskPhase

if TYPE_CHECKING:
    from conftest import Yard

pytestmark = pytest.mark.slow
PYTHON = "#!/usr/bin/python3\n"


def artifact(yard: Yard, task_id: str, name: str = "model") -> dict[str, bytes]:
    content = yard.world.objects["bucket"][f"out/{task_id}/output/{name}.tar.gz"]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive.getmembers()
            if member.isfile()
        }


def test_a_train_program_gets_its_input_and_its_model_is_uploaded(yard: Yard) -> None:
    train = """
import json, os, sys
config = json.load(open("/opt/ml/input/config/hyperparameters.json"))
hosts = json.load(open("/opt/ml/input/config/resourceconfig.json"))
rows = open("/opt/ml/input/data/training/rows.csv").read()
print("arguments", sys.argv[1:])
print("to standard error", file=sys.stderr)
json.dump(
    {"depth": config["depth"], "host": hosts["current_host"], "rows": rows, "mine": os.environ["MINE"],
     "job": os.environ["TRAINING_JOB_NAME"], "region": os.environ["AWS_REGION"]},
    open("/opt/ml/model/model.json", "w"))
open("/opt/ml/output/data/extra.txt", "w").write("more")
"""
    image = yard.images.make(
        {"/opt/program": PYTHON + train}, changes=['ENTRYPOINT ["/opt/program"]', "ENV FROM=image"]
    )

    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", image, hyperparameters={"depth": "3"}, Environment={"MINE": "a b"})
            assert status.phase is TaskPhase.SUCCEEDED, status

    asyncio.run(story())
    model = json.loads(artifact(yard, "job")["model.json"])
    assert model == {
        "depth": "3", "host": "algo-1", "rows": "1,2\n", "mine": "a b", "job": "job", "region": "us-east-1"
    }  # fmt: skip
    assert artifact(yard, "job", "output") == {"extra.txt": b"more"}
    lines = yard.lines("job")
    assert "arguments ['train']" in lines and "to standard error" in lines
    assert any(image in line for line in lines), "the log says which image ran"


def test_the_failure_file_is_the_reason(yard: Yard) -> None:
    train = PYTHON + "import sys\nopen('/opt/ml/output/failure', 'w').write('No rows.')\nsys.exit(3)\n"
    image = yard.images.make({"/usr/local/bin/train": train})

    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", image)
            assert status.phase is TaskPhase.FAILED
            assert status.reason == "AlgorithmError: No rows., exit code: 3"
            assert status.exit_code == 3

    asyncio.run(story())
    assert "out/job/output/model.tar.gz" not in yard.world.objects["bucket"]


def test_an_image_without_a_train_program_is_refused_in_plain_words(yard: Yard) -> None:
    image = yard.images.make()

    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", image)
            assert status.phase is TaskPhase.FAILED
            assert status.reason.startswith(f"ClientError: the image {image} has no program 'train'")
            assert "ENTRYPOINT" in status.reason

    asyncio.run(story())


def test_an_entrypoint_and_arguments_of_the_job_replace_those_of_the_image(yard: Yard) -> None:
    image = yard.images.make(changes=['ENTRYPOINT ["/bin/false"]', 'CMD ["never"]'])
    own = {
        "ContainerEntrypoint": ["/bin/sh", "-c"],
        "ContainerArguments": ["echo $0 > /opt/ml/model/said", "hello"],
    }

    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", image, algorithm=own)
            assert status.phase is TaskPhase.SUCCEEDED, status

    asyncio.run(story())
    assert artifact(yard, "job") == {"said": b"hello\n"}


def test_arguments_alone_go_to_the_entrypoint_of_the_image(yard: Yard) -> None:
    image = yard.images.make(changes=['ENTRYPOINT ["/bin/sh", "-c"]'])

    async def story() -> None:
        async with yard.open():
            status = await yard.run(
                "job", image, algorithm={"ContainerArguments": ["echo mine > /opt/ml/model/said"]}
            )
            assert status.phase is TaskPhase.SUCCEEDED, status

    asyncio.run(story())
    assert artifact(yard, "job") == {"said": b"mine\n"}


def test_ecr_names_mean_local_images_by_their_repository(yard: Yard) -> None:
    train = {"/usr/local/bin/train": "#!/bin/sh\necho whole > /opt/ml/model/which\n"}
    yard.images.make(train, name="clary-ecr-test/team/algo:7")

    async def story() -> None:
        async with yard.open():
            status = await yard.run(
                "job", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/clary-ecr-test/team/algo:7"
            )
            assert status.phase is TaskPhase.SUCCEEDED, status

    asyncio.run(story())
    assert artifact(yard, "job") == {"which": b"whole\n"}


def test_an_image_that_is_nowhere_is_named_with_what_was_looked_for(yard: Yard) -> None:
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/clary-no-such:3"

    async def story() -> None:
        async with yard.open(docker_pull="never"):
            status = await yard.run("local", image)
            assert status.phase is TaskPhase.FAILED
            assert status.reason.startswith(f"ClientError: the image {image} is not there")
            assert "'team/clary-no-such:3' and 'clary-no-such:3'" in status.reason
            assert "docker build -t clary-no-such:3 ." in status.reason
        async with yard.open():
            status = await yard.run("pulled", "127.0.0.1:9/clary-no-such:3")
            assert status.phase is TaskPhase.FAILED
            assert "127.0.0.1:9/clary-no-such:3 is not there" in status.reason
            assert "could not be pulled" in status.reason and "refused" in status.reason

    asyncio.run(story())


def test_a_name_that_no_image_can_have_is_the_callers_mistake(yard: Yard) -> None:
    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", "UPPER/Case:1")
            assert status.phase is TaskPhase.FAILED
            assert status.reason.startswith("ClientError: 'UPPER/Case:1' cannot be the name of an image")

    asyncio.run(story())


def test_an_engine_that_is_down_is_named(yard: Yard) -> None:
    async def story() -> None:
        async with yard.open(docker_host=f"unix://{yard.data}/no.sock"):
            status = await yard.run("job", "mine:1")
            assert status.phase is TaskPhase.FAILED
            assert status.reason.startswith(
                "InternalServerError: the image mine:1 cannot be run: no container"
            )
            assert f"engine answers at unix://{yard.data}/no.sock" in status.reason
            assert "docker_host" in status.reason
        async with yard.open(docker_host="tcp://192.0.2.77:2375"):
            status = await yard.run("far", "mine:1")
            assert "on another machine" in status.reason

    asyncio.run(story())


def test_more_memory_than_the_instance_has_is_the_reason(yard: Yard) -> None:
    train = PYTHON + "held = []\nwhile True:\n    held.append(bytearray(b'x') * (1 << 24))\n"
    image = yard.images.make({"/usr/local/bin/train": train})

    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", image, memory_bytes=128 * 1024**2)
            assert status.phase is TaskPhase.FAILED
            assert status.reason.startswith(
                "ClientError: OutOfMemoryError: the algorithm needs more than 128 MiB"
            )

    asyncio.run(story())


def test_processors_are_limited_to_those_of_the_instance(yard: Yard) -> None:
    train = """
import time
start, used = time.monotonic(), time.process_time()
while time.process_time() - used < 0.5: pass
wall = time.monotonic() - start
print("share", 0.5 / wall)
open("/opt/ml/model/share", "w").write(str(0.5 / wall))
"""
    image = yard.images.make({"/usr/local/bin/train": PYTHON + train})

    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", image)  # half a processor
            assert status.phase is TaskPhase.SUCCEEDED, status

    asyncio.run(story())
    assert float(artifact(yard, "job")["share"]) < 0.7


def test_network_isolation_leaves_no_network(yard: Yard) -> None:
    train = """
import os, socket
assert not [name for name in os.environ if name.startswith(("AWS_ENDPOINT", "AWS_EC2_METADATA_SERVICE"))]
for address in ("192.0.2.1", "172.17.0.1"):
    try:
        socket.create_connection((address, 80), 3)
    except OSError as error:
        assert "unreachable" in str(error).lower(), error
    else:
        raise SystemExit(9)
"""
    image = yard.images.make({"/usr/local/bin/train": PYTHON + train})

    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", image, EnableNetworkIsolation=True)
            assert status.phase is TaskPhase.SUCCEEDED, (status, yard.lines("job"))

    asyncio.run(story())


def test_a_container_reaches_the_api_with_the_credentials_of_its_role(yard: Yard) -> None:
    train = """
import json, os, urllib.request
place = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] + "latest/"
def ask(path, method="GET"):
    return urllib.request.urlopen(urllib.request.Request(place + path, method=method)).read()
assert ask("api/token", "PUT")
role = ask("meta-data/iam/security-credentials/").decode()
found = json.loads(ask("meta-data/iam/security-credentials/" + role))
assert found["Code"] == "Success" and found["Token"] == "session", found
request = urllib.request.Request(
    os.environ["AWS_ENDPOINT_URL"] + "/bucket/data/rows.csv",
    headers={"Authorization": found["AccessKeyId"]})
open("/opt/ml/model/rows", "wb").write(urllib.request.urlopen(request).read())
"""
    image = yard.images.make({"/usr/local/bin/train": PYTHON + train})

    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", image)
            assert status.phase is TaskPhase.SUCCEEDED, (status, yard.lines("job"))

    asyncio.run(story())
    assert artifact(yard, "job") == {"rows": b"1,2\n"}


def test_the_input_cannot_be_written_to(yard: Yard) -> None:
    train = PYTHON + (
        "import os\n"
        "for path in ('data/training/rows.csv', 'data/new', 'config/new'):\n"
        "    try:\n        open('/opt/ml/input/' + path, 'a').write('x')\n"
        "    except OSError as error:\n        print('refused', path, error.errno)\n"
        "    else:\n        raise SystemExit(path)\n"
    )
    image = yard.images.make({"/usr/local/bin/train": train})

    async def story() -> None:
        async with yard.open():
            status = await yard.run("job", image)
            assert status.phase is TaskPhase.SUCCEEDED, (status, yard.lines("job"))

    asyncio.run(story())


def test_an_image_with_a_user_of_its_own_can_save_its_model(yard: Yard) -> None:
    train = (
        "#!/bin/sh\nset -e\nid -u > /opt/ml/model/user\ncat /opt/ml/input/data/training/rows.csv\n"
        "mkdir -m 700 /opt/ml/model/inner\n"
        "echo 1 > /opt/ml/model/inner/weights\ntouch /opt/ml/checkpoints/one\n"
    )
    image = yard.images.make({"/usr/local/bin/train": train}, changes=["USER somebody"])

    async def story() -> None:
        async with yard.open() as driver:
            status = await yard.run("job", image)
            assert status.phase is TaskPhase.SUCCEEDED, (status, yard.lines("job"))
            await driver.remove("job")
            assert list((yard.data / "tasks").iterdir()) == []

    asyncio.run(story())
    assert artifact(yard, "job")["user"] == b"1234\n"


def test_stopping_uploads_what_was_trained(yard: Yard) -> None:
    train = """
import signal, sys, time
def end(number, frame):
    open("/opt/ml/model/last", "w").write("saved at the end")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""
    image = yard.images.make({"/usr/local/bin/train": PYTHON + train})

    async def story() -> None:
        async with yard.open() as driver:
            await driver.start(yard.spec("job", image))
            await yard.said("job", "ready")
            await driver.stop("job", StopCause.REQUESTED)
            status = await yard.ended("job")
            assert (status.phase, status.stop_cause) == (TaskPhase.STOPPED, StopCause.REQUESTED)

    asyncio.run(story())
    assert artifact(yard, "job") == {"last": b"saved at the end"}


def test_one_that_does_not_heed_the_signal_is_killed_after_the_grace(yard: Yard) -> None:
    # A first process without a handler does not even get the signal.
    train = "#!/bin/sh\necho kept > /opt/ml/model/kept\necho ready\nsleep 600\n"
    image = yard.images.make({"/usr/local/bin/train": train})

    async def story() -> None:
        async with yard.open() as driver:
            await driver.start(yard.spec("job", image, grace_seconds=1.0))
            await yard.said("job", "ready")
            await driver.stop("job", StopCause.REQUESTED)
            status = await yard.ended("job")
            assert (status.phase, status.exit_code) == (TaskPhase.STOPPED, 137)

    asyncio.run(story())
    assert artifact(yard, "job") == {"kept": b"kept\n"}


def test_much_output_arrives_whole_and_in_order(yard: Yard) -> None:
    train = PYTHON + "for i in range(20000): print('line', i)\n"
    image = yard.images.make({"/usr/local/bin/train": train})

    async def story() -> None:
        async with yard.open():
            assert (await yard.run("job", image)).phase is TaskPhase.SUCCEEDED

    asyncio.run(story())
    numbered = [line for line in yard.lines("job") if line.startswith("line ")]
    assert numbered == [f"line {i}" for i in range(20000)]


def test_a_volume_that_is_full_is_the_reason(yard: Yard) -> None:
    train = PYTHON + (
        "import os, time\n"
        "with open('/tmp/large', 'wb') as file:\n"
        "    os.posix_fallocate(file.fileno(), 0, 3 << 29)\n"
        "time.sleep(600)\n"
    )
    image = yard.images.make({"/usr/local/bin/train": train})

    async def story() -> None:
        async with yard.open():
            resources = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
            status = await yard.run("job", image, ResourceConfig=resources)
            assert status.phase is TaskPhase.FAILED
            assert "VolumeSizeInGB" in status.reason and "/tmp" in status.reason, status

    asyncio.run(story())
