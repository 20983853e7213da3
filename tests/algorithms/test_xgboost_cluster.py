"""The built-in XGBoost on several hosts, each a program of its own: as good as one host, and never stuck."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.metrics import accuracy_score, average_precision_score, mean_squared_error, roc_auc_score

from clary.algorithms.xgboost.train import train

CsvBytes = Callable[[object], bytes]
pytestmark = pytest.mark.slow


def shuffled(features: Any, labels: Any) -> Any:
    order = numpy.random.default_rng(7).permutation(len(labels))
    return numpy.column_stack([labels, features])[order].astype(numpy.float32)


def cancer() -> tuple[Any, Any]:
    rows = shuffled(*load_breast_cancer(return_X_y=True))
    return rows[:400], rows[400:]


def place(hosts: Sequence[Any], channel: str, rows: Any, csv_bytes: CsvBytes, **config: str) -> None:
    """Each host gets the files that ShardedByS3Key gives it: one here, of every so-many-th row."""
    for number, host in enumerate(hosts):
        host.channel(channel, {f"part-{number}.csv": csv_bytes(rows[number :: len(hosts)])})
        host.channels[channel].update(config)
        host.write("inputdataconfig.json", host.channels)


def predictions(host: Any, rows: Any) -> Any:
    return xgboost.Booster(model_file=host.model).predict(xgboost.DMatrix(rows[:, 1:], nthread=1))


def rounds(printed: str) -> list[dict[str, float]]:
    return [
        {name: float(score) for name, score in re.findall(r"\t([^\t:]+):(\S+)", line)}
        for line in printed.splitlines()
        if re.match(r"\[\d+\]", line)
    ]


def train_on(
    cluster: Any, count: int, csv_bytes: CsvBytes, inside: Any, outside: Any, **hyperparameters: object
) -> tuple[Any, list[tuple[int, str, str]]]:
    folders = cluster(count)
    place(folders.hosts, "train", inside, csv_bytes, S3DistributionType="ShardedByS3Key")
    place(folders.hosts, "validation", outside, csv_bytes, S3DistributionType="ShardedByS3Key")
    if count == 1:  # which needs no program of its own
        job = folders.first.job(nthread=1, **hyperparameters)
        job.model.mkdir(parents=True)
        train(job)
        return folders, []
    ends = folders.run(**hyperparameters)
    assert [code for code, _, _ in ends] == [0] * count, [err for _, _, err in ends]
    return folders, ends


@pytest.mark.parametrize("tree_method", ["hist", "approx"])
def test_two_and_three_hosts_tell_cancer_as_well_as_one(
    cluster: Any, csv_bytes: CsvBytes, tree_method: str
) -> None:
    inside, outside = cancer()
    areas = {}
    for count in (1, 2, 3):
        folders, _ = train_on(
            cluster, count, csv_bytes, inside, outside,
            objective="binary:logistic", num_round=20, max_depth=3, tree_method=tree_method,
        )  # fmt: skip
        areas[count] = roc_auc_score(outside[:, 0], predictions(folders.first, outside))
    assert min(areas.values()) > 0.98
    assert max(areas.values()) - min(areas.values()) < 0.01, areas


def test_two_and_three_hosts_predict_diabetes_as_well_as_one(cluster: Any, csv_bytes: CsvBytes) -> None:
    rows = shuffled(*load_diabetes(return_X_y=True))
    errors = {}
    for count in (1, 2, 3):
        folders, _ = train_on(
            cluster, count, csv_bytes, rows[:330], rows[330:], num_round=30, max_depth=3, eta=0.1
        )
        errors[count] = mean_squared_error(rows[330:, 0], predictions(folders.first, rows[330:])) ** 0.5
    assert max(errors.values()) / min(errors.values()) < 1.03, errors


def test_two_and_three_hosts_read_digits_as_well_as_one(cluster: Any, csv_bytes: CsvBytes) -> None:
    rows = shuffled(*load_digits(return_X_y=True))
    shares = {}
    for count in (1, 2, 3):
        folders, _ = train_on(
            cluster, count, csv_bytes, rows[:1200], rows[1200:],
            objective="multi:softmax", num_class=10, num_round=10, max_depth=4,
        )  # fmt: skip
        shares[count] = accuracy_score(rows[1200:, 0], predictions(folders.first, rows[1200:]))
    # Seventeen grey levels are few enough for every host to find the same cuts: the trees are the same.
    assert shares[1] == shares[2] == shares[3] > 0.9


def test_scores_are_over_the_rows_of_all_hosts_and_printed_by_the_first_alone(
    cluster: Any, csv_bytes: CsvBytes
) -> None:
    inside, outside = cancer()
    folders, ends = train_on(
        cluster, 3, csv_bytes, inside, outside,
        objective="binary:logistic", num_round=5, eval_metric="auc,aucpr,logloss,accuracy,f1,r2",
    )  # fmt: skip
    (first, *others) = [rounds(out) for _, out, _ in ends]
    assert len(first) == 5 and others == [[], []]
    found = predictions(folders.first, outside)
    truth = outside[:, 0]
    assert first[-1]["validation-auc"] == pytest.approx(roc_auc_score(truth, found), abs=1e-5)
    # The library's curve is not scikit-learn's, but near.
    assert first[-1]["validation-aucpr"] == pytest.approx(average_precision_score(truth, found), abs=0.002)
    assert first[-1]["validation-accuracy"] == pytest.approx(accuracy_score(truth, found > 0.5), abs=1e-5)
    alone = xgboost.Booster({"eval_metric": ["aucpr", "logloss"]}, model_file=folders.first.model)
    whole = alone.eval(xgboost.DMatrix(outside[:, 1:], truth, nthread=1))
    wanted = {name: float(score) for name, score in re.findall(r"eval-(\w+):(\S+)", whole)}
    assert first[-1]["validation-aucpr"] == pytest.approx(wanted["aucpr"], abs=1e-5)
    assert first[-1]["validation-logloss"] == pytest.approx(wanted["logloss"], abs=1e-5)


def test_only_the_first_host_writes_the_model_and_checkpoints(cluster: Any, csv_bytes: CsvBytes) -> None:
    folders = cluster(2)
    place(folders.hosts, "train", cancer()[0], csv_bytes)
    for host in folders.hosts:
        host.write("checkpointconfig.json", {"S3Uri": "s3://bucket/checkpoints"})
    assert [code for code, _, _ in folders.run(objective="binary:logistic", num_round=3)] == [0, 0]
    first, second = folders.hosts
    assert sorted(path.name for path in (first.base / "checkpoints").iterdir()) == [
        "xgboost-checkpoint.0", "xgboost-checkpoint.1", "xgboost-checkpoint.2",
    ]  # fmt: skip
    assert first.model.exists() and not any((second.base / "model").iterdir())
    assert not (second.base / "checkpoints").exists()


@pytest.mark.parametrize(
    "hyperparameters",
    [
        # With a host that trains on nothing, the library would build other trees on each host.
        {"booster": "dart", "rate_drop": "0.3", "subsample": "0.8", "colsample_bytree": "0.5"},
        {"objective": "reg:absoluteerror", "grow_policy": "lossguide", "max_leaves": "12"},
    ],
)
def test_a_host_without_rows_is_left_out(
    cluster: Any, csv_bytes: CsvBytes, hyperparameters: dict[str, str]
) -> None:
    """The model is that of the hosts that have rows, even where the first has none and only writes it."""
    inside, outside = cancer()
    settings = {"objective": "binary:logistic", "num_round": 6, "eval_metric": "error,mae", **hyperparameters}
    wanted, _ = train_on(cluster, 2, csv_bytes, inside, outside, **settings)
    folders = cluster(3)
    folders.first.channel("train", {"empty.csv": b""})
    folders.first.channel("validation", {})
    place(folders.hosts[1:], "train", inside, csv_bytes)
    place(folders.hosts[1:], "validation", outside, csv_bytes)
    ends = folders.run(**settings)
    assert [code for code, _, _ in ends] == [0, 0, 0], [err for _, _, err in ends]
    assert "algo-1 has no rows to train on and is left out" in ends[0][1]
    assert folders.first.model.read_bytes() == wanted.first.model.read_bytes()
    assert not any((folders.hosts[1].base / "model").iterdir())
    assert len(rounds(ends[1][1])) == 6


def test_a_host_without_validation_rows_stops_early_with_the_others(
    cluster: Any, csv_bytes: CsvBytes
) -> None:
    inside, outside = cancer()
    folders = cluster(2)
    place(folders.hosts, "train", inside, csv_bytes)
    folders.first.channel("validation", {"v.csv": csv_bytes(outside)})
    folders.hosts[1].channel("validation", {})
    ends = folders.run(
        objective="binary:logistic", num_round=200, early_stopping_rounds=3, eval_metric="auc,error,accuracy"
    )
    assert [code for code, _, _ in ends] == [0, 0], [err for _, _, err in ends]
    printed = rounds(ends[0][1])
    best = numpy.argmax([each["validation-accuracy"] for each in printed])
    assert len(printed) == best + 4 < 200
    assert xgboost.Booster(model_file=folders.first.model).num_boosted_rounds() == best + 1


def test_a_ranking_whose_groups_lie_on_different_hosts_is_learned(cluster: Any) -> None:
    rows = shuffled(*load_diabetes(return_X_y=True))
    rows[:, 0] = numpy.digitize(rows[:, 0], [100, 200])
    lines = [
        f"{row[0]:g} qid:{number // 11} " + " ".join(f"{i}:{value:.9g}" for i, value in enumerate(row[1:]))
        for number, row in enumerate(rows[:440])
    ]
    groups = [lines[start : start + 11] for start in range(0, 440, 11)]
    scores = {}
    for count in (1, 2):
        folders = cluster(count)
        for number, host in enumerate(folders.hosts):
            text = "\n".join(line for group in groups[number::count] for line in group)
            host.channel("train", {f"{number}.libsvm": text.encode()}, "text/libsvm")
        ends = folders.run(objective="rank:ndcg", num_round=8, eval_metric="ndcg@5,auc", max_depth=3)
        assert [code for code, _, _ in ends] == [0] * count, [err for _, _, err in ends]
        scores[count] = rounds(ends[0][1])[-1]["train-ndcg@5"]
    assert scores[2] == pytest.approx(scores[1], abs=0.02) and scores[2] > 0.8


def test_sparse_columns_that_one_host_lacks_are_columns_on_all(cluster: Any) -> None:
    folders = cluster(2)
    folders.hosts[0].channel("train", {"a": b"1 0:1\n0 0:2\n" * 20}, "text/libsvm")
    folders.hosts[1].channel("train", {"b": b"1 5:1\n0 5:3\n" * 20}, "text/libsvm")
    ends = folders.run(num_round=2)
    assert [code for code, _, _ in ends] == [0, 0], [err for _, _, err in ends]
    assert xgboost.Booster(model_file=folders.first.model).num_features() == 6


def failures(cluster: Any, count: int = 2) -> list[str]:
    return [host.failure for host in cluster.hosts[:count]]


def test_hosts_whose_rows_are_of_different_width_fail_alike(cluster: Any) -> None:
    folders = cluster(2)
    folders.hosts[0].channel("train", {"a.csv": b"1,2,3\n0,1,2\n"})
    folders.hosts[1].channel("train", {"b.csv": b"1,2,3,4\n"})
    assert [code for code, _, _ in folders.run(num_round=2)] == [1, 1]
    for failure in failures(folders):
        assert "the channel 'train' on algo-1 has 2 feature columns, 'train' on algo-2 has 3" in failure


def test_bad_data_on_one_host_ends_all_with_its_place(cluster: Any, csv_bytes: CsvBytes) -> None:
    folders = cluster(3)
    place(folders.hosts[:2], "train", cancer()[0], csv_bytes)
    folders.hosts[2].channel("train", {"bad.csv": b"1,2\n0,three\n"})
    assert [code for code, _, _ in folders.run(num_round=2)] == [1, 1, 1]
    cause = "train/bad.csv, line 2, column 2: 'three' is not a number"
    assert folders.hosts[2].failure.startswith(f"ClientError: {cause}")
    for failure in failures(folders):
        assert failure.startswith(f"ClientError: algo-3: {cause}")


@pytest.mark.parametrize(
    ("hyperparameters", "words"),
    [
        ({"tree_method": "exact"}, "tree_method 'exact' trains on one instance only"),
        ({"updater": "grow_histmaker, prune"}, "updater 'prune' works on one instance only"),
        ({"booster": "gblinear"}, "booster 'gblinear' trains on one instance only"),
        ({"objective": "survival:cox"}, "survival:cox and cox-nloglik compare each row with all others"),
        ({"_kfold": "3"}, "a cross validation (_kfold) runs on one instance only"),
    ],
)
def test_what_only_one_host_can_do_is_refused(
    cluster: Any, csv_bytes: CsvBytes, hyperparameters: dict[str, str], words: str
) -> None:
    folders = cluster(2)
    place(folders.hosts, "train", cancer()[0], csv_bytes)
    assert [code for code, _, _ in folders.run(num_round=2, **hyperparameters)] == [1, 1]
    for failure in failures(folders):
        assert failure.startswith(f"ClientError: {words}")


@pytest.mark.parametrize("dies", [0, 2])
def test_a_host_that_dies_ends_the_others_with_its_name(cluster: Any, csv_bytes: CsvBytes, dies: int) -> None:
    folders = cluster(3)
    place(folders.hosts, "train", cancer()[0], csv_bytes)
    programs = folders.start(objective="binary:logistic", num_round=100000)
    first = programs[0].stdout
    assert first is not None
    while not first.readline().startswith("[3]"):
        assert programs[0].poll() is None
    programs[dies].send_signal(signal.SIGKILL)
    codes = [code for code, _, _ in folders.finish(programs)]
    assert codes[dies] == -signal.SIGKILL
    for number, host in enumerate(folders.hosts):
        if number != dies:
            assert codes[number] == 1
            assert f"algo-{dies + 1}: the host ended in the middle of the training" in host.failure


def test_hosts_told_to_stop_keep_one_model(cluster: Any, csv_bytes: CsvBytes) -> None:
    folders = cluster(2)
    place(folders.hosts, "train", cancer()[0], csv_bytes)
    programs = folders.start(objective="binary:logistic", num_round=100000)
    assert programs[0].stdout is not None
    while not programs[0].stdout.readline().startswith("[3]"):
        assert programs[0].poll() is None
    for program in programs:
        program.terminate()
    ends = folders.finish(programs)
    assert [code for code, _, _ in ends] == [0, 0], [err for _, _, err in ends]
    kept = re.search(r"keeping the model of (\d+) round", ends[0][1])
    assert kept is not None
    assert xgboost.Booster(model_file=folders.first.model).num_boosted_rounds() == int(kept[1])


def test_two_clusters_at_once_do_not_meet(cluster: Any, csv_bytes: CsvBytes) -> None:
    inside, _ = cancer()
    clusters = [cluster(2), cluster(3)]
    for number, folders in enumerate(clusters):
        place(folders.hosts, "train", inside[number * 100 :], csv_bytes)
    programs = [folders.start(objective="binary:logistic", num_round=5) for folders in clusters]
    for folders, each in zip(clusters, programs, strict=True):
        assert [code for code, _, _ in folders.finish(each)] == [0] * len(each)


def test_rows_that_lie_unevenly_on_the_hosts_make_the_same_model(cluster: Any, csv_bytes: CsvBytes) -> None:
    """All of one class on one host, a column that only one host knows, many more rows here than there."""
    inside, outside = cancer()
    inside = inside[numpy.argsort(inside[:, 0], kind="stable")]
    inside[:100, 5] = numpy.nan
    models = []
    for shards in ([inside], [inside[:100], inside[100:]], [inside[:30], inside[30:100], inside[100:]]):
        folders = cluster(len(shards))
        for number, (host, shard) in enumerate(zip(folders.hosts, shards, strict=True)):
            host.channel("train", {f"{number}.csv": csv_bytes(shard)})
            host.channel("validation", {f"{number}.csv": csv_bytes(outside[number :: len(shards)])})
        ends = folders.run(objective="binary:logistic", num_round=10, eval_metric="auc,f1")
        assert [code for code, _, _ in ends] == [0] * len(shards), [err for _, _, err in ends]
        models.append(xgboost.Booster(model_file=folders.first.model).get_dump())
        assert rounds(ends[0][1])[-1]["validation-auc"] > 0.97
    assert models[0] == models[1] == models[2]
