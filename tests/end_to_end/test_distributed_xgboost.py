"""The built-in XGBoost on clusters of the platform: as good as on one host, and never stuck."""

from __future__ import annotations

import re
import uuid
from typing import Any

import numpy
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from clary.algorithms.formats.recordio import Tensor, write_frame, write_record

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


@pytest.fixture(scope="module")
def cancer() -> tuple[Any, Any]:
    features, labels = load_breast_cancer(return_X_y=True)
    order = numpy.random.default_rng(5).permutation(len(labels))
    rows = numpy.column_stack([labels, features])[order].astype(numpy.float32)
    return rows[:400], rows[400:]


@pytest.fixture(scope="module")
def channels(platform, cancer) -> list[dict[str, Any]]:
    """Train and validation, in six objects each."""
    found = []
    for name, rows in zip(("train", "validation"), cancer, strict=True):
        prefix = f"{uuid.uuid4().hex}/{name}"
        for number in range(6):
            lines = "".join(",".join(f"{v:.9g}" for v in row) + "\n" for row in rows[number::6])
            platform.put(f"{prefix}/part-{number}.csv", lines)
        source = {
            "S3DataType": "S3Prefix",
            "S3Uri": f"s3://end-to-end/{prefix}/",
            "S3DataDistributionType": "ShardedByS3Key",
        }
        channel = {"ChannelName": name, "ContentType": "text/csv", "DataSource": {"S3DataSource": source}}
        found.append(channel)
    return found


def cluster_of(count: int) -> dict[str, Any]:
    return {"InstanceType": "ml.t3.medium", "InstanceCount": count, "VolumeSizeInGB": 1}


def hyperparameters(**changes: str) -> dict[str, str]:
    given = {"objective": "binary:logistic", "num_round": "15", "max_depth": "3", "eval_metric": "auc"}
    return given | changes


def area(platform, job: dict[str, Any], rows: Any) -> float:
    data = platform.content(job["ModelArtifacts"]["S3ModelArtifacts"], "xgboost-model")
    booster = xgboost.Booster(model_file=bytearray(data))
    return float(roc_auc_score(rows[:, 0], booster.predict(xgboost.DMatrix(rows[:, 1:]))))


def test_clusters_of_two_and_three_make_as_good_a_model_as_one_host(platform, cancer, channels):
    areas = {}
    for count in (1, 2, 3):
        name = platform.create(
            InputDataConfig=channels, HyperParameters=hyperparameters(), ResourceConfig=cluster_of(count)
        )
        job = platform.ended(name)
        assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
        areas[count] = area(platform, job, cancer[1])
        # Scores are everyone's: what the first host prints is what the model scores on all rows.
        final = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
        assert final["validation:auc"] == pytest.approx(areas[count], abs=1e-4)
        for number in range(1, count + 1):
            lines = platform.log(name, f"algo-{number}")
            assert any(line.startswith("[14]") for line in lines) is (number == 1)
    assert min(areas.values()) > 0.98
    assert max(areas.values()) - min(areas.values()) < 0.01, areas


def test_a_cluster_reads_its_shards_through_pipes(platform, cancer, channels):
    piped = [channel | {"InputMode": "Pipe"} for channel in channels]
    name = platform.create(
        InputDataConfig=piped, HyperParameters=hyperparameters(), ResourceConfig=cluster_of(2)
    )
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert area(platform, job, cancer[1]) > 0.98
    assert "Rows on all 2 training hosts: train 400, validation 169" in platform.log(name, "algo-1")


def test_every_way_through_a_pipe_trains_the_model_of_files(platform, cancer, channels):
    records = b"".join(
        write_frame(write_record({"values": Tensor(row[1:])}, {"values": Tensor(row[:1])}))
        for row in cancer[0]
    )
    prefix = f"{uuid.uuid4().hex}/train"
    platform.put(f"{prefix}/data.pbr", records)
    protobuf = {"ContentType": "application/x-recordio-protobuf", "DataSource": {
        "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://end-to-end/{prefix}/"}
    }}  # fmt: skip
    train = channels[0]
    models = {}
    for title, channel in {
        "files": train,
        "text": train | {"InputMode": "Pipe"},
        "wrapped text": train | {"InputMode": "Pipe", "RecordWrapperType": "RecordIO"},
        "records in a file": train | protobuf,
        "records": train | protobuf | {"InputMode": "Pipe"},
    }.items():
        name = platform.create(InputDataConfig=[channel], HyperParameters=hyperparameters())
        job = platform.ended(name)
        assert job["TrainingJobStatus"] == "Completed", (title, job.get("FailureReason"))
        models[title] = platform.content(job["ModelArtifacts"]["S3ModelArtifacts"], "xgboost-model")
    assert models["text"] == models["wrapped text"] == models["files"]
    assert models["records"] == models["records in a file"]


def test_bad_data_on_one_host_fails_the_job_with_its_place(platform, channels):
    prefix = f"{uuid.uuid4().hex}/train"
    for number, lines in enumerate(("1,2,3\n0,1,2\n", "1,2,3\n0,one,2\n")):
        platform.put(f"{prefix}/part-{number}.csv", lines)
    source = channels[0]["DataSource"]["S3DataSource"] | {"S3Uri": f"s3://end-to-end/{prefix}/"}
    name = platform.create(
        InputDataConfig=[channels[0] | {"DataSource": {"S3DataSource": source}}],
        ResourceConfig=cluster_of(3),
    )
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "train/part-1.csv, line 2, column 2: 'one' is not a number" in job["FailureReason"]
    platform.until(lambda: platform.tasks(name) == {})


def test_a_host_that_is_killed_ends_a_long_training(platform, channels):
    name = platform.create(
        InputDataConfig=channels,
        HyperParameters=hyperparameters(num_round="1000000"),
        ResourceConfig=cluster_of(2),
    )
    platform.until(lambda: any(line.startswith("[5]") for line in platform.log(name, "algo-1")))
    platform.kill_agent(name, "algo-2")
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Failed" and job["FailureReason"]
    platform.until(lambda: platform.tasks(name) == {})


def test_an_interrupted_cluster_goes_on_from_its_checkpoint(platform, cancer, channels):
    place = f"s3://end-to-end/{uuid.uuid4().hex}/checkpoints"
    name = platform.create(
        InputDataConfig=channels,
        HyperParameters=hyperparameters(num_round="300", subsample="0.8"),
        ResourceConfig=cluster_of(2),
        CheckpointConfig={"S3Uri": place},
    )
    platform.until(lambda: any(line.startswith("[5]") for line in platform.log(name, "algo-1")))
    platform.server.client("clary").interrupt_training_job(TrainingJobName=name)
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    lines = platform.log(name, "algo-1")
    (resumed,) = [line for line in lines if line.startswith("Resuming from the checkpoint of round")]
    rounds = [int(found[1]) for line in lines if (found := re.match(r"\[(\d+)\]", line))]
    assert sorted(rounds) == list(range(300)), "each round once"
    assert 5 <= int(resumed.rpartition(" ")[2]) < 299
    assert area(platform, job, cancer[1]) > 0.98


def test_stopping_a_cluster_keeps_the_rounds_it_has_had(platform, cancer, channels):
    name = platform.create(
        InputDataConfig=channels,
        HyperParameters=hyperparameters(num_round="1000000"),
        ResourceConfig=cluster_of(2),
    )
    platform.until(lambda: any(line.startswith("[5]") for line in platform.log(name, "algo-1")))
    platform.sagemaker.stop_training_job(TrainingJobName=name)
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Stopped"
    assert area(platform, job, cancer[1]) > 0.9
