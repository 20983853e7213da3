"""K-Means: as good as Lloyd's method on all records, from every format and mode, on one host and several."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_digits

from clary.algorithms.algorithm import check_hyperparameters, find_algorithm, get_algorithm
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.ndarrays import read_array_file, write_arrays
from clary.algorithms.formats.recordio import Tensor, write_frame, write_record, write_uniform
from clary.algorithms.kmeans.clustering import lloyd, take_step
from clary.algorithms.kmeans.predict import load
from clary.algorithms.kmeans.train import train

RECORDIO = "application/x-recordio-protobuf"
SPEC = get_algorithm("kmeans")


def digits() -> Any:
    return load_digits().data.astype(numpy.float32)


def distance(rows: Any, centres: Any) -> float:
    gaps = rows[:, None].astype(float) - centres[None].astype(float)
    return float((gaps**2).sum(axis=2).min(axis=1).mean())


def centres_of(folder: Any) -> Any:
    return read_array_file(folder.base / "model/model_algo-1")["0"]


def trained(folder: Any, **hyperparameters: object) -> Any:
    train(folder.job(**hyperparameters))
    return centres_of(folder)


def uniform(rows: Any) -> bytes:
    return write_uniform({"values": rows}, {})


@pytest.mark.parametrize("rows", [digits(), load_breast_cancer().data], ids=["digits", "cancer"])
def test_centres_are_as_good_as_those_of_lloyds_method(folder: Any, rows: Any) -> None:
    folder.channel("train", {"a": uniform(rows.astype(numpy.float32))}, RECORDIO)
    centres = trained(folder, k=10, feature_dim=rows.shape[1], mini_batch_size=500)
    assert centres.dtype == numpy.float32 and centres.shape == (10, rows.shape[1])
    lloyd = min(
        distance(rows, KMeans(10, n_init=1, random_state=seed).fit(rows).cluster_centers_)
        for seed in range(3)
    )
    assert distance(rows, centres) <= 1.01 * lloyd


def test_the_documented_stream_alone_is_near(folder: Any) -> None:
    """With a half-life there is no last part on kept records, which know nothing of old and new."""
    rows = digits()
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    centres = trained(folder, k=10, feature_dim=64, mini_batch_size=200, half_life_time_size=10**9, epochs=2)
    lloyd = KMeans(10, n_init=3, random_state=0).fit(rows)
    assert distance(rows, centres) <= 1.1 * lloyd.inertia_ / len(rows)


def test_a_half_life_follows_what_is_new(folder: Any) -> None:
    random = numpy.random.default_rng(3)
    old, new = random.normal(0, 1, (2000, 2)), random.normal(50, 1, (2000, 2))
    rows = numpy.concatenate([old, new]).astype(numpy.float32)
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    options = {"k": 1, "feature_dim": 2, "mini_batch_size": 100, "extra_center_factor": 1}
    assert numpy.allclose(trained(folder, **options), 25, atol=1)
    assert numpy.allclose(trained(folder, **options, half_life_time_size=200), 50, atol=1)


def test_csv_gives_the_same_centres(folder: Any, csv_bytes: Any) -> None:
    rows = digits()
    options = {"k": 5, "feature_dim": 64, "init_method": "kmeans++", "local_lloyd_init_method": "random"}
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    expected = trained(folder, **options)
    folder.channel("train", {"a": csv_bytes(rows)}, "text/csv;label_size=0")
    assert (trained(folder, **options) == expected).all()


def test_sparse_records_give_as_good_centres(folder: Any) -> None:
    rows = digits()
    sparse = csr_matrix(rows)
    records = [
        write_frame(write_record({"values": Tensor(row.data, row.indices.astype(numpy.int64), (64,))}, {}))
        for row in sparse
    ]
    folder.channel("train", {"a": b"".join(records)}, RECORDIO)
    centres = trained(folder, k=10, feature_dim=64, init_method="kmeans++")
    lloyd = min(KMeans(10, n_init=1, random_state=seed).fit(rows).inertia_ for seed in range(3))
    assert distance(rows, centres) <= 1.01 * lloyd / len(rows)


def test_each_epoch_is_a_pipe_of_its_own(folder: Any) -> None:
    rows = digits()
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    expected = trained(folder, k=5, feature_dim=64, epochs=2)
    data = folder.base / "input/data"
    folder.channels["train"]["TrainingInputMode"] = "Pipe"
    folder.write("inputdataconfig.json", folder.channels)
    for epoch in range(2):
        os.mkfifo(data / f"train_{epoch}")

    def write() -> None:
        for epoch in range(2):
            with (data / f"train_{epoch}").open("wb", buffering=0) as pipe:
                pipe.write(uniform(rows[:100]))
                pipe.write(uniform(rows[100:]))

    threading.Thread(target=write, daemon=True).start()
    assert (trained(folder, k=5, feature_dim=64, epochs=2) == expected).all()


def test_the_log_tells_metrics_of_train_and_test(folder: Any) -> None:
    rows = digits()
    folder.channel("train", {"a": uniform(rows[:1500])}, RECORDIO)
    folder.channel("test", {"a": uniform(rows[1500:])}, RECORDIO)
    code, out, err = folder.run("kmeans", k=10, feature_dim=64, eval_metrics='["msd", "ssd"]')
    assert code == 0, err
    found = {
        metric.name: float(match.group(1))
        for metric in SPEC.metrics
        if (match := re.search(metric.regex, out)) is not None
    }
    centres = centres_of(folder)
    assert found["train:msd"] == pytest.approx(distance(rows[:1500], centres), rel=1e-4)
    assert found["test:msd"] == pytest.approx(distance(rows[1500:], centres), rel=1e-4)
    assert found["test:ssd"] == pytest.approx(297 * found["test:msd"], rel=1e-4)
    assert found["train:progress"] == 100 and found["train:throughput"] > 0
    assert "'extra_center_factor' was set to 'auto', evaluated to 10." in out
    assert "shrinking 100 centers into 10" in out and "local kmeans attempt #9." in out


def test_only_asked_metrics_are_told(folder: Any) -> None:
    folder.channel("train", {"a": uniform(digits())}, RECORDIO)
    _, out, _ = folder.run("kmeans", k=3, feature_dim=64, eval_metrics='["ssd"]')
    assert "train ssd <loss>=" in out and "msd <loss>" not in out and "Test data is not provided." in out


@pytest.mark.slow
def test_hosts_with_parts_of_the_data_find_as_good_centres_every_time(cluster: Any) -> None:
    rows = digits()
    two, three = cluster(2), cluster(3)
    found = []
    for folders in (two, two, three):
        count = len(folders.hosts)
        for number, host in enumerate(folders.hosts):
            part = rows[number::count] if number < 2 else rows[:0]  # the third host has no records
            host.channel("train", {"part": uniform(part) if len(part) else b""}, RECORDIO)
            host.channels["train"]["S3DistributionType"] = "ShardedByS3Key"
            host.write("inputdataconfig.json", host.channels)
        ends = folders.run(algorithm="kmeans", k=10, feature_dim=64, mini_batch_size=300)
        assert [code for code, _, _ in ends] == [0] * count, ends
        assert not (folders.hosts[1].base / "model/model_algo-1").exists()
        found.append(centres_of(folders.first))
    assert (found[0] == found[1]).all()
    lloyd = min(KMeans(10, n_init=1, random_state=seed).fit(rows).inertia_ for seed in range(3))
    assert max(distance(rows, centres) for centres in found) <= 1.01 * lloyd / len(rows)


def test_lloyds_method_leaves_off_when_told_to_stop() -> None:
    rows, taken = digits(), []

    def take(centres: Any) -> Any:
        taken.append(centres)
        return take_step(rows, centres)

    found, _ = lloyd(take, rows[:10].astype(float), 300, 0.0, lambda: len(taken) == 2)
    assert len(taken) == 2 and distance(rows, found) < distance(rows, taken[0])


def test_a_job_told_to_stop_keeps_what_it_has_seen(folder: Any) -> None:
    rows = digits()
    path = folder.base / "input/data/train_0"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    folder.channels["train"] = {"ContentType": "text/csv;label_size=0", "TrainingInputMode": "Pipe"}
    folder.write("inputdataconfig.json", folder.channels)
    process = folder.start("kmeans", k=5, feature_dim=64, mini_batch_size=100)
    with path.open("wb", buffering=0) as pipe:
        # The reader hands on whole blocks, so it must be given more than one to have seen any.
        line = ("1," * 63 + "2\n").encode() * 1000 + ("3," * 63 + "4\n").encode() * 9000
        for _ in range(14):
            pipe.write(line)
        pipe.write(",".join(map(str, rows[0])).encode())
        seen = ""
        assert process.stdout is not None
        while "epoch 0, batch 0" not in seen:
            seen = process.stdout.readline()
            assert seen
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Told to stop: going on with the" in out and centres_of(folder).shape == (5, 64)


@pytest.mark.parametrize(
    ("content", "content_type", "options", "message"),
    [
        (b"1,2\n3,4\n", "text/csv", {"k": 3}, "k is 3, but the channel 'train' holds 2 record(s)"),
        (b"1,2,3\n4,5,6,7\n", "text/csv", {"feature_dim": 3}, "train/a, line 2: 4 columns"),
        (b"1,2\n", "text/csv;label_size=0", {"feature_dim": 9}, "has 2 features, but feature_dim is 9"),
        (b"1,2\n3,nan\n", "text/csv", {}, "train/a, line 2: feature 2 is missing or NaN"),
        (b"", "text/csv", {}, "The files of channel 'train' are empty"),
        (b"1 1:2", "text/libsvm", {}, "The content type 'text/libsvm' of channel 'train'"),
        (uniform(digits())[:-3], RECORDIO, {"feature_dim": 64}, "record 1797: the file ends within"),
    ],
)
def test_bad_data_is_refused_with_its_place(
    folder: Any, content: bytes, content_type: str, options: dict[str, object], message: str
) -> None:
    folder.channel("train", {"a": content}, content_type)
    with pytest.raises(ClientError) as raised:
        train(folder.job(**{"k": 1, "feature_dim": 2, **options}))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"k": "0"}, "Hyperparameter k: '0' is not in [1, 2147483647]"),
        ({"eval_metrics": '["rmse"]'}, "'[\"rmse\"]' is not a list of some of"),
        ({"eval_metrics": "[]"}, "is not a list of some of"),
        ({"extra_center_factor": "many"}, "'many' is not a whole number in [1, 2147483647] or auto"),
        ({"init_method": "best"}, "'best' is not in [random, kmeans++]"),
        ({"local_lloyd_tol": "2"}, "'2' is not in [0, 1]"),
        ({"clusters": "2"}, "Additional properties are not allowed ('clusters' was unexpected)"),
    ],
)
def test_bad_hyperparameters_are_refused(values: dict[str, str], words: str) -> None:
    [error] = check_hyperparameters(SPEC, {"k": "2", "feature_dim": "3", **values})
    assert words in error


def test_what_the_sdk_sends_is_taken() -> None:
    sent = {"k": "2", "feature_dim": "3", "force_dense": "True", "_kvstore": "dist_sync", "epochs": "1",
            "extra_center_factor": "auto", "eval_metrics": '["msd","ssd"]'}  # fmt: skip
    assert check_hyperparameters(SPEC, sent) == []
    assert find_algorithm("kmeans", "1") is SPEC


def test_repeated_records_fewer_than_the_clusters_are_no_mistake(folder: Any) -> None:
    folder.channel("train", {"a": b"1,2\n" * 50 + b"3,4\n" * 50}, "text/csv;label_size=0")
    centres = trained(folder, k=4, feature_dim=2)
    assert numpy.isfinite(centres).all() and distance(numpy.array([[1, 2], [3, 4.0]]), centres) < 1e-9


def test_far_from_the_origin_clusters_are_told_apart(folder: Any, tmp_path: Path) -> None:
    random = numpy.random.default_rng(5)
    middles = numpy.array([[0, 0], [3, 0], [0, 3]]) + 100_000
    rows = (middles[random.integers(0, 3, 3000)] + random.normal(0, 0.2, (3000, 2))).astype(numpy.float32)
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    centres = trained(folder, k=3, feature_dim=2)
    assert numpy.allclose(sorted(centres.tolist()), sorted(middles.tolist()), atol=0.05)
    status, body, _ = load(folder.base / "model")(b"100003,100000", "text/csv", "text/csv")
    cluster, far = (float(value) for value in body.split(b","))
    assert status == 200 and far < 0.1 and numpy.abs(centres[int(cluster)] - middles[1]).max() < 0.05


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no model file"),
        (b"", "ends too early"),
        (write_arrays([numpy.zeros(3, numpy.float32)]), "must hold one matrix of centres"),
    ],
)
def test_a_model_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "model_algo-1").write_bytes(content)
    with pytest.raises(ClientError, match=message):
        load(tmp_path)
