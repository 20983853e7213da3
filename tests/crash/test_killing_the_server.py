"""``kill -9`` of the real server, many times at random moments: nothing is lost, run twice or left behind."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import numpy
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from clary.testing.server import ServerProcess

KILLS = 50
JOBS = 30
SEED = 20261124
ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
IMAGE = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1"
PATIENCE_SECONDS = 240

pytestmark = pytest.mark.slow


def insist(call, until: float, accept: tuple[str, ...] = ()):
    """Call until it is answered, as a client with retries would; an answer in ``accept`` is as good."""
    while True:
        try:
            return call()
        except ClientError as error:
            if error.response["Error"]["Code"] in accept:
                return None
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                raise
        except (BotoCoreError, AssertionError):
            pass
        assert time.monotonic() < until, "the server does not come back"
        time.sleep(0.05)


def create_job(server: ServerProcess, name: str, rounds: int) -> None:
    server.client("sagemaker").create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        HyperParameters={"objective": "binary:logistic", "num_round": str(rounds)},
        InputDataConfig=[
            {
                "ChannelName": "train",
                "ContentType": "text/csv",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://crash/train/"}},
            }
        ],
        OutputDataConfig={"S3OutputPath": "s3://crash/output"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )


def endpoint_is_there(client) -> bool:
    try:
        client.describe_endpoint(EndpointName="endpoint")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "ValidationException"
        return False
    return True


def test_fifty_kills_lose_nothing_run_nothing_twice_and_leave_nothing_behind(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    server = ServerProcess(tmp_path)
    server.start()
    try:
        generator = numpy.random.default_rng(0)
        rows = generator.normal(size=(500, 8))
        csv = "\n".join(",".join([str(int(r[0] > 0)), *(f"{v:.4f}" for v in r)]) for r in rows)
        s3 = server.client("s3")
        s3.create_bucket(Bucket="crash")
        s3.put_object(Bucket="crash", Key="train/data.csv", Body=csv.encode())

        until = time.monotonic() + PATIENCE_SECONDS
        acknowledged: list[str] = []
        failures: list[BaseException] = []

        def submit() -> None:
            try:
                for number in range(JOBS):
                    name = f"job-{number}"
                    insist(lambda: create_job(server, name, 20 + 10 * number), until, ("ResourceInUse",))  # noqa: B023
                    acknowledged.append(name)
                    if number == 5:
                        deploy_when_trained()
            except BaseException as error:  # noqa: BLE001 - shown by the main thread
                failures.append(error)

        def deploy_when_trained() -> None:
            describe = lambda: server.client("sagemaker").describe_training_job(TrainingJobName="job-0")  # noqa: E731
            while (job := insist(describe, until))["TrainingJobStatus"] == "InProgress":
                assert time.monotonic() < until
                time.sleep(0.1)
            model = job["ModelArtifacts"]["S3ModelArtifacts"]
            taken = ("ValidationException",)
            variant = {
                "VariantName": "AllTraffic",
                "ModelName": "model",
                "InitialInstanceCount": 2,
                "InstanceType": "ml.m5.large",
            }
            for call in (
                lambda: server.client("sagemaker").create_model(
                    ModelName="model",
                    ExecutionRoleArn=ROLE,
                    PrimaryContainer={"Image": IMAGE, "ModelDataUrl": model},
                ),
                lambda: server.client("sagemaker").create_endpoint_config(
                    EndpointConfigName="config", ProductionVariants=[variant]
                ),
                lambda: server.client("sagemaker").create_endpoint(
                    EndpointName="endpoint", EndpointConfigName="config"
                ),
            ):
                insist(call, until, taken)

        submitting = threading.Thread(target=submit)
        submitting.start()
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.0, 1.0))
            server.kill()
            time.sleep(chance.choice([0.0, 0.0, 0.3]))
            server.start()
        submitting.join(PATIENCE_SECONDS)
        assert not failures, failures
        assert len(acknowledged) == JOBS

        client = server.client("sagemaker", attempts=3)
        for name in acknowledged:
            while (job := client.describe_training_job(TrainingJobName=name))[
                "TrainingJobStatus"
            ] == "InProgress":
                assert time.monotonic() < until, f"{name} does not end: {job['SecondaryStatusTransitions']}"
                time.sleep(0.1)
            assert job["TrainingJobStatus"] == "Completed", (name, job.get("FailureReason"))
            bucket, key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").split("/", 1)
            assert server.client("s3").head_object(Bucket=bucket, Key=key)["ContentLength"] > 100
            moves = [move["Status"] for move in job["SecondaryStatusTransitions"]]
            assert moves == sorted(
                moves, key=["Starting", "Downloading", "Training", "Uploading", "Completed"].index
            )
            lines = server.client("logs").filter_log_events(
                logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/"
            )["events"]
            rounds = [e["message"] for e in lines if e["message"].startswith("[")]
            assert len(rounds) == len(set(rounds)), f"{name} ran twice"

        while (seen := client.describe_endpoint(EndpointName="endpoint"))["EndpointStatus"] == "Creating":
            assert time.monotonic() < until
            time.sleep(0.1)
        assert seen["EndpointStatus"] == "InService", seen.get("FailureReason")
        answer = server.client("sagemaker-runtime").invoke_endpoint(
            EndpointName="endpoint", ContentType="text/csv", Body=csv.splitlines()[0].split(",", 1)[1]
        )
        assert 0 <= float(answer["Body"].read()) <= 1
        client.delete_endpoint(EndpointName="endpoint")
        while endpoint_is_there(client):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert list((server.data / "tasks").iterdir()) == []
    finally:
        server.stop()
    assert server.processes() == {}


def test_an_endpoint_answers_while_the_server_is_dead(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    try:
        s3 = server.client("s3")
        s3.create_bucket(Bucket="crash")
        s3.put_object(Bucket="crash", Key="train/data.csv", Body=b"0,1\n1,2\n0,1\n1,2\n")
        create_job(server, "job", 5)
        client = server.client("sagemaker")
        until = time.monotonic() + PATIENCE_SECONDS
        while (job := client.describe_training_job(TrainingJobName="job"))[
            "TrainingJobStatus"
        ] == "InProgress":
            assert time.monotonic() < until
            time.sleep(0.05)
        client.create_model(
            ModelName="model",
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": job["ModelArtifacts"]["S3ModelArtifacts"]},
        )
        client.create_endpoint_config(
            EndpointConfigName="config",
            ProductionVariants=[
                {
                    "VariantName": "AllTraffic",
                    "ModelName": "model",
                    "InitialInstanceCount": 1,
                    "InstanceType": "ml.m5.large",
                }
            ],
        )
        client.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
        client.get_waiter("endpoint_in_service").wait(
            EndpointName="endpoint", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        runtime = server.client("sagemaker-runtime", gateway=True)
        server.kill()
        answers = [
            runtime.invoke_endpoint(EndpointName="endpoint", ContentType="text/csv", Body="1")["Body"].read()
            for _ in range(5)
        ]
        assert len(set(answers)) == 1
        server.start()
        assert (
            server.client("sagemaker").describe_endpoint(EndpointName="endpoint")["EndpointStatus"]
            == "InService"
        )
        again = server.client("sagemaker-runtime").invoke_endpoint(
            EndpointName="endpoint", ContentType="text/csv", Body="1"
        )
        assert again["Body"].read() == answers[0]
    finally:
        server.stop()
    assert server.processes() == {}
