"""Linear Learner as its users see it: trained, deployed and asked through the API."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import numpy
import pytest
from botocore.exceptions import ClientError
from sklearn.datasets import load_breast_cancer

ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
IMAGE = "174872318107.dkr.ecr.us-west-2.amazonaws.com/linear-learner:1"
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
    name = f"linear-{uuid.uuid4().hex[:8]}"
    client = platform.sagemaker
    container = {"Image": IMAGE, "ModelDataUrl": archive}
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
        EndpointName=name, ContentType="text/csv", Accept="application/json", Body=text(outside[:, 1:])
    )
    predictions = json.loads(answer["Body"].read())["predictions"]
    assert set(predictions[0]) == {"score", "predicted_label"}
    said = numpy.array([each["predicted_label"] for each in predictions])
    assert (said == outside[:, 0]).mean() > 0.95
    client.delete_endpoint(EndpointName=name)


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
