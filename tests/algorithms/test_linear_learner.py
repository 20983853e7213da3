"""Linear Learner: as good as a tuned linear model, from every format and mode, on one host and several."""

from __future__ import annotations

import functools
import os
import re
import signal
import threading
import zipfile
from typing import Any

import numpy
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.linear_model import LogisticRegression, QuantileRegressor, Ridge
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    mean_squared_error,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clary.algorithms import passes
from clary.algorithms.algorithm import check_hyperparameters, find_algorithm, get_algorithm
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.ndarrays import read_array_file
from clary.algorithms.formats.recordio import Tensor, write_frame, write_record, write_uniform
from clary.algorithms.linear_learner.losses import make_loss
from clary.algorithms.linear_learner.model import load_model
from clary.algorithms.linear_learner.plan import batch_size, make_plan, make_settings
from clary.algorithms.linear_learner.train import train

RECORDIO = "application/x-recordio-protobuf"
SPEC = get_algorithm("linear-learner")
BINARY = {"predictor_type": "binary_classifier"}
REGRESSOR = {"predictor_type": "regressor"}
GRID = 10.0 ** numpy.arange(-4, 4)


@functools.cache
def split(name: str) -> Any:
    """Three times features and labels: to train on, to choose by, and to judge by."""
    loaders = {
        "cancer": load_breast_cancer,
        "wine": load_wine,
        "digits": load_digits,
        "diabetes": load_diabetes,
    }
    features, labels = loaders[name](return_X_y=True)
    order = numpy.random.default_rng(1).permutation(len(labels))
    parts = numpy.split(order, [int(0.6 * len(order)), int(0.8 * len(order))])
    return [(features[part].astype(numpy.float32), labels[part].astype(numpy.float32)) for part in parts]


def dense(features: Any, labels: Any) -> bytes:
    return write_uniform(
        {"values": numpy.asarray(features, numpy.float32)},
        {"values": numpy.asarray(labels, numpy.float32)[:, None]},
    )


def sparse(features: Any, labels: Any) -> bytes:
    return b"".join(
        write_frame(
            write_record(
                {
                    "values": Tensor(
                        row.data.astype(numpy.float32), row.indices.astype(numpy.int64), row.shape[1:]
                    )
                },
                {"values": Tensor(numpy.array([label], numpy.float32))},
            )
        )
        for row, label in zip(csr_matrix(features), labels, strict=True)
    )


def word_counts(rows: int, words: int) -> Any:
    """Rows of 60 words each, some of them common and most of them rare, and labels that follow from them."""
    random = numpy.random.default_rng(4)
    shares = 1 / (numpy.arange(words) + 20.0) ** 1.2
    drawn = random.choice(words, (rows, 60), p=shares / shares.sum())
    counts = csr_matrix(
        (numpy.ones(drawn.size, numpy.float32), drawn.ravel(), numpy.arange(rows + 1) * 60), (rows, words)
    )
    counts.sum_duplicates()
    score = counts @ random.normal(size=words)
    return counts, (score > numpy.median(score)).astype(numpy.float32)


def give(folder: Any, name: str, *channels: str) -> None:
    for channel, part in zip(channels or ("train", "validation"), split(name), strict=False):
        folder.channel(channel, {"a": dense(*part)}, RECORDIO)


def trained(folder: Any, **hyperparameters: object) -> Any:
    job = folder.job(**hyperparameters)
    job.model.mkdir(exist_ok=True)
    train(job)
    return load_model(job.model)


def metrics(out: str) -> dict[str, float]:
    return {
        metric.name: float(found[-1])
        for metric in SPEC.metrics
        if (found := re.findall(metric.regex, out)) and found
    }


def test_a_binary_model_is_as_good_as_the_best_of_logistic_regressions(folder: Any) -> None:
    give(folder, "cancer")
    (inside, labels), (chosen_by, chosen), (outside, truth) = split("cancer")
    best = min(
        (
            make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=3000)).fit(inside, labels)
            for c in GRID
        ),
        key=lambda model: log_loss(chosen, model.predict_proba(chosen_by)),
    )
    scores, said = trained(folder, **BINARY).answers(outside)
    assert roc_auc_score(truth, scores) >= roc_auc_score(truth, best.predict_proba(outside)[:, 1]) - 0.002
    assert accuracy_score(truth, said) >= 0.95


@pytest.mark.parametrize("name", ["wine", "digits"])
def test_a_multiclass_model_is_as_good_as_the_best_of_logistic_regressions(folder: Any, name: str) -> None:
    give(folder, name)
    (inside, labels), (chosen_by, chosen), (outside, truth) = split(name)
    classes = len(set(labels))
    best = min(
        (make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300)).fit(inside, labels)
         for c in (0.01, 0.1, 1)),
        key=lambda model: log_loss(chosen, model.predict_proba(chosen_by)),
    )  # fmt: skip
    scores, said = trained(folder, predictor_type="multiclass_classifier", num_classes=classes).answers(
        outside
    )
    wanted = roc_auc_score(truth, best.predict_proba(outside), multi_class="ovr")
    assert scores.shape == (len(truth), classes) and numpy.allclose(scores.sum(axis=1), 1, atol=1e-5)
    scores = scores.astype(float) / scores.astype(float).sum(axis=1, keepdims=True)
    assert roc_auc_score(truth, scores, multi_class="ovr") >= wanted - 0.002
    assert accuracy_score(truth, said) >= accuracy_score(truth, best.predict(outside)) - 0.02


def test_a_regressor_is_as_good_as_the_best_of_ridge_regressions(folder: Any) -> None:
    give(folder, "diabetes")
    (inside, labels), (chosen_by, chosen), (outside, truth) = split("diabetes")
    best = min(
        (make_pipeline(StandardScaler(), Ridge(alpha=a)).fit(inside, labels) for a in GRID),
        key=lambda model: mean_squared_error(chosen, model.predict(chosen_by)),
    )
    scores, said = trained(folder, **REGRESSOR).answers(outside)
    assert said is None
    wanted = mean_squared_error(truth, best.predict(outside)) ** 0.5
    assert mean_squared_error(truth, scores) ** 0.5 <= wanted * 1.002


def test_the_same_job_gives_the_same_model_and_csv_the_same_as_recordio(folder: Any, csv_bytes: Any) -> None:
    give(folder, "cancer")
    trained(folder, **BINARY)
    first = (folder.base / "model/model_algo-1").read_bytes()
    trained(folder, **BINARY)
    assert (folder.base / "model/model_algo-1").read_bytes() == first
    for channel, (features, labels) in zip(("train", "validation"), split("cancer"), strict=False):
        folder.channel(channel, {"a": csv_bytes(numpy.column_stack([labels, features]))}, "text/csv")
    trained(folder, **BINARY)
    assert (folder.base / "model/model_algo-1").read_bytes() == first


def test_what_does_not_fit_in_memory_is_read_again_in_each_epoch(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = load_digits(return_X_y=True)
    folder.channel("train", {"a": dense(features, labels > 4)}, RECORDIO)
    options = {**BINARY, "mini_batch_size": 150}
    kept = trained(folder, **options).answers(features)[0]
    monkeypatch.setattr(passes, "LARGEST_KEPT_BYTES", 0)
    monkeypatch.setattr(passes, "WINDOW_BYTES", 1)
    monkeypatch.setattr(passes, "FEWEST_ROWS", 400)
    again = trained(folder, **options).answers(features)[0]
    assert roc_auc_score(labels > 4, again) == pytest.approx(roc_auc_score(labels > 4, kept), abs=0.01)


def test_sparse_records_are_scaled_but_not_centred(folder: Any) -> None:
    features, labels = load_digits(return_X_y=True)
    folder.channel("train", {"a": sparse(features, labels > 4)}, RECORDIO)
    model = trained(folder, **BINARY)
    assert roc_auc_score(labels > 4, model.answers(csr_matrix(features))[0]) > 0.95


def test_wide_sparse_records_are_learned_from_and_unseen_features_count_nothing(folder: Any) -> None:
    features, labels = word_counts(rows=3000, words=6000)
    folder.channel("train", {"a": sparse(features[:2000], labels[:2000])}, RECORDIO)
    folder.channel("validation", {"a": sparse(features[2000:2500], labels[2000:2500])}, RECORDIO)
    model = trained(folder, **BINARY, feature_dim=6000, mini_batch_size=100)
    outside, truth = features[2500:], labels[2500:]
    best = max(
        roc_auc_score(
            truth,
            LogisticRegression(C=c, max_iter=200)
            .fit(features[:2000], labels[:2000])
            .decision_function(outside),
        )
        for c in (0.01, 0.1, 1)
    )
    assert roc_auc_score(truth, model.answers(outside)[0]) >= best - 0.01
    unseen = numpy.asarray(features[:2000].sum(axis=0)).ravel() == 0
    assert unseen.any() and not model.weights[unseen].any()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_every_optimizer_learns(folder: Any, optimizer: str) -> None:
    give(folder, "cancer")
    outside, truth = split("cancer")[2]
    for models in (1, 32):
        model = trained(folder, **BINARY, optimizer=optimizer, num_models=models, epochs=30)
        assert roc_auc_score(truth, model.answers(outside)[0]) > 0.98


LOSSES = {
    "binary_classifier": ("logistic", "hinge_loss"),
    "multiclass_classifier": ("softmax_loss",),
    "regressor": (
        "squared_loss", "absolute_loss", "eps_insensitive_squared_loss", "eps_insensitive_absolute_loss",
        "huber_loss", "quantile_loss",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, names in LOSSES.items() for name in names])
def test_gradients_are_those_of_the_losses(task: str, name: str) -> None:
    plan = make_plan({"predictor_type": task, "loss": name, "num_classes": "4", "quantile": "0.3",
                      "loss_insensitivity": "0.4", "huber_delta": "0.7"})  # fmt: skip
    loss = make_loss(plan)
    random = numpy.random.default_rng(2)
    scores = random.normal(size=(50, 3, 4) if plan.is_multiclass else (50, 3)) * 2
    labels = random.integers(0, plan.classes if plan.is_multiclass else 2, 50).astype(float)
    gradient, step = loss.gradient(scores, labels), 1e-5
    numeric = numpy.zeros_like(scores)
    for place in numpy.ndindex(*scores.shape[1:]):
        moved = scores.copy()
        moved[(slice(None), *place)] += step
        higher = loss.values(moved, labels)
        moved[(slice(None), *place)] -= 2 * step
        numeric[(slice(None), *place)] = (higher - loss.values(moved, labels))[:, place[0]] / (2 * step)
    assert numpy.allclose(gradient, numeric, atol=1e-4)


@pytest.mark.parametrize("name", LOSSES["regressor"])
def test_every_regression_loss_learns(folder: Any, name: str) -> None:
    give(folder, "diabetes")
    outside, truth = split("diabetes")[2]
    scores, _ = trained(folder, **REGRESSOR, loss=name, huber_delta=30, loss_insensitivity=5).answers(outside)
    assert mean_squared_error(truth, scores) ** 0.5 < 0.85 * truth.std()


def test_a_quantile_is_met(folder: Any) -> None:
    random = numpy.random.default_rng(6)
    features = random.normal(size=(4000, 3)).astype(numpy.float32)
    labels = features @ [1, 2, 3] + random.exponential(size=4000) * 3 + 40
    folder.channel("train", {"a": dense(features, labels)}, RECORDIO)
    scores, _ = trained(folder, **REGRESSOR, loss="quantile_loss", quantile=0.9).answers(features)
    assert (labels <= scores).mean() == pytest.approx(0.9, abs=0.01)
    best = QuantileRegressor(quantile=0.9, alpha=0).fit(features, labels).predict(features)

    def cost(predicted: Any) -> float:
        short = labels - predicted
        return float(numpy.maximum(0.9 * short, -0.1 * short).mean())

    assert cost(scores) <= 1.01 * cost(best)


def two_clouds(positives: float = 0.2) -> Any:
    random = numpy.random.default_rng(7)
    labels = (random.random(6000) < positives).astype(numpy.float32)
    return (random.normal(size=(6000, 4)) + labels[:, None] * 0.8).astype(numpy.float32), labels


def give_clouds(folder: Any) -> Any:
    features, labels = two_clouds()
    folder.channel("train", {"a": dense(features[:3000], labels[:3000])}, RECORDIO)
    folder.channel("validation", {"a": dense(features[3000:], labels[3000:])}, RECORDIO)
    return features[3000:], labels[3000:]


@pytest.mark.parametrize("loss", ["logistic", "hinge_loss"])
def test_the_threshold_is_chosen_by_the_criterion(folder: Any, loss: str) -> None:
    features, labels = give_clouds(folder)

    def said(criterion: str, **options: object) -> Any:
        named = {"binary_classifier_model_selection_criteria": criterion, **options}
        return trained(folder, **BINARY, loss=loss, **named).answers(features)[1]

    accuracy, f_beta = said("accuracy"), said("f_beta")
    assert f1_score(labels, f_beta) > f1_score(labels, accuracy)
    assert accuracy_score(labels, accuracy) > accuracy_score(labels, f_beta)
    assert recall_score(labels, said("f_beta", f_beta=3)) > recall_score(labels, f_beta)
    precise = said("recall_at_target_precision", target_precision=0.75)
    assert 0.75 <= precision_score(labels, precise) < 0.8
    complete = said("precision_at_target_recall", target_recall=0.9)
    assert 0.9 <= recall_score(labels, complete) < 0.91


def test_positive_rows_may_weigh_more(folder: Any) -> None:
    features, labels = give_clouds(folder)

    def scores(weight: object) -> Any:
        return trained(folder, **BINARY, positive_example_weight_mult=weight).answers(features)[0]

    plain, balanced, automatic = scores(1.0), scores("balanced"), scores("auto")
    assert plain.mean() == pytest.approx(labels.mean(), abs=0.02)
    odds = balanced / (1 - balanced) / (plain / (1 - plain))
    assert numpy.median(odds) == pytest.approx(4, rel=0.15)
    assert roc_auc_score(labels, automatic) > roc_auc_score(labels, plain) - 0.002


def test_rare_classes_may_weigh_more(folder: Any) -> None:
    random = numpy.random.default_rng(8)
    labels = random.choice(3, 4000, p=[0.8, 0.15, 0.05])
    features = random.normal(size=(4000, 2)) + numpy.eye(3, 2)[labels] * 1.2
    folder.channel("train", {"a": dense(features, labels)}, RECORDIO)
    options = {"predictor_type": "multiclass_classifier", "num_classes": 3}
    plain = trained(folder, **options).answers(features)[1]
    balanced = trained(folder, **options, balance_multiclass_weights="true").answers(features)[1]
    assert (
        recall_score(labels, balanced, average="macro") > recall_score(labels, plain, average="macro") + 0.1
    )


def test_the_log_tells_the_metrics_that_scikit_learn_finds(folder: Any) -> None:
    give(folder, "cancer", "train", "validation", "test")
    code, out, err = folder.run("linear-learner", **BINARY, f_beta=1)
    assert code == 0, err
    found = metrics(out)
    model = load_model(folder.base / "model")
    for channel, (features, labels) in zip(("train", "validation", "test"), split("cancer"), strict=True):
        scores, said = model.answers(features)
        for name, value in (
            ("objective_loss", log_loss(labels, scores.astype(float))),
            ("binary_classification_accuracy", accuracy_score(labels, said)),
            ("precision", precision_score(labels, said)),
            ("recall", recall_score(labels, said)),
            ("binary_f_beta", f1_score(labels, said)),
            ("roc_auc_score", roc_auc_score(labels, scores)),
        ):
            final = ":final" if name == "objective_loss" and channel != "test" else ""
            assert found[f"{channel}:{name}{final}"] == pytest.approx(value, abs=1e-3), (channel, name)
    assert found["train:progress"] > 0 and found["train:throughput"] > 0
    assert re.search(r"#validation_score \(algo-1\) : \('roc_auc_score', [\d.]+\)", out)
    assert 'Best model found for hyperparameters: {"optimizer": "adam", "learning_rate": ' in out
    assert len(set(re.findall(r'"model": "(\d+)"', out))) == 32


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("wine", {"predictor_type": "multiclass_classifier", "num_classes": 3},
         ["multiclass_accuracy", "multiclass_top_k_accuracy", "dcg", "macro_precision", "macro_recall",
          "macro_f_beta", "objective_loss"]),
        ("diabetes", REGRESSOR, ["mse", "absolute_loss", "rmse", "objective_loss", "r2"]),
    ],
)  # fmt: skip
def test_other_tasks_have_metrics_of_their_own(
    folder: Any, capsys: pytest.CaptureFixture[str], name: str, options: Any, wanted: list[str]
) -> None:
    give(folder, name)
    trained(folder, **options)
    found = metrics(capsys.readouterr().out)
    assert {f"validation:{each}" for each in wanted} <= set(found)
    if name == "diabetes":
        assert found["validation:objective_loss:final"] == pytest.approx(found["validation:mse"], rel=1e-6)
        assert found["validation:rmse"] ** 2 == pytest.approx(found["validation:mse"], rel=1e-6)
    else:
        assert found["validation:multiclass_top_k_accuracy"] == 1  # the third guess of three


def test_training_ends_when_nothing_is_gained(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    give(folder, "cancer")
    trained(folder, **BINARY, epochs=500, early_stopping_patience=2, early_stopping_tolerance=0.01)
    out = capsys.readouterr().out
    epochs = out.count("#progress_metric")
    assert epochs < 100 and f"Stopping training after epoch {epochs - 1}." in out
    trained(folder, **BINARY, epochs=8, early_stopping_patience=9, early_stopping_tolerance=10)
    assert capsys.readouterr().out.count("#progress_metric") == 8


def test_the_model_is_an_archive_with_the_weights_of_raw_features(folder: Any) -> None:
    give(folder, "diabetes")
    model = trained(folder, **REGRESSOR)
    path = folder.base / "model/model_algo-1"
    assert set(zipfile.ZipFile(path).namelist()) == {
        "mx-mod-symbol.json", "mx-mod-0000.params", "additional-params.json", "manifest.json"
    }  # fmt: skip
    arrays = read_array_file(path)
    features = split("diabetes")[2][0]
    by_hand = features @ arrays["arg:fc0_weight"][0] + arrays["arg:fc0_bias"][0]
    assert numpy.allclose(by_hand, model.answers(features)[0], rtol=1e-5)


def test_without_a_bias_nothing_answers_nothing(folder: Any) -> None:
    give(folder, "diabetes")
    model = trained(folder, **REGRESSOR, use_bias="false", unbias_data="false", unbias_label="false")
    assert model.answers(numpy.zeros((1, 10), numpy.float32))[0] == 0


def test_l1_leaves_no_weight_to_features_that_say_nothing(folder: Any) -> None:
    random = numpy.random.default_rng(9)
    features = random.normal(size=(3000, 20))
    folder.channel("train", {"a": dense(features, features[:, 0] * 3 + random.normal(size=3000))}, RECORDIO)
    model = trained(folder, **REGRESSOR, l1=0.2, wd=0, num_models=1)
    assert abs(model.weights[0, 0] - 3) < 0.5 and (model.weights[1:] == 0).sum() >= 17


def test_models_differ_around_what_is_asked() -> None:
    asked = {**BINARY, "learning_rate": "0.02", "wd": "0.001"}
    settings = make_settings(make_plan(asked), 10)
    assert len(settings) == len(set(settings)) == 32
    assert (settings[0].learning_rate, settings[0].wd, settings[0].l1) == (0.02, 0.001, 0)
    [alone] = make_settings(make_plan({**asked, "l1": "0.5", "num_models": "1"}), 10)
    assert (alone.learning_rate, alone.wd, alone.l1) == (0.02, 0.001, 0.5)
    tuned = {**BINARY, "num_models": "8", "_tuning_objective_metric": "validation:objective_loss"}
    assert len(make_settings(make_plan(tuned), 10)) == 1
    assert len(make_settings(make_plan({**BINARY, "num_models": "100"}), 10)) == 100
    assert len(make_settings(make_plan(BINARY), 40_000_000)) == 1
    many = {"predictor_type": "multiclass_classifier", "num_classes": "10000"}
    assert len(make_settings(make_plan(many), 10)) == 3


def test_each_pass_is_a_pipe_of_its_own(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = load_digits(return_X_y=True)
    data = dense(features, labels > 4)
    options = {**BINARY, "epochs": 2, "mini_batch_size": 300, "num_point_for_scaler": 100}
    monkeypatch.setattr(passes, "LARGEST_KEPT_BYTES", 0)
    folder.channel("train", {"a": data}, RECORDIO)
    trained(folder, **options)
    expected = (folder.base / "model/model_algo-1").read_bytes()
    folder.channels["train"]["TrainingInputMode"] = "Pipe"
    folder.write("inputdataconfig.json", folder.channels)
    # The scaler's rows, two epochs, the choice of the model, and its metrics.
    pipes = [folder.base / f"input/data/train_{number}" for number in range(5)]
    for pipe in pipes:
        os.mkfifo(pipe)

    def write() -> None:
        for path in pipes:
            try:
                path.write_bytes(data)
            except BrokenPipeError:
                continue

    threading.Thread(target=write, daemon=True).start()
    trained(folder, **options)
    assert (folder.base / "model/model_algo-1").read_bytes() == expected


@pytest.mark.slow
def test_hosts_with_parts_of_the_data_train_as_one_does(cluster: Any, folder: Any) -> None:
    features, labels = two_clouds()
    folder.channel("train", {"a": dense(features, labels)}, RECORDIO)
    one = trained(folder, **BINARY, mini_batch_size=500)
    two, three = cluster(2), cluster(3)
    found = []
    for folders in (two, two, three):
        count = len(folders.hosts)
        for number, host in enumerate(folders.hosts):
            # The third host has nothing, and the first more than the second.
            part = {0: slice(0, 3500), 1: slice(3500, 6000)}.get(number, slice(0, 0))
            content = dense(features[part], labels[part]) if number < 2 else b""
            host.channel("train", {"a": content}, RECORDIO)
        ends = folders.run(algorithm="linear-learner", **BINARY, mini_batch_size=500)
        assert [code for code, _, _ in ends] == [0] * count, ends
        assert not (folders.hosts[1].base / "model/model_algo-1").exists()
        found.append(load_model(folders.first.base / "model"))
    assert (found[0].weights == found[1].weights).all() and found[0].bias == found[1].bias
    wanted = roc_auc_score(labels, one.answers(features)[0])
    for model in found:
        assert roc_auc_score(labels, model.answers(features)[0]) == pytest.approx(wanted, abs=0.002)


@pytest.mark.slow
def test_hosts_train_together_on_wide_sparse_records(cluster: Any) -> None:
    features, labels = word_counts(rows=1000, words=6000)
    folders = cluster(2)
    for number, host in enumerate(folders.hosts):
        host.channel("train", {"a": sparse(features[number::2], labels[number::2])}, RECORDIO)
    ends = folders.run(algorithm="linear-learner", **BINARY, mini_batch_size=100, num_models=4)
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert roc_auc_score(labels, load_model(folders.first.base / "model").answers(features)[0]) > 0.95


@pytest.mark.slow
def test_a_host_with_bad_data_ends_the_others_with_its_cause(cluster: Any) -> None:
    folders = cluster(2)
    features, labels = split("cancer")[0]
    folders.hosts[0].channel("train", {"a": dense(features, labels)}, RECORDIO)
    folders.hosts[1].channel("train", {"b": dense(features, labels + 1)}, RECORDIO)
    ends = folders.run(algorithm="linear-learner", **BINARY)
    assert [code for code, _, _ in ends] == [1, 1]
    assert "train/b, record" in folders.hosts[1].failure and "algo-2" in folders.first.failure


def test_a_job_told_to_stop_keeps_the_best_model_so_far(folder: Any) -> None:
    give(folder, "cancer")
    process = folder.start("linear-learner", **BINARY, epochs=10**6, early_stopping_patience=10**7)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch=3, validation" in line:
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Told to stop: keeping the best model so far" in out
    outside, truth = split("cancer")[2]
    assert roc_auc_score(truth, load_model(folder.base / "model").answers(outside)[0]) > 0.95


@pytest.mark.parametrize(
    ("content", "content_type", "options", "message"),
    [
        (b"0,1\n1,2\n2,3\n", "text/csv", {},
         "train/a, line 3: the label is 2, but must be 0 or 1 for a binary_classifier"),
        (b"0,1\n3,2\n", "text/csv", {"predictor_type": "multiclass_classifier", "num_classes": 3},
         "train/a, line 2: the label is 3, but must be a whole number from 0 to num_classes - 1, which is 2"),
        (b"0.5,2\n", "text/csv", {"predictor_type": "multiclass_classifier", "num_classes": 3},
         "the label is 0.5"),
        (b"0,1\n,2\n", "text/csv", {}, "train/a, line 2: the label is missing, NaN or infinite"),
        (b"0,1,2\n1,2,inf\n", "text/csv", {}, "train/a, line 2: feature 2 is infinite"),
        (b"0,1,2\n1,2\n", "text/csv", {}, "train/a, line 2: 2 columns, but the lines before have 3"),
        (b"0,1,2\n", "text/csv", {"feature_dim": 3}, "has 2 features, but feature_dim is 3"),
        (b"0,a\n", "text/csv", {}, "train/a, line 1, column 2: 'a' is not a number"),
        (b"1,2,3\n", "text/csv;label_size=2", {}, "there are 2 labels, but there must be one"),
        (b"1,2\n", "text/csv;label_size=0", {}, "label_size must be at least 1"),
        (b"", "text/csv", {}, "The files of channel 'train' are empty"),
        (b"0 1:2", "text/libsvm", {}, "The content type 'text/libsvm' of channel 'train'"),
        (dense(*split("cancer")[0])[:-9], RECORDIO, {}, "the file ends within"),
    ],
)  # fmt: skip
def test_bad_data_is_refused_with_its_place(
    folder: Any, content: bytes, content_type: str, options: dict[str, object], message: str
) -> None:
    folder.channel("train", {"a": content}, content_type)
    with pytest.raises(ClientError) as raised:
        trained(folder, **{**BINARY, **options})
    assert message in str(raised.value)


def test_a_channel_of_another_width_is_refused(folder: Any) -> None:
    folder.channel("train", {"a": b"0,1,2\n1,2,3\n"})
    folder.channel("validation", {"v": b"0,1\n"})
    with pytest.raises(ClientError, match=r"validation/v, line 1.* 1 features, but feature_dim is 2"):
        trained(folder, **BINARY)


def test_a_model_that_runs_away_is_told(folder: Any) -> None:
    give(folder, "diabetes")
    with pytest.raises(ClientError, match=r"Training has diverged.*lower learning_rate"):
        trained(folder, **REGRESSOR, optimizer="sgd", learning_rate=1e9, num_models=1)


@pytest.mark.parametrize("labels", [b"0,1\n0,2\n0,3\n", b"1,1\n1,1\n1,1\n"])
def test_labels_or_features_all_alike_are_no_mistake(folder: Any, labels: bytes) -> None:
    folder.channel("train", {"a": labels})
    model = trained(folder, **BINARY)
    assert numpy.isfinite(model.weights).all()
    assert model.answers(numpy.ones((1, 1), numpy.float32))[1] == [int(labels[:1])]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"predictor_type": "classifier"},
            "Hyperparameter predictor_type: 'classifier' is not in [binary_classifier",
        ),
        ({"predictor_type": "multiclass_classifier"}, "num_classes must be from 3 to 1000000"),
        ({"loss": "squared_loss"}, "loss 'squared_loss' does not go with predictor_type binary_classifier"),
        ({"learning_rate": "0"}, "Hyperparameter learning_rate: '0' is not in (0, +inf) or auto"),
        ({"target_recall": "1"}, "Hyperparameter target_recall: '1' is not in (0, 1)"),
        ({"positive_example_weight_mult": "even"}, "or balanced or auto"),
        ({"num_models": "few"}, "'few' is not a whole number"),
        ({"depth": "2"}, "Additional properties are not allowed ('depth' was unexpected)"),
    ],
)
def test_bad_hyperparameters_are_refused(values: dict[str, str], words: str) -> None:
    [error] = check_hyperparameters(SPEC, {**BINARY, **values})
    assert words in error


def test_the_image_and_what_the_sdk_sends_are_taken() -> None:
    sent = {**BINARY, "feature_dim": "30", "mini_batch_size": "400", "num_classes": "1", "_kvstore": "auto",
            "_num_gpus": "auto", "positive_example_weight_mult": "balanced", "wd": "auto"}  # fmt: skip
    assert check_hyperparameters(SPEC, sent) == []
    assert find_algorithm("linear-learner", "1") is SPEC


@pytest.mark.parametrize(
    ("asked", "rows", "wanted"),
    [("100", 5000, 100), (None, 5000, 312), (None, 10**6, 1000), (None, None, 1000), ("400", 400, 25),
     ("1000", 100, 16), ("5000", None, 5000)],
)  # fmt: skip
def test_few_rows_are_worth_several_steps_an_epoch(asked: str | None, rows: int | None, wanted: int) -> None:
    plan = make_plan({**BINARY, **({"mini_batch_size": asked} if asked else {})})
    assert batch_size(plan, rows) == wanted


def test_features_far_from_zero_are_no_harder(folder: Any) -> None:
    features, labels = two_clouds(0.5)
    near = (features * 256).round() / 256  # what is left of them at a distance, too
    answers = []
    for offset in (0, 50_000):
        folder.channel("train", {"a": dense(near + offset, labels)}, RECORDIO)
        answers.append(trained(folder, **BINARY, epochs=3).answers((near + offset).astype(numpy.float32))[0])
    assert numpy.abs(answers[0] - answers[1]).max() < 1e-3


@pytest.mark.slow
def test_hosts_told_to_stop_keep_the_best_model_so_far(cluster: Any) -> None:
    features, labels = two_clouds()
    folders = cluster(2)
    for number, host in enumerate(folders.hosts):
        host.channel("train", {"a": dense(features[number::2], labels[number::2])}, RECORDIO)
    programs = folders.start(
        algorithm="linear-learner", **BINARY, epochs=10**6, early_stopping_patience=10**7, num_models=1
    )
    for line in programs[0].stdout:
        if "epoch=2, train" in line:
            break
    for program in programs:
        program.send_signal(signal.SIGTERM)
    ends = folders.finish(programs)
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert roc_auc_score(labels, load_model(folders.first.base / "model").answers(features)[0]) > 0.8
