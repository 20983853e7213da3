"""Factorization Machines: they find what goes together, on one host and several, and answer as documented."""

from __future__ import annotations

import json
import re
import signal
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_squared_error

from clary.algorithms.algorithm import check_hyperparameters, find_algorithm, get_algorithm
from clary.algorithms.entrypoint import load_predictor
from clary.algorithms.factorization_machines.machine import Machine, make_plan
from clary.algorithms.factorization_machines.model import Model, load_model
from clary.algorithms.factorization_machines.train import train
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.ndarrays import read_array_file
from clary.algorithms.formats.recordio import Tensor, read_rows, write_frame, write_record, write_uniform

RECORDIO = "application/x-recordio-protobuf"
SPEC = get_algorithm("factorization-machines")
USERS, ITEMS, FACTORS = 40, 30, 3
WIDTH = USERS + ITEMS
ASKED = {"feature_dim": WIDTH, "num_factors": 4}
REGRESSOR = {**ASKED, "predictor_type": "regressor"}
BINARY = {**ASKED, "predictor_type": "binary_classifier"}
# Two thousand ratings are few: steps are larger than by default, and there are more of them.
QUICK = {
    "epochs": 60,
    "mini_batch_size": 50,
    "factors_lr": 0.01,
    "linear_lr": 0.01,
    "factors_init_sigma": 0.1,
}


def ratings(rows: int = 3000) -> Any:
    """Who rates what, as sparse rows with two ones, and how: tastes that meet properties, and some noise."""
    random = numpy.random.default_rng(11)
    users, items = random.integers(0, USERS, rows), random.integers(0, ITEMS, rows)
    tastes, properties = random.normal(size=(USERS, FACTORS)), random.normal(size=(ITEMS, FACTORS))
    labels = 3 + (tastes[users] * properties[items]).sum(axis=1) + random.normal(size=rows) * 0.1
    columns = numpy.column_stack([users, items + USERS]).ravel()
    features = csr_matrix(
        (numpy.ones(2 * rows, numpy.float32), columns, numpy.arange(rows + 1) * 2), (rows, WIDTH)
    )
    return features, labels.astype(numpy.float32)


def sparse(features: Any, labels: Any) -> bytes:
    return b"".join(
        write_frame(
            write_record(
                {"values": Tensor(row.data, row.indices.astype(numpy.int64), row.shape[1:])},
                {"values": Tensor(numpy.array([label], numpy.float32))},
            )
        )
        for row, label in zip(features, labels, strict=True)
    )


def give(folder: Any, features: Any, labels: Any) -> None:
    cut = len(labels) * 2 // 3
    folder.channel("train", {"a": sparse(features[:cut], labels[:cut])}, RECORDIO)
    folder.channel("test", {"a": sparse(features[cut:], labels[cut:])}, RECORDIO)


def trained(folder: Any, **hyperparameters: object) -> Any:
    job = folder.job(**hyperparameters)
    job.model.mkdir(exist_ok=True)
    train(job)
    return load_model(job.model)


def metrics(out: str) -> dict[str, float]:
    lines = "\n".join(line for line in out.splitlines() if "batch=" not in line)
    return {m.name: float(found[-1]) for m in SPEC.metrics if (found := re.findall(m.regex, lines))}


def test_a_regressor_finds_what_goes_together(folder: Any) -> None:
    features, labels = ratings()
    give(folder, features, labels)
    code, out, err = folder.run("factorization-machines", **REGRESSOR, **QUICK)
    assert code == 0, err
    scores = load_model(folder.base / "model").raw_scores(features[2000:])
    error = mean_squared_error(labels[2000:], scores) ** 0.5
    # A linear model cannot do better than the spread of what goes together.
    assert error < 0.35 * labels.std()
    found = metrics(out)
    assert found["test:rmse"] == pytest.approx(error, rel=1e-4)
    assert found["test:mse"] == pytest.approx(error**2, rel=1e-4)
    assert found["train:rmse"] < 0.35 * labels.std() and found["train:progress"] == 100
    assert re.search(r"epoch=0, batch=0 train rmse <loss>=\S+", out)
    assert re.search(r"#test_score \(algo-1\) : \('rmse', \S+\)", out)


def test_a_classifier_finds_what_goes_together(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    features, labels = ratings()
    labels = (labels > 3).astype(numpy.float32)
    give(folder, features, labels)
    model = trained(folder, **BINARY, **{**QUICK, "epochs": 30})
    raw = model.raw_scores(features[2000:]).astype(float)
    said = raw >= 0
    found = metrics(capsys.readouterr().out)
    assert accuracy_score(labels[2000:], said) > 0.85
    for name, value in (
        ("accuracy", accuracy_score(labels[2000:], said)),
        ("cross_entropy", log_loss(labels[2000:], 1 / (1 + numpy.exp(-raw)))),
    ):
        assert found[f"test:binary_classification_{name}"] == pytest.approx(value, rel=1e-4)
    assert found["test:binary_f_beta"] == pytest.approx(f1_score(labels[2000:], said), rel=1e-4)


@pytest.mark.parametrize("binary", [False, True])
def test_gradients_are_those_of_the_score(binary: bool) -> None:
    plan = make_plan(SPEC.complete({"feature_dim": "5", "num_factors": "3", "predictor_type": "regressor",
                                    "factors_init_sigma": "1", "linear_init_sigma": "1"}))  # fmt: skip
    machine = Machine(plan)
    features = csr_matrix(numpy.array([[1, 0, 2, 0, 0], [0, 3, -1, 0, 0.5]], numpy.float32))
    batch = machine.batch(features)
    weights, present = machine._weights.astype(float), [0, 1, 2, 4]

    def score(table: Any) -> Any:
        rows = features.toarray().astype(float)
        pairs = [
            sum(x[i] * x[j] * (table[i, 1:] @ table[j, 1:]) for i in range(5) for j in range(i)) for x in rows
        ]
        return table[-1, 0] + rows @ table[:-1, 0] + pairs

    assert numpy.allclose(batch.scores, score(weights), atol=1e-5)
    slopes = numpy.array([0.5, -2.0])
    gradient = batch.gradient(slopes)
    assert gradient.features is not None and gradient.features.tolist() == present
    for row, name in enumerate([*present, 5]):
        for column in range(4 if name < 5 else 1):
            moved = weights.copy()
            moved[name, column] += 1e-5
            numeric = slopes @ (score(moved) - score(weights)) / 1e-5
            assert gradient.values[row, column] == pytest.approx(numeric, abs=1e-3)


def test_the_same_job_gives_the_same_model_and_dense_rows_the_same_as_sparse_ones(folder: Any) -> None:
    features, labels = ratings(600)
    give(folder, features, labels)
    options = {**REGRESSOR, "epochs": 2, "mini_batch_size": 50}
    trained(folder, **options)
    first = (folder.base / "model/model_algo-1").read_bytes()
    trained(folder, **options)
    assert (folder.base / "model/model_algo-1").read_bytes() == first
    dense = write_uniform({"values": features[:400].toarray()}, {"values": labels[:400, None]})
    folder.channel("train", {"a": dense}, RECORDIO)
    again = trained(folder, **options)
    wanted = read_array_file(folder.base / "model/model_algo-1")
    assert numpy.allclose(again.factors, wanted["arg:v"])


def test_the_model_is_an_archive_with_named_arrays(folder: Any) -> None:
    give(folder, *ratings(300))
    trained(folder, **REGRESSOR)
    path = folder.base / "model/model_algo-1"
    assert set(zipfile.ZipFile(path).namelist()) == {"symbol.json", "params"}
    shapes = {name: array.shape for name, array in read_array_file(path).items()}
    assert shapes == {"arg:w0_weight": (1, 1), "arg:w1_weight": (WIDTH, 1), "arg:v": (WIDTH, 4)}


def test_starts_are_as_asked(folder: Any) -> None:
    give(folder, *ratings(300))
    still = {"bias_lr": 0, "linear_lr": 0, "factors_lr": 0}
    constant = {"bias_init_method": "constant", "bias_init_value": 0.5, "factors_init_method": "constant",
                "factors_init_value": -2, "linear_init_method": "uniform",
                "linear_init_scale": 0.3}  # fmt: skip
    model = trained(folder, **REGRESSOR, **still, **constant)
    assert model.bias == 0.5 and (model.factors == -2).all()
    assert 0.25 < numpy.abs(model.linear).max() <= 0.3 and abs(model.linear.mean()) < 0.1
    model = trained(folder, **{**REGRESSOR, "num_factors": 100}, **still, factors_init_sigma=0.2)
    assert model.factors.std() == pytest.approx(0.2, rel=0.05)


def test_penalties_shrink_and_clipped_gradients_still_learn(folder: Any) -> None:
    features, labels = ratings(900)
    give(folder, features, labels)
    free = trained(folder, **REGRESSOR, **{**QUICK, "epochs": 20})
    held = trained(folder, **REGRESSOR, **{**QUICK, "epochs": 20}, factors_wd=0.5)
    assert numpy.abs(held.factors).mean() < 0.3 * numpy.abs(free.factors).mean()
    clipped = trained(folder, **REGRESSOR, **QUICK, clip_gradient=0.001, rescale_grad=0.02)
    inside = mean_squared_error(labels[:600], clipped.raw_scores(features[:600])) ** 0.5
    assert inside < 0.7 * labels.std()


@pytest.mark.slow
def test_hosts_with_parts_of_the_data_train_as_one_does(cluster: Any, folder: Any) -> None:
    features, labels = ratings()
    give(folder, features, labels)
    options = {**REGRESSOR, **QUICK, "epochs": 30}
    one = trained(folder, **options)
    folders = cluster(3)
    for number, host in enumerate(folders.hosts):
        part = {0: slice(0, 1200), 1: slice(1200, 2000)}.get(number, slice(0, 0))
        host.channel("train", {"a": sparse(features[part], labels[part]) if number < 2 else b""}, RECORDIO)
    ends = folders.run(algorithm="factorization-machines", **options)
    assert [code for code, _, _ in ends] == [0, 0, 0], ends
    assert not (folders.hosts[1].base / "model/model_algo-1").exists()
    errors = [
        mean_squared_error(labels[2000:], model.raw_scores(features[2000:])) ** 0.5
        for model in (one, load_model(folders.first.base / "model"))
    ]
    assert errors[1] <= errors[0] * 1.1


def test_a_job_told_to_stop_keeps_the_model_as_it_is(folder: Any) -> None:
    give(folder, *ratings(900))
    process = folder.start("factorization-machines", **REGRESSOR, epochs=10**6, mini_batch_size=50)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch=3, batch=0" in line:
            process.send_signal(signal.SIGTERM)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Told to stop: keeping the model as it is" in out
    assert load_model(folder.base / "model").features == WIDTH


@pytest.mark.parametrize(
    ("content", "content_type", "options", "message"),
    [
        (b"1,2\n", "text/csv", {}, "The content type 'text/csv' of channel 'train'"),
        (sparse(*ratings(3)), RECORDIO, {**BINARY}, "record 1: the label is"),
        (sparse(*ratings(3)), RECORDIO, {"feature_dim": 60}, "has 70 features, but feature_dim is 60"),
        (sparse(*ratings(3))[:-9], RECORDIO, {}, "the file ends within"),
        (b"", RECORDIO, {}, "The files of channel 'train' are empty"),
        (sparse(ratings(2)[0] * numpy.inf, numpy.ones(2)), RECORDIO, {}, "is infinite"),
        (sparse(*ratings(30)), RECORDIO,
         {"bias_lr": 1e38, "linear_lr": 1e38, "epochs": 3, "mini_batch_size": 5},
         "Training has diverged"),
    ],
)  # fmt: skip
def test_bad_data_is_refused_with_its_place(
    folder: Any, content: bytes, content_type: str, options: dict[str, object], message: str
) -> None:
    folder.channel("train", {"a": content}, content_type)
    with pytest.raises(ClientError) as raised:
        trained(folder, **{**REGRESSOR, **options})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_factors": "0"}, "Hyperparameter num_factors: '0' is not in [1, 10000]"),
        ({"predictor_type": "multiclass_classifier"}, "is not in [binary_classifier, regressor]"),
        ({"bias_init_method": "constant"}, "which needs bias_init_value"),
        ({"linear_init_method": "uniform"}, "which needs linear_init_scale"),
        ({"factors_lr": "-1"}, "Hyperparameter factors_lr: '-1' is not in [0, +inf)"),
        ({"k": "2"}, "Additional properties are not allowed ('k' was unexpected)"),
    ],
)
def test_bad_hyperparameters_are_refused(values: dict[str, str], words: str) -> None:
    given = {name: str(value) for name, value in REGRESSOR.items()} | values
    [error] = check_hyperparameters(SPEC, given)
    assert words in error


def test_the_image_means_it() -> None:
    assert find_algorithm("factorization-machines", "1") is SPEC


def saved(folder: Path, binary: bool) -> Any:
    factors = numpy.array([[1, 0], [0.5, 1], [2, -1]], numpy.float32)
    Model(binary, numpy.array([-1], numpy.float32), numpy.array([1, 0, 0.25], numpy.float32), factors).save(
        folder
    )
    return load_predictor("factorization-machines", folder)


# Of the row (1, 2, 0): -1 + 1 + (1 * 2) * 0.5; of (0, 0, 4): -1 + 1.
RAW = [1.0, 0.0]
DENSE = b'{"instances": [{"features": [1, 2, 0]}, {"features": [0, 0, 4]}]}'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (DENSE, "application/json"),
        (b'{"instances": [{"data": {"features": {"keys": [0, 1], "shape": [3], "values": [1, 2]}}},'
         b'{"data": {"features": {"keys": [2], "shape": [3], "values": [4]}}}]}', "application/json"),
        (b'{"features": [1, 2, 0]}\n{"features": [0, 0, 4]}\n', "application/jsonlines"),
        (write_uniform({"values": numpy.array([[1, 2, 0], [0, 0, 4]], numpy.float32)}, {}), RECORDIO),
    ],
)  # fmt: skip
def test_every_request_type_is_answered_alike(tmp_path: Path, body: bytes, content_type: str) -> None:
    status, reply, reply_type = saved(tmp_path, False)(body, content_type, "")
    assert (status, reply_type) == (200, "application/json"), reply
    assert json.loads(reply) == {"predictions": [{"score": score} for score in RAW]}


def test_a_classifier_answers_with_probability_and_label(tmp_path: Path) -> None:
    answer = saved(tmp_path, True)
    predictions = json.loads(answer(DENSE, "application/json", "application/json")[1])["predictions"]
    assert [each["predicted_label"] for each in predictions] == [1, 1]
    assert (
        predictions[0]["score"] == pytest.approx(1 / (1 + numpy.exp(-1))) and predictions[1]["score"] == 0.5
    )
    first, _ = read_rows(answer(DENSE, "application/json", RECORDIO)[1], "reply")
    assert set(first.label) == {"score", "predicted_label"}


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    answer = saved(tmp_path, False)
    assert answer(b"1,2,0", "text/csv", "")[0] == 415
    status, reply, _ = answer(b'{"instances": [{"features": [1, 2]}]}', "application/json", "")
    assert status == 400 and b"2 features" in reply
    (tmp_path / "model_algo-1").write_bytes(b"nothing")
    with pytest.raises(ClientError, match="model_algo-1"):
        load_predictor("factorization-machines", tmp_path)
