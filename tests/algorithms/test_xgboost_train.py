"""Training the built-in XGBoost, in the test's own process."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.formats.recordio import Tensor, write_frame, write_record
from clary.algorithms.job import Job
from clary.algorithms.xgboost.train import train

CsvBytes = Callable[[object], bytes]
BINARY = {"objective": "binary:logistic", "num_round": 8, "nthread": 1}


def cancer() -> tuple[Any, Any]:
    features, labels = load_breast_cancer(return_X_y=True)
    rows = numpy.column_stack([labels, features]).astype(numpy.float32)
    return rows[:450], rows[450:]


def matrix(rows: Any) -> Any:
    return xgboost.DMatrix(rows[:, 1:], rows[:, 0], nthread=1)


def raw(path: Any) -> bytes:
    return bytes(xgboost.Booster(model_file=path).save_raw("ubj"))


@pytest.fixture
def two_channels(folder: Any, csv_bytes: CsvBytes) -> Any:
    inside, outside = cancer()
    folder.channel("train", {"a.csv": csv_bytes(inside[:200]), "b.csv": csv_bytes(inside[200:])})
    folder.channel("validation", {"v.csv": csv_bytes(outside)})
    return folder


def run(folder: Any, **hyperparameters: object) -> Job:
    job = folder.job(**hyperparameters)
    job.model.mkdir(parents=True, exist_ok=True)
    train(job)
    return job  # type: ignore[no-any-return]


def refusal(folder: Any, **hyperparameters: object) -> str:
    with pytest.raises(ClientError) as caught:
        run(folder, **{**BINARY, **hyperparameters})
    return str(caught.value)


def scores(printed: str) -> list[dict[str, float]]:
    """The scores of each round, by name."""
    return [
        {name: float(score) for name, score in re.findall(r"\t([^\t:]+):(\S+)", line)}
        for line in printed.splitlines()
        if re.match(r"\[\d+\]", line)
    ]


def test_the_model_is_the_one_that_the_library_trains(two_channels: Any) -> None:
    settings = {"eta": "0.2", "max_depth": "4", "subsample": "0.7", "seed": "7", "eval_metric": "auc,logloss"}
    run(two_channels, **BINARY, **settings)
    inside, outside = cancer()
    wanted = xgboost.train(
        {**settings, "objective": "binary:logistic", "eval_metric": ["auc", "logloss"], "nthread": 1},
        matrix(inside),
        8,
        evals=[(matrix(inside), "train"), (matrix(outside), "validation")],
        verbose_eval=False,
    )
    assert raw(two_channels.model) == bytes(wanted.save_raw("ubj"))


def test_a_model_of_breast_cancer_is_good_and_its_scores_are_printed_each_round(
    two_channels: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(two_channels, **BINARY, eval_metric="auc,error")
    printed = scores(capsys.readouterr().out)
    assert len(printed) == 8
    assert list(printed[0]) == ["train-auc", "train-error", "validation-auc", "validation-error"]
    assert printed[-1]["validation-auc"] > 0.98 and printed[-1]["validation-error"] < 0.06


def test_without_an_eval_metric_the_objectives_own_is_printed(
    two_channels: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(two_channels, **BINARY)
    assert list(scores(capsys.readouterr().out)[0]) == ["train-logloss", "validation-logloss"]


def test_the_containers_own_metrics_agree_with_scikit_learn(
    two_channels: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from sklearn import metrics

    names = "accuracy,balanced_accuracy,f1,f1_binary,precision,precision_macro,recall,recall_micro,mse,r2"
    run(two_channels, **BINARY, eval_metric=names)
    last = scores(capsys.readouterr().out)[-1]
    _, outside = cancer()
    shares = xgboost.Booster(model_file=two_channels.model).predict(matrix(outside))
    truth, classes = outside[:, 0], shares > 0.5
    wanted = {
        "accuracy": metrics.accuracy_score(truth, classes),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, classes),
        "f1": metrics.f1_score(truth, classes, average="macro"),
        "f1_binary": metrics.f1_score(truth, classes),
        "precision": metrics.precision_score(truth, classes),
        "precision_macro": metrics.precision_score(truth, classes, average="macro"),
        "recall": metrics.recall_score(truth, classes),
        "recall_micro": metrics.recall_score(truth, classes, average="micro"),
        "mse": metrics.mean_squared_error(truth, shares),
        "r2": metrics.r2_score(truth, shares),
    }
    for name, score in wanted.items():
        assert last[f"validation-{name}"] == pytest.approx(score, abs=1e-5), name


@pytest.mark.parametrize("objective", ["multi:softmax", "multi:softprob"])
def test_several_classes_are_told_apart(
    folder: Any, csv_bytes: CsvBytes, capsys: pytest.CaptureFixture[str], objective: str
) -> None:
    features, labels = load_wine(return_X_y=True)
    folder.channel("train", {"w.csv": csv_bytes(numpy.column_stack([labels, features]))})
    run(folder, objective=objective, num_class=3, num_round=10, nthread=1, eval_metric="merror,f1_macro")
    last = scores(capsys.readouterr().out)[-1]
    assert last["train-merror"] < 0.05 and last["train-f1_macro"] > 0.95


def test_the_tuning_objective_is_added_to_the_metrics_as_the_last(
    two_channels: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(two_channels, **BINARY, eval_metric="auc,error", _tuning_objective_metric="validation:auc")
    names = list(scores(capsys.readouterr().out)[0])
    assert names == ["train-error", "train-auc", "validation-error", "validation-auc"]


def test_early_stopping_keeps_the_best_round_of_the_last_metric(
    two_channels: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        two_channels,
        **{**BINARY, "num_round": 200},
        eta=1,
        eval_metric="logloss,auc",
        early_stopping_rounds=3,
    )
    printed = [each["validation-auc"] for each in scores(capsys.readouterr().out)]
    assert len(printed) < 200
    kept = xgboost.Booster(model_file=two_channels.model).num_boosted_rounds()
    assert printed[kept - 1] == max(printed)


def test_early_stopping_without_a_validation_channel_trains_every_round(
    folder: Any, csv_bytes: CsvBytes
) -> None:
    folder.channel("train", {"a.csv": csv_bytes(cancer()[0])})
    run(folder, **BINARY, early_stopping_rounds=1)
    assert xgboost.Booster(model_file=folder.model).num_boosted_rounds() == 8


def libsvm_bytes(rows: Any) -> bytes:
    return "".join(
        f"{row[0]:g} " + " ".join(f"{i}:{v:.9g}" for i, v in enumerate(row[1:])) + "\n" for row in rows
    ).encode()


def recordio_bytes(rows: Any) -> bytes:
    return b"".join(
        write_frame(write_record({"values": Tensor(row[1:])}, {"values": Tensor(row[:1])})) for row in rows
    )


def test_every_format_trains_the_same_model(folder: Any, csv_bytes: CsvBytes, tmp_path: Any) -> None:
    inside, _ = cancer()
    models = []
    for content_type, data in {
        "text/csv": csv_bytes(inside),
        "text/csv; label_size=1": csv_bytes(inside).replace(b",", b"\t"),
        "text/libsvm": libsvm_bytes(inside),
        "application/x-recordio-protobuf": recordio_bytes(inside),
    }.items():
        folder.channel("train", {"data": data}, content_type)
        run(folder, **BINARY)
        models.append(raw(folder.model))
    assert len(set(models)) == 1


def test_libsvm_is_the_format_where_none_is_said(folder: Any) -> None:
    folder.channel("train", {"data": libsvm_bytes(cancer()[0])}, None)
    run(folder, **BINARY)
    assert folder.model.exists()


def test_parquet_without_its_library_names_what_to_install(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # an import of it fails
    folder.channel("train", {"data.parquet": b"PAR1"}, "application/x-parquet")
    assert "data.parquet: reading parquet needs pyarrow" in refusal(folder)


def test_weights_of_csv_and_libsvm_count(folder: Any, csv_bytes: CsvBytes) -> None:
    inside, _ = cancer()
    weights = numpy.where(numpy.arange(len(inside)) % 3, 1.0, 0.0).astype(numpy.float32)
    wanted = xgboost.train(
        {"objective": "binary:logistic", "nthread": 1},
        xgboost.DMatrix(inside[:, 1:], inside[:, 0], weight=weights),
        8,
    )
    rows = numpy.column_stack([inside[:, 0], weights, inside[:, 1:]])
    folder.channel("train", {"a.csv": csv_bytes(rows)})
    run(folder, **BINARY, csv_weights=1)
    assert raw(folder.model) == bytes(wanted.save_raw("ubj"))
    lines = libsvm_bytes(inside).decode().splitlines()
    weighted = "\n".join(
        re.sub(r"^(\S+)", rf"\1:{weight:g}", line) for line, weight in zip(lines, weights, strict=True)
    )
    folder.channel("train", {"a.csv": weighted.encode()}, "text/libsvm")
    run(folder, **BINARY)
    assert raw(folder.model) == bytes(wanted.save_raw("ubj"))


def test_query_ids_group_rows_for_ranking(folder: Any) -> None:
    generator = numpy.random.default_rng(1)
    features = generator.normal(size=(60, 3)).astype(numpy.float32)
    labels = (features[:, 0] > 0).astype(numpy.float32)
    groups = numpy.repeat(numpy.arange(12), 5)
    text = "\n".join(
        f"{label:g} qid:{group} " + " ".join(f"{i}:{v:.9g}" for i, v in enumerate(row))
        for label, group, row in zip(labels, groups, features, strict=True)
    )
    folder.channel("train", {"a": text.encode()}, "text/libsvm")
    run(folder, objective="rank:ndcg", num_round=5, nthread=1)
    data = xgboost.DMatrix(features, labels, qid=groups)
    wanted = xgboost.train({"objective": "rank:ndcg", "nthread": 1}, data, 5)
    assert raw(folder.model) == bytes(wanted.save_raw("ubj"))


def test_hidden_and_too_deep_files_are_skipped(folder: Any, csv_bytes: CsvBytes) -> None:
    rows = csv_bytes(cancer()[0])
    folder.channel(
        "train",
        {
            "part/one/a.csv": rows,
            ".hidden": b"no numbers",
            "part/_SUCCESS": b"no numbers",
            "part/one/two/b.csv": b"no numbers",
        },
    )
    run(folder, **BINARY)
    assert folder.model.exists()


def test_columns_that_only_the_validation_rows_have_are_no_mistake(folder: Any) -> None:
    folder.channel("train", {"a": b"1 0:1\n0 1:1\n"}, "text/libsvm")
    folder.channel("validation", {"a": b"1 0:1\n0 7:1\n"}, "text/libsvm")
    run(folder, **BINARY)
    assert xgboost.Booster(model_file=folder.model).num_features() == 8


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"booster": "gblinear", "updater": "coord_descent"},
        {"booster": "dart", "rate_drop": "0.1", "one_drop": "1", "normalize_type": "forest"},
        {"tree_method": "gpu_hist", "predictor": "gpu_predictor", "sketch_eps": "0.1", "dsplit": "row"},
        {"tree_method": "exact", "monotone_constraints": f"({', '.join(['1'] + ['0'] * 29)})"},
        {"tree_method": "hist", "interaction_constraints": "[[0, 1], [2, 3]]", "grow_policy": "lossguide"},
        {"objective": "reg:linear", "base_score": "0.3", "num_parallel_tree": "2", "colsample_bynode": "0.5"},
        {"objective": "reg:tweedie", "eval_metric": "tweedie-nloglik", "early_stopping_rounds": "2"},
        {"objective": "count:poisson", "max_delta_step": "1", "eval_metric": "poisson-nloglik"},
        {"single_precision_histogram": "true", "deterministic_histogram": "false", "lambda_bias": "0.5"},
        {"objective": "survival:cox", "eval_metric": "cox-nloglik"},
    ],
)
def test_hyperparameters_of_old_and_new_versions_train(
    two_channels: Any, hyperparameters: dict[str, object]
) -> None:
    run(two_channels, **{**BINARY, **hyperparameters})
    assert two_channels.model.stat().st_size > 500


def test_cross_validation_saves_a_model_a_fold_and_predictions_for_every_row(
    two_channels: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    job = run(two_channels, **BINARY, _kfold=3, _num_cv_round=2, eval_metric="auc")
    assert sorted(path.name for path in job.model.iterdir()) == [f"xgboost-model-{i}" for i in range(6)]
    predictions = numpy.loadtxt(job.output_data / "predictions.csv", delimiter=",")
    inside, outside = cancer()
    assert numpy.array_equal(predictions[:, 0], numpy.concatenate([inside, outside])[:, 0])
    assert (predictions[:, 0] == predictions[:, 2]).mean() > 0.9
    out = capsys.readouterr().out
    means = [float(score) for score in re.findall(r"^\[8\]\ttrain-auc:\S+\tvalidation-auc:(\S+)", out, re.M)]
    assert len(means) == 3 and means[2] == pytest.approx((means[0] + means[1]) / 2, abs=1e-5)


def test_cross_validation_of_a_regression_predicts_numbers(folder: Any, csv_bytes: CsvBytes) -> None:
    features, labels = load_diabetes(return_X_y=True)
    folder.channel("train", {"d.csv": csv_bytes(numpy.column_stack([labels, features]))})
    job = run(folder, num_round=20, eta=0.1, max_depth=3, nthread=1, _kfold=4)
    predictions = numpy.loadtxt(job.output_data / "predictions.csv", delimiter=",")
    assert predictions.shape == (442, 2)
    assert numpy.corrcoef(predictions.T)[0, 1] > 0.5


def test_a_job_resumes_from_its_newest_checkpoint(
    two_channels: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    two_channels.write("checkpointconfig.json", {"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/checkpoints"})
    run(two_channels, **{**BINARY, "num_round": 7})
    folder = two_channels.base / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [f"xgboost-checkpoint.{i}" for i in range(2, 7)]
    (folder / "xgboost-checkpoint.8").write_bytes(b"cut off")
    (folder / "xgboost-checkpoint.9").write_bytes(b"")
    capsys.readouterr()
    run(two_channels, **{**BINARY, "num_round": 10})
    out = capsys.readouterr().out
    assert "Resuming from the checkpoint of round 6" in out
    assert re.findall(r"^\[\d+\]", out, re.M) == ["[7]", "[8]", "[9]"]
    assert xgboost.Booster(model_file=two_channels.model).num_boosted_rounds() == 10


def test_no_checkpoints_are_written_where_none_are_asked_for(two_channels: Any) -> None:
    (two_channels.base / "checkpoints").mkdir()
    run(two_channels, **BINARY)
    assert not any((two_channels.base / "checkpoints").iterdir())


def test_a_job_stopped_before_its_first_round_has_nothing_to_keep(two_channels: Any) -> None:
    job = two_channels.job(**BINARY)
    job.stop_requested = True
    with pytest.raises(NothingTrained):
        train(job)
    assert not two_channels.model.exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.csv": b"1,2\n0,abc\n"}, "a.csv, line 2, column 2: 'abc' is not a number."),
        ({"a.csv": b"label,size\n0,1\n"}, "The first line looks like a header"),
        ({"a.csv": b"1,2\n0,3\n", "b.csv": b"1,2\n\nnan,3\n"}, "b.csv, line 3: the label is missing or NaN."),
        ({"a.csv": b"1,2\n,3\n"}, "a.csv, line 2: the label is missing or NaN."),
        ({"a.csv": b"1,2\ninf,3\n"}, "a.csv, line 2: the label is infinite."),
        (
            {"a.csv": b"1,2\n\n2,3\n"},
            "label must be in [0,1] for logistic regression; train/a.csv, line 3 has 2",
        ),
        (
            {"a.csv": b"1,2\n", "b.csv": b"1,2,3\n"},
            "train/b.csv has 2 feature columns, but train/a.csv has 1.",
        ),
        ({"a.csv": b"1\n0\n"}, "a.csv: 1 column(s), but there must be a label"),
        ({"a.csv": b"", "b.csv": b" \n"}, "The files of channel 'train' are empty."),
        ({"_SUCCESS": b""}, "The channel 'train' holds no files."),
        ({}, "The channel 'train' holds no files."),
    ],
)
def test_bad_data_is_refused_with_file_and_place(folder: Any, files: dict[str, bytes], words: str) -> None:
    folder.channel("train", files)
    assert words in refusal(folder)


def test_bad_weights_are_refused_with_their_line(folder: Any) -> None:
    folder.channel("train", {"a.csv": b"1,1,2\n0,-1,2\n"})
    assert "a.csv, line 2: a weight must be a number of at least 0." in refusal(folder, csv_weights=1)


def test_a_class_beyond_num_class_is_refused_with_its_line(folder: Any) -> None:
    folder.channel("train", {"a.csv": b"0,1\n1,2\n3,4\n"})
    words = refusal(folder, objective="multi:softmax", num_class=3)
    assert words == "label must be in [0, num_class), num_class being 3; train/a.csv, line 3 has 3"


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("application/json", "The content type 'application/json' of channel 'train' is not one of text/csv"),
        ("text/csv; label_size=0", "label_size must be 1"),
        ("application/x-recordio-protobuf", "a.csv, record 1: this is not RecordIO"),
        ("text/libsvm", "a.csv, line 1, column 1: '1,2' is not a label."),
    ],
)
def test_a_wrong_content_type_is_refused(folder: Any, content_type: str, words: str) -> None:
    folder.channel("train", {"a.csv": b"1,2\n0,3\n"}, content_type)
    assert words in refusal(folder)


def test_channels_of_different_width_are_refused(folder: Any) -> None:
    folder.channel("train", {"a.csv": b"1,2\n0,3\n"})
    folder.channel("validation", {"a.csv": b"1,2,3\n"})
    assert "feature_names mismatch: the channel 'train' has 1 feature columns, 'validation' has 2" in refusal(
        folder
    )


@pytest.mark.parametrize(
    ("hyperparameters", "words"),
    [
        ({"updater": "distcol"}, "Unknown tree updater"),
        ({"base_score": "5"}, "base_score must be in (0,1)"),
        ({"objective": "multi:softmax", "num_class": "3", "eval_metric": "precision"}, "multiclass"),
        ({"monotone_constraints": "(1, 1)", "tree_method": "hist"}, "monotone"),
    ],
)
def test_what_the_library_refuses_is_the_callers_mistake(
    folder: Any, hyperparameters: dict[str, object], words: str
) -> None:
    classes = int(str(hyperparameters.get("num_class", 2)))
    folder.channel("train", {"a.csv": "".join(f"{i % classes},{i}\n" for i in range(30)).encode()})
    found = refusal(folder, **hyperparameters)
    assert words in found and "Stack trace" not in found and "/workspace" not in found
