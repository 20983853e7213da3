"""What takes records as its users see it: trained in every mode, deployed and asked by the API."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from clary.algorithms.formats.recordio import read_rows, write_uniform

ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
REGISTRY = "174872318107.dkr.ecr.us-west-2.amazonaws.com"
RECORDIO = "application/x-recordio-protobuf"
BUCKET = "end-to-end"
ROWS = load_digits().data.astype(numpy.float32)
LABELS = load_digits().target.astype(numpy.float32)
HYPERPARAMETERS = {
    "kmeans": {"k": "10", "feature_dim": "64", "mini_batch_size": "500"},
    "pca": {"num_components": "3", "feature_dim": "64", "mini_batch_size": "500"},
    "knn": {"k": "5", "feature_dim": "64", "predictor_type": "classifier", "sample_size": "2000"},
    "lda": {"num_topics": "4", "feature_dim": "64", "mini_batch_size": str(len(ROWS)), "max_restarts": "3"},
    "randomcutforest": {"feature_dim": "64", "num_trees": "50", "num_samples_per_tree": "30"},
}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


def uploaded(platform: Any, files: int = 1) -> str:
    """The digits in so many files; gives their folder."""
    folder = uuid.uuid4().hex
    for number in range(files):
        part = slice(number, None, files)
        platform.put(
            f"{folder}/part-{number}", write_uniform({"values": ROWS[part]}, {"values": LABELS[part]})
        )
    return f"s3://{BUCKET}/{folder}/"


def train(
    platform: Any, algorithm: str, train: str, mode: str = "File", instances: int = 1, **channel: str
) -> Mapping[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": train, **channel}
    name = platform.create(
        AlgorithmSpecification={"TrainingImage": f"{REGISTRY}/{algorithm}:1", "TrainingInputMode": mode},
        HyperParameters=HYPERPARAMETERS[algorithm],
        InputDataConfig=[
            {"ChannelName": "train", "ContentType": RECORDIO, "DataSource": {"S3DataSource": source}}
        ],
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": instances, "VolumeSizeInGB": 1},
    )
    job: Mapping[str, Any] = platform.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job
    return job


def ask(platform: Any, algorithm: str, archive: str, accepts: Sequence[str]) -> Sequence[bytes]:
    """What an endpoint says of all digits, in each of the reply types."""
    name = f"{algorithm}-{uuid.uuid4().hex[:8]}"
    client = platform.sagemaker
    container = {"Image": f"{REGISTRY}/{algorithm}:1", "ModelDataUrl": archive}
    client.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1,
               "InstanceType": "ml.m5.large"}  # fmt: skip
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    until = time.monotonic() + 120
    while client.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Creating":
        assert time.monotonic() < until
        time.sleep(0.05)
    replies = [
        platform.server.client("sagemaker-runtime")
        .invoke_endpoint(
            EndpointName=name,
            ContentType=RECORDIO,
            Accept=accept,
            Body=write_uniform({"values": ROWS}, {}),
        )["Body"]
        .read()
        for accept in accepts
    ]
    client.delete_endpoint(EndpointName=name)
    return replies


def test_k_means_is_trained_deployed_and_asked(platform: Any) -> None:
    job = train(platform, "kmeans", uploaded(platform))
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    archive = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert platform.members(archive) == {"model_algo-1"}
    binary, text = ask(platform, "kmeans", archive, [RECORDIO, "text/csv"])
    far = numpy.array([row.label["distance_to_cluster"].values[0] for row in read_rows(binary, "reply")])
    assert (far**2).mean() == pytest.approx(metrics["train:msd"], rel=1e-4)
    assert len(text.splitlines()) == len(ROWS)


@pytest.mark.parametrize("mode", ["FastFile", "Pipe"])
def test_k_means_learns_from_streams(platform: Any, mode: str) -> None:
    job = train(platform, "kmeans", uploaded(platform, files=3), mode)
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    lloyd = KMeans(10, n_init=3, random_state=0).fit(ROWS)
    assert metrics["train:msd"] <= 1.01 * lloyd.inertia_ / len(ROWS)


def test_k_means_on_two_hosts_is_as_good(platform: Any) -> None:
    job = train(
        platform, "kmeans", uploaded(platform, files=4), instances=2, S3DataDistributionType="ShardedByS3Key"
    )
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    lloyd = KMeans(10, n_init=3, random_state=0).fit(ROWS)
    assert metrics["train:msd"] <= 1.01 * lloyd.inertia_ / len(ROWS)


def test_pca_is_trained_deployed_and_asked(platform: Any) -> None:
    job = train(platform, "pca", uploaded(platform), "Pipe")
    [reply] = ask(platform, "pca", job["ModelArtifacts"]["S3ModelArtifacts"], ["application/json"])
    found = numpy.array([row["projection"] for row in json.loads(reply)["projections"]])
    singular = numpy.linalg.svd((ROWS - ROWS.mean(axis=0)).astype(float), compute_uv=False)[:3][::-1]
    assert numpy.allclose(numpy.linalg.norm(found, axis=0), singular, rtol=1e-4)


def test_k_nn_is_trained_deployed_and_asked(platform: Any) -> None:
    job = train(platform, "knn", uploaded(platform))
    archive = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert platform.members(archive) == {"model_algo-1", "model_algo-1.labels", "model_algo-1.json"}
    [reply] = ask(platform, "knn", archive, ["application/jsonlines; verbose=true"])
    found = [json.loads(line) for line in reply.splitlines()]
    assert (numpy.array([row["predicted_label"] for row in found]) == LABELS).mean() > 0.97
    assert {len(row["distances"]) for row in found} == {5} and found[0]["distances"][0] == 0


@pytest.mark.parametrize(("mode", "instances"), [("FastFile", 1), ("Pipe", 2)])
def test_a_random_cut_forest_is_trained_deployed_and_asked(platform: Any, mode: str, instances: int) -> None:
    job = train(
        platform,
        "randomcutforest",
        uploaded(platform, files=4),
        mode,
        instances,
        S3DataDistributionType="ShardedByS3Key",
    )
    archive = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert platform.members(archive) == {"model_algo-1"}
    text, lines, binary = ask(
        platform, "randomcutforest", archive, ["application/json", "application/jsonlines", RECORDIO]
    )
    scores = numpy.array([row["score"] for row in json.loads(text)["scores"]])
    assert [json.loads(line)["score"] for line in lines.splitlines()] == scores.tolist()
    found = [row.label["score"].values[0] for row in read_rows(binary, "reply")]
    assert len(scores) == len(ROWS) and numpy.allclose(found, scores, rtol=1e-6)
    distances = numpy.linalg.norm(ROWS - ROWS.mean(axis=0), axis=1)
    assert numpy.corrcoef(scores, distances)[0, 1] > 0.3


@pytest.mark.parametrize("mode", ["FastFile", "Pipe"])
def test_topics_are_trained_deployed_and_asked(platform: Any, mode: str) -> None:
    job = train(platform, "lda", uploaded(platform, files=3), mode)
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    archive = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert platform.members(archive) == {"model_algo-1"}
    text, lines, binary = ask(
        platform, "lda", archive, ["application/json", "application/jsonlines", RECORDIO]
    )
    shares = numpy.array([row["topic_mixture"] for row in json.loads(text)["predictions"]])
    assert shares.shape == (len(ROWS), 4) and numpy.allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert [json.loads(line)["topic_mixture"] for line in lines.splitlines()] == shares.tolist()
    found = [row.label["topic_mixture"].values for row in read_rows(binary, "reply")]
    assert numpy.allclose(found, shares, atol=1e-6)
    often = ROWS.sum(axis=0) / ROWS.sum()
    one_topic = float((ROWS.sum(axis=0) * numpy.log(often + 1e-12)).sum() / ROWS.sum())
    assert one_topic + 0.1 < metrics["train:pwll"] < 0


def test_a_wrong_feature_dim_fails_the_job_and_names_the_record(platform: Any) -> None:
    name = platform.create(
        train=platform.data("1,2,3\n4,5,6\n"),
        content_type="text/csv;label_size=0",
        AlgorithmSpecification={"TrainingImage": f"{REGISTRY}/kmeans:1", "TrainingInputMode": "File"},
        HyperParameters={"k": "2", "feature_dim": "5"},
    )
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: ")
    assert "data.csv, line 1: the line has 3 features, but feature_dim is 5" in job["FailureReason"]
