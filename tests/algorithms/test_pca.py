"""PCA: the components that a singular value decomposition of all records gives, from one pass over them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
from scipy.linalg import subspace_angles
from sklearn.datasets import load_breast_cancer, load_digits

from clary.algorithms.algorithm import check_hyperparameters, find_algorithm, get_algorithm
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.ndarrays import read_array_file, write_arrays
from clary.algorithms.formats.recordio import Tensor, read_rows, write_frame, write_record, write_uniform
from clary.algorithms.pca import train as training
from clary.algorithms.pca.predict import load
from clary.algorithms.pca.train import train

RECORDIO = "application/x-recordio-protobuf"
SPEC = get_algorithm("pca")


def digits() -> Any:
    return load_digits().data.astype(numpy.float32)


def uniform(rows: Any) -> bytes:
    return write_uniform({"values": rows}, {})


def sparse(rows: Any) -> bytes:
    return b"".join(
        write_frame(write_record({"values": Tensor(row[row != 0], numpy.flatnonzero(row), (len(row),))}, {}))
        for row in rows
    )


def arrays_of(folder: Any) -> Any:
    return read_array_file(folder.base / "model/model_algo-1")


def trained(folder: Any, **hyperparameters: object) -> Any:
    train(folder.job(**{"mini_batch_size": 100, **hyperparameters}))
    return arrays_of(folder)


def decomposed(rows: Any, components: int, centred: bool = True) -> tuple[Any, Any]:
    """Right singular vectors in columns and singular values, the largest last."""
    rows = rows.astype(float)
    rows = rows - rows.mean(axis=0) if centred else rows
    _, values, vectors = numpy.linalg.svd(rows, full_matrices=False)
    return vectors[:components].T[:, ::-1], values[:components][::-1]


def error(found: Any, true: Any) -> float:
    return float(numpy.sin(subspace_angles(found.astype(float), true).max()))


@pytest.mark.parametrize("content", [uniform, sparse])
@pytest.mark.parametrize("centred", [True, False])
def test_components_are_those_of_a_decomposition(folder: Any, content: Any, centred: bool) -> None:
    rows = digits()
    folder.channel("train", {"a": content(rows)}, RECORDIO)
    found = trained(folder, feature_dim=64, num_components=10, subtract_mean=str(centred).lower())
    vectors, values = decomposed(rows, 10, centred)
    assert error(found["v"], vectors) <= 1e-6
    assert found["v"].shape == (64, 10) and numpy.allclose(found["s"], values, rtol=1e-5)
    # Column by column: in ascending order, and up to the sign.
    assert numpy.allclose(numpy.abs((found["v"] * vectors).sum(axis=0)), 1, atol=1e-5)
    assert ("mean" in found) is centred
    if centred:
        assert found["mean"].shape == (1, 64) and numpy.allclose(found["mean"][0], rows.mean(axis=0))


def test_data_far_from_the_origin_loses_nothing(folder: Any) -> None:
    rows = (load_breast_cancer().data + 1e4).astype(numpy.float32)
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    found = trained(folder, feature_dim=30, num_components=3)
    assert error(found["v"], decomposed(rows, 3)[0]) <= 1e-6


def test_narrow_records_are_exact_in_randomized_mode_too(folder: Any) -> None:
    folder.channel("train", {"a": uniform(digits())}, RECORDIO)
    found = trained(folder, feature_dim=64, num_components=5, algorithm_mode="randomized")
    assert error(found["v"], decomposed(digits(), 5)[0]) <= 1e-6


@pytest.mark.parametrize("content", [uniform, sparse])
@pytest.mark.parametrize("centred", ["true", "false"])
def test_a_sketch_of_wide_records_holds_nearly_all_variance(
    folder: Any, monkeypatch: Any, content: Any, centred: str
) -> None:
    monkeypatch.setattr(training, "WIDEST_EXACT", 0)
    rows = digits()
    folder.channel("train", {"a": content(rows)}, RECORDIO)
    held = {}
    for extra in (-1, 40):
        found = trained(
            folder, feature_dim=64, num_components=10, algorithm_mode="randomized",
            extra_components=extra, subtract_mean=centred,
        )  # fmt: skip
        assert (numpy.diff(found["s"]) >= 0).all()
        basis = found["v"].astype(float)
        assert numpy.allclose(basis.T @ basis, numpy.eye(10), atol=1e-5)
        points = rows.astype(float) - (rows.mean(axis=0) if centred == "true" else 0)
        best = (decomposed(rows, 10, centred == "true")[1] ** 2).sum()
        held[extra] = ((points @ basis) ** 2).sum() / best
    assert held[-1] > 0.93 and held[40] > 0.999


def test_a_sketch_of_few_dimensions_is_exact(folder: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(training, "WIDEST_EXACT", 0)
    random = numpy.random.default_rng(2)
    rows = (random.normal(size=(500, 3)) @ random.normal(size=(3, 40)) + 7).astype(numpy.float32)
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    found = trained(folder, feature_dim=40, num_components=3, algorithm_mode="randomized")
    vectors, values = decomposed(rows, 3)
    assert error(found["v"], vectors) < 1e-3 and numpy.allclose(found["s"], values, rtol=1e-3)


def test_csv_and_a_label_column_make_no_difference(folder: Any, csv_bytes: Any) -> None:
    rows = digits()
    folder.channel("train", {"a": uniform(rows)}, RECORDIO)
    expected = trained(folder, feature_dim=64, num_components=4)
    labelled = numpy.column_stack([load_digits().target, rows])
    folder.channel("train", {"a": csv_bytes(labelled)}, "text/csv;label_size=1")
    assert (trained(folder, feature_dim=64, num_components=4)["v"] == expected["v"]).all()


@pytest.mark.slow
def test_hosts_add_up_to_one(cluster: Any) -> None:
    rows = digits()
    for count in (2, 3):
        folders = cluster(count)
        for number, host in enumerate(folders.hosts):
            part = rows[number::2] if number < 2 else rows[:0]  # the third host has no records
            host.channel("train", {"part": uniform(part) if len(part) else b""}, RECORDIO)
        ends = folders.run(algorithm="pca", feature_dim=64, num_components=10, mini_batch_size=100)
        assert [code for code, _, _ in ends] == [0] * count, ends
        assert not (folders.hosts[1].base / "model/model_algo-1").exists()
        found = arrays_of(folders.first)
        assert error(found["v"], decomposed(rows, 10)[0]) <= 1e-6
        assert numpy.allclose(found["mean"][0], rows.mean(axis=0), rtol=1e-5)


def test_the_log_tells_progress_and_the_tests_share_of_variance(folder: Any) -> None:
    rows = digits()
    folder.channel("train", {"a": uniform(rows[:1500])}, RECORDIO)
    folder.channel("test", {"a": uniform(rows[1500:])}, RECORDIO)
    code, out, err = folder.run("pca", feature_dim=64, num_components=64, mini_batch_size=100)
    assert code == 0, err
    names = {metric.name for metric in SPEC.metrics if re.search(metric.regex, out)}
    assert names == {"train:progress", "train:throughput"}
    share = re.search(r"#test_score \(algo-1\) : \('explained_variance_ratio', (\S+)\)", out)
    assert share and float(share.group(1)) == pytest.approx(1, abs=1e-4)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    arrays = {
        "mean": numpy.array([[1, 2, 3]], numpy.float32),
        "v": numpy.array([[0, 1], [1, 0], [0, 0]], numpy.float32),
        "s": numpy.array([1, 2], numpy.float32),
    }
    (tmp_path / "model_algo-1").write_bytes(write_arrays(arrays))
    return tmp_path


def test_projections_are_answered(model: Path) -> None:
    answer = load(model)
    status, reply, kind = answer(b"2,5,9\n1,2,3\n", "text/csv", "")
    assert (status, kind) == (200, "application/json")
    assert json.loads(reply) == {"projections": [{"projection": [3.0, 1.0]}, {"projection": [0.0, 0.0]}]}
    _, reply, _ = answer(b"2,5,9\n", "text/csv", "application/jsonlines")
    assert json.loads(reply) == {"projection": [3.0, 1.0]}
    _, reply, _ = answer(b"2,5,9\n", "text/csv", RECORDIO)
    [row] = read_rows(reply, "reply")
    assert row.label["projection"].values.tolist() == [3.0, 1.0]
    assert answer(b"2,5,9\n", "text/csv", "text/csv")[0] == 406


def test_a_sparse_request_is_answered(model: Path) -> None:
    body = b'{"instances": [{"data": {"features": {"keys": [1], "shape": [3], "values": [5]}}}]}'
    _, reply, _ = load(model)(body, "application/json", "")
    assert json.loads(reply) == {"projections": [{"projection": [3.0, -1.0]}]}


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"1,2\n3,4\n", {"num_components": 2, "feature_dim": 3}, "has 2 features, but feature_dim is 3"),
        (b"1,2\n", {"num_components": 2}, "num_components is 2, but the channel 'train' holds 1 record(s)"),
        (b"1,2\n3,inf\n", {}, "train/a, line 2: feature 2 is infinite"),
        (b"", {}, "The files of channel 'train' are empty"),
    ],
)
def test_bad_data_is_refused_with_its_place(
    folder: Any, content: bytes, options: dict[str, object], message: str
) -> None:
    folder.channel("train", {"a": content}, "text/csv;label_size=0")
    with pytest.raises(ClientError) as raised:
        trained(folder, **{"num_components": 1, "feature_dim": 2, **options})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_components": "4"}, "num_components is 4, but there are no more components than features"),
        ({"extra_components": "-2"}, "'-2' is not in [-1, "),
        ({"algorithm_mode": "exact"}, "'exact' is not in [regular, randomized]"),
        ({"subtract_mean": "maybe"}, "'maybe' is not in [true, false]"),
    ],
)
def test_bad_hyperparameters_are_refused(values: dict[str, str], words: str) -> None:
    given = {"feature_dim": "3", "num_components": "2", "mini_batch_size": "10", **values}
    [error] = check_hyperparameters(SPEC, given)
    assert words in error


def test_what_the_sdk_sends_is_taken() -> None:
    sent = {"feature_dim": "3", "num_components": "2", "mini_batch_size": "10", "subtract_mean": "True",
            "algorithm_mode": "regular", "extra_components": "10"}  # fmt: skip
    assert check_hyperparameters(SPEC, sent) == []
    assert SPEC.resolve(sent)["subtract_mean"] == "true"
    assert find_algorithm("pca", "1") is SPEC


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w": numpy.zeros((2, 2), numpy.float32)}, "must hold a matrix 'v'"),
        ({"v": numpy.zeros((2, 2), numpy.float32), "mean": numpy.zeros(3, numpy.float32)}, "a mean of 3"),
    ],
)
def test_a_model_that_will_not_do_is_told(tmp_path: Path, arrays: Any, message: str) -> None:
    (tmp_path / "model_algo-1").write_bytes(write_arrays(arrays))
    with pytest.raises(ClientError, match=message):
        load(tmp_path)
