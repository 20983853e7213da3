"""One real server for the tests of this folder, and the calls they share."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clary.resources.task import TrainingWork
from clary.resources.task_folder import TaskFolder
from clary.testing.server import ServerProcess

ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
XGBOOST = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1"
SKLEARN = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
BUCKET = "end-to-end"
PATIENCE_SECONDS = 120


class Platform:
    """A server with a bucket, and short words for long requests."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.sagemaker = server.client("sagemaker")
        self.s3 = server.client("s3")
        self.logs = server.client("logs")
        self.s3.create_bucket(Bucket=BUCKET)

    def put(self, key: str, body: bytes | str) -> str:
        """Upload, and give the URI of the folder."""
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body.encode() if isinstance(body, str) else body)
        return f"s3://{BUCKET}/{key.rpartition('/')[0]}/"

    def data(self, body: bytes | str) -> str:
        return self.put(f"{uuid.uuid4().hex}/data.csv", body)

    def source(self, **files: str) -> str:
        """An archive of a user's source, ``train_py="..."`` being train.py; gives its URI."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, text in files.items():
                member = tarfile.TarInfo(name.replace("_py", ".py").replace("_txt", ".txt"))
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        folder = self.put(f"{uuid.uuid4().hex}/sourcedir.tar.gz", buffer.getvalue())
        return f"{folder}sourcedir.tar.gz"

    def create(self, **changes: Any) -> str:
        """Create a training job of the built-in XGBoost, changed by ``changes``; gives its name."""
        name = f"job-{uuid.uuid4().hex[:12]}"
        train, content_type = changes.pop("train", None), changes.pop("content_type", "text/csv")
        request: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": ROLE,
            "AlgorithmSpecification": {"TrainingImage": XGBOOST, "TrainingInputMode": "File"},
            "HyperParameters": {"objective": "binary:logistic", "num_round": "3"},
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        }
        if train is not None:
            source = {"S3DataType": "S3Prefix", "S3Uri": train}
            channel = {"ChannelName": "train", "DataSource": {"S3DataSource": source}}
            request["InputDataConfig"] = [channel | ({"ContentType": content_type} if content_type else {})]
        self.sagemaker.create_training_job(**request | changes)
        return name

    def script(self, source: str, *, hyperparameters: dict[str, str] | None = None, **changes: Any) -> str:
        """Create a scikit-learn job that runs train.py of the archive ``source``."""
        given = {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": f'"{source}"'}
        image = {"TrainingImage": SKLEARN, "TrainingInputMode": "File"}
        return self.create(
            AlgorithmSpecification=image | changes.pop("specification", {}),
            HyperParameters=given | (hyperparameters or {}),
            **changes,
        )

    def ended(self, name: str) -> dict[str, Any]:
        """The job's description once it has ended."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            job: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
            if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
                return job
            assert time.monotonic() < until, job["SecondaryStatusTransitions"]
            time.sleep(0.05)

    def until_training(self, name: str) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while self.sagemaker.describe_training_job(TrainingJobName=name)["SecondaryStatus"] != "Training":
            assert time.monotonic() < until
            time.sleep(0.05)

    def log(self, name: str, host: str = "") -> list[str]:
        """The lines of the job, or of one of its hosts."""
        prefix = f"{name}/{host + '-' if host else ''}"
        try:
            events = self.logs.filter_log_events(
                logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=prefix
            )["events"]
        except self.logs.exceptions.ResourceNotFoundException:
            return []  # no job has said anything yet
        return [event["message"] for event in events]

    def streams(self, name: str) -> list[str]:
        """The hosts that have a log stream."""
        found = self.logs.describe_log_streams(
            logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/"
        )["logStreams"]
        return [stream["logStreamName"].partition("/")[2].rpartition("-")[0] for stream in found]

    def until(self, true: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < until
            time.sleep(0.05)

    def tasks(self, name: str) -> dict[str, TaskFolder]:
        """The folders of the job's tasks by host."""
        found = {}
        for path in (self.server.data / "tasks").iterdir():
            spec = TaskFolder(path).read_spec()
            if spec and isinstance(spec.work, TrainingWork) and spec.work.job_name == name:
                found[spec.work.host] = TaskFolder(path)
        return found

    def kill_agent(self, name: str, host: str) -> None:
        status = self.tasks(name)[host].read_status()
        assert status and status[0].process_id
        os.kill(status[0].process_id, signal.SIGKILL)

    def keys(self, prefix: str) -> list[str]:
        """What follows ``prefix`` in the keys of the bucket's objects."""
        found = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [item["Key"].removeprefix(prefix) for item in found]

    def content(self, uri: str, member: str) -> bytes:
        """A file in a model.tar.gz."""
        with tarfile.open(fileobj=io.BytesIO(self.read(uri))) as archive:
            file = archive.extractfile(member)
            assert file
            return file.read()

    def read(self, uri: str) -> bytes:
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        body: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def members(self, uri: str) -> set[str]:
        """Names of the files in a model.tar.gz."""
        with tarfile.open(fileobj=io.BytesIO(self.read(uri))) as archive:
            return {member.name.removeprefix("./") for member in archive.getmembers() if member.isfile()}


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with ServerProcess(tmp_path_factory.mktemp("end-to-end")) as server:
        yield Platform(server)
        running = server
    assert running.processes() == {}


@pytest.fixture(autouse=True)
def _nothing_goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Stop the jobs that a test which failed has left: others would wait for their room."""
    yield
    if "platform" in request.fixturenames:
        sagemaker = request.getfixturevalue("platform").sagemaker
        for job in sagemaker.list_training_jobs(StatusEquals="InProgress")["TrainingJobSummaries"]:
            sagemaker.stop_training_job(TrainingJobName=job["TrainingJobName"])
