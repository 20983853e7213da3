"""What an endpoint with a Linear Learner model answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from clary.algorithms.entrypoint import load_predictor
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.recordio import Tensor, read_rows, write_frame, write_record, write_uniform
from clary.algorithms.linear_learner.model import Model

RECORDIO = "application/x-recordio-protobuf"
ROWS = numpy.array([[1, 2], [-3, 0.5]], numpy.float32)


def saved(folder: Path, **changes: Any) -> Any:
    model = {
        "predictor_type": "binary_classifier",
        "loss": "logistic",
        "weights": numpy.array([[1], [0.5]], numpy.float32),
        "bias": numpy.array([-0.5], numpy.float32),
        "threshold": 0.25,
        **changes,
    }
    Model(**model).save(folder)
    return load_predictor("linear-learner", folder)


def by_hand() -> Any:
    return 1 / (1 + numpy.exp(-(ROWS @ [1, 0.5] - 0.5)))


def sparse_record(keys: list[int], values: list[float]) -> bytes:
    tensor = Tensor(numpy.array(values, numpy.float32), numpy.array(keys), (2,))
    return write_frame(write_record({"values": tensor}, {}))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"1,2\n-3,0.5\n", "text/csv"),
        (b"1,2\n-3,0.5", "text/csv; label_size=0"),
        (b'{"instances": [{"features": [1, 2]}, {"data": {"features": {"values": [-3, 0.5]}}}]}',
         "application/json"),
        (b'{"features": [1, 2]}\n{"data": {"features": {"keys": [0, 1], "shape": [2], "values": [-3, 0.5]}}}',
         "application/jsonlines"),
        (write_uniform({"values": ROWS}, {}), RECORDIO),
        (sparse_record([0, 1], [1, 2]) + sparse_record([0, 1], [-3, 0.5]), RECORDIO),
    ],
)  # fmt: skip
def test_every_request_type_is_answered_alike(tmp_path: Path, body: bytes, content_type: str) -> None:
    status, reply, reply_type = saved(tmp_path)(body, content_type, "")
    assert (status, reply_type) == (200, "application/json"), reply
    predictions = json.loads(reply)["predictions"]
    assert [each["predicted_label"] for each in predictions] == [1, 0]
    assert numpy.allclose([each["score"] for each in predictions], by_hand())


def test_replies_are_of_the_accepted_type(tmp_path: Path) -> None:
    answer = saved(tmp_path)
    status, reply, _ = answer(b"1,2\n-3,0.5\n", "text/csv", "application/jsonlines")
    assert status == 200
    assert [json.loads(line)["predicted_label"] for line in reply.splitlines()] == [1, 0]
    _, reply, _ = answer(b"1,2\n-3,0.5\n", "text/csv", RECORDIO)
    records = list(read_rows(reply, "reply"))
    assert [float(record.label["predicted_label"].values[0]) for record in records] == [1, 0]
    assert numpy.allclose([record.label["score"].values[0] for record in records], by_hand())
    assert {record.label["score"].values.dtype for record in records} == {numpy.dtype(numpy.float32)}
    assert answer(b"1,2\n", "text/csv", "image/png")[0] == 406


def test_a_multiclass_model_answers_with_a_score_for_each_class(tmp_path: Path) -> None:
    weights = numpy.array([[1, 0, -1], [0, 1, 0]], numpy.float32)
    answer = saved(tmp_path, predictor_type="multiclass_classifier", loss="softmax_loss", weights=weights,
                   bias=numpy.zeros(3, numpy.float32))  # fmt: skip
    _, reply, _ = answer(b"1,2\n-3,0.5\n", "text/csv", "application/json")
    first, second = json.loads(reply)["predictions"]
    odds = numpy.exp([1, 2, -1])
    assert numpy.allclose(first["score"], odds / odds.sum()) and first["predicted_label"] == 1
    assert second["predicted_label"] == 2
    record, _ = read_rows(answer(b"1,2\n-3,0.5\n", "text/csv", RECORDIO)[1], "reply")
    assert len(record.label["score"].values) == 3


def test_a_regressor_answers_with_a_score_only(tmp_path: Path) -> None:
    answer = saved(tmp_path, predictor_type="regressor", loss="squared_loss")
    assert json.loads(answer(b"1,2", "text/csv", "application/json")[1]) == {"predictions": [{"score": 1.5}]}


def test_a_score_of_hinge_loss_is_a_margin(tmp_path: Path) -> None:
    answer = saved(tmp_path, loss="hinge_loss", threshold=1.5)
    predictions = json.loads(answer(b"1,2\n1,1\n", "text/csv", "application/json")[1])["predictions"]
    assert predictions == [{"score": 1.5, "predicted_label": 1}, {"score": 1.0, "predicted_label": 0}]


@pytest.mark.parametrize(("threshold", "label"), [(float("inf"), 0), (float("-inf"), 1)])
def test_a_threshold_may_be_beyond_every_score(tmp_path: Path, threshold: float, label: int) -> None:
    reply = saved(tmp_path, threshold=threshold)(b"1,2", "text/csv", "application/json")[1]
    assert json.loads(reply)["predictions"][0]["predicted_label"] == label


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        (b"1,2,3", "text/csv", 400, "line 1: it has 3 features, but the model takes 2"),
        (b"1,x", "text/csv", 400, "'x' is not a number"),
        (b"1,inf", "text/csv", 400, "infinite"),
        (b"{}", "application/json", 400, "instances"),
        (b"1,2", "text/libsvm", 415, "text/libsvm is not supported"),
    ],
)
def test_bad_requests_are_refused(
    tmp_path: Path, body: bytes, content_type: str, status: int, words: str
) -> None:
    found, reply, _ = saved(tmp_path)(body, content_type, "application/json")
    assert found == status and words in reply.decode()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04nothing", b"\x12\x01" + bytes(30)])
def test_a_folder_without_a_model_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "model_algo-1").write_bytes(content)
    with pytest.raises(ClientError, match="model_algo-1"):
        load_predictor("linear-learner", tmp_path)
