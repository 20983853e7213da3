"""Linear Learner and Factorization Machines as their users see them: trained, deployed and asked."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import numpy
import pytest
from botocore.exceptions import ClientError
from sklearn.datasets import load_breast_cancer

from clary.algorithms.formats.recordio import Tensor, write_frame, write_record

ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
IMAGE = "174872318107.dkr.ecr.us-west-2.amazonaws.com/linear-learner:1"
MACHINES = "174872318107.dkr.ecr.us-west-2.amazonaws.com/factorization-machines:1"
BINARY = {"predictor_type": "binary_classifier"}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


def rows() -> tuple[Any, Any]:
    features, labels = load_breast_cancer(return_X_y=True)
    table = numpy.column_stack([labels, features])
    return table[:400], table[400:]


def text(table: Any) -> str:
    return "".join(",".join(f"{value:.9g}" for value in row) + "\n" for row in table)


def create(platform: Any, train: str, mode: str = "File", **hyperparameters: str) -> str:
    specification = {"TrainingImage": IMAGE, "TrainingInputMode": mode}
    return platform.create(
        train=train, AlgorithmSpecification=specification, HyperParameters={**BINARY, **hyperparameters}
    )  # type: ignore[no-any-return]


@pytest.mark.parametrize("mode", ["File", "FastFile", "Pipe"])
def test_a_model_is_trained_deployed_and_asked(platform: Any, mode: str) -> None:
    inside, outside = rows()
    job = platform.ended(create(platform, platform.data(text(inside)), mode))
    assert job["TrainingJobStatus"] == "Completed", job
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    assert metrics["train:binary_classification_accuracy"] > 0.95
    assert metrics["train:progress"] > 0
    archive = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert platform.members(archive) == {"model_algo-1"}
    if mode != "File":
        return
    predictions = answers(platform, IMAGE, archive, "text/csv", text(outside[:, 1:]))
    assert set(predictions[0]) == {"score", "predicted_label"}
    said = numpy.array([each["predicted_label"] for each in predictions])
    assert (said == outside[:, 0]).mean() > 0.95


def test_two_instances_with_parts_of_the_data_train_one_model(platform: Any) -> None:
    inside, outside = rows()
    folder = uuid.uuid4().hex
    for number in range(4):
        uri = platform.put(f"{folder}/part-{number}.csv", text(inside[number::4]))
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "ShardedByS3Key"}
    channel = {"ChannelName": "train", "ContentType": "text/csv", "DataSource": {"S3DataSource": source}}
    job = platform.ended(
        platform.create(
            AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            HyperParameters=BINARY,
            InputDataConfig=[channel],
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
        )
    )
    assert job["TrainingJobStatus"] == "Completed", job
    archive = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert platform.members(archive) == {"model_algo-1"}
    predictions = answers(platform, IMAGE, archive, "text/csv", text(outside[:, 1:]))
    said = numpy.array([each["predicted_label"] for each in predictions])
    assert (said == outside[:, 0]).mean() > 0.95


def answers(platform: Any, image: str, archive: str, content_type: str, body: bytes | str) -> Any:
    """What an endpoint of the model predicts."""
    name = f"linear-{uuid.uuid4().hex[:8]}"
    client = platform.sagemaker
    container = {"Image": image, "ModelDataUrl": archive}
    client.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1,
               "InstanceType": "ml.m5.large"}  # fmt: skip
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    until = time.monotonic() + 120
    while client.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Creating":
        assert time.monotonic() < until
        time.sleep(0.05)
    answer = platform.server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, ContentType=content_type, Accept="application/json", Body=body
    )
    client.delete_endpoint(EndpointName=name)
    return json.loads(answer["Body"].read())["predictions"]


def test_factors_are_learned_from_sparse_records(platform: Any) -> None:
    random = numpy.random.default_rng(2)
    users, items = random.integers(0, 20, 2000), random.integers(0, 15, 2000)
    labels = (random.normal(size=(20, 2))[users] * random.normal(size=(15, 2))[items]).sum(axis=1) + 3
    records = b"".join(
        write_frame(
            write_record(
                {"values": Tensor(numpy.ones(2, numpy.float32), numpy.array([user, 20 + item]), (35,))},
                {"values": Tensor(numpy.array([label], numpy.float32))},
            )
        )
        for user, item, label in zip(users, items, labels, strict=True)
    )
    asked = {"feature_dim": "35", "num_factors": "3", "predictor_type": "regressor", "epochs": "60",
             "factors_lr": "0.01", "linear_lr": "0.01", "factors_init_sigma": "0.1",
             "mini_batch_size": "50"}  # fmt: skip
    job = platform.ended(
        platform.create(
            train=platform.data(records),
            content_type="application/x-recordio-protobuf",
            AlgorithmSpecification={"TrainingImage": MACHINES, "TrainingInputMode": "File"},
            HyperParameters=asked,
        )
    )
    assert job["TrainingJobStatus"] == "Completed", job
    asking = [
        {"data": {"features": {"keys": [int(user), 20 + int(item)], "shape": [35], "values": [1, 1]}}}
        for user, item in zip(users[:50], items[:50], strict=True)
    ]
    predictions = answers(
        platform, MACHINES, job["ModelArtifacts"]["S3ModelArtifacts"], "application/json",
        json.dumps({"instances": asking}),
    )  # fmt: skip
    errors = numpy.array([each["score"] for each in predictions]) - labels[:50]
    assert (errors**2).mean() ** 0.5 < 0.5 * labels.std()


def test_a_wrong_label_fails_the_job_and_names_the_place(platform: Any) -> None:
    job = platform.ended(create(platform, platform.data("0,1\n1,2\n5,3\n")))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: ")
    assert "data.csv, line 3: the label is 5, but must be 0 or 1" in job["FailureReason"]


def test_hyperparameters_are_checked_before_anything_runs(platform: Any) -> None:
    try:
        name = create(platform, platform.data("0,1\n1,2\n"), learning_rate="-1")
        reason = platform.ended(name)["FailureReason"]
    except ClientError as error:
        reason = str(error)
    assert "Hyperparameter learning_rate: '-1' is not in (0, +inf) or auto" in reason
