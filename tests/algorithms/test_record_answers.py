"""Requests and replies of the algorithms whose requests are records, in every documented format."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.algorithms.entrypoint import Predictor
from clary.algorithms.formats.ndarrays import write_arrays
from clary.algorithms.formats.recordio import Tensor, read_rows, write_frame, write_record, write_uniform
from clary.algorithms.kmeans.predict import load

RECORDIO = "application/x-recordio-protobuf"
CENTRES = numpy.array([[0, 0], [10, 0], [0, 10]], numpy.float32)
ROWS = numpy.array([[10, 3], [0, 5]], numpy.float32)
EXPECTED = [
    {"closest_cluster": 1.0, "distance_to_cluster": 3.0},
    {"closest_cluster": 0.0, "distance_to_cluster": 5.0},
]


@pytest.fixture
def answer(tmp_path: Path) -> Predictor:
    (tmp_path / "model_algo-1").write_bytes(write_arrays([CENTRES]))
    return load(tmp_path)


def record(**tensors: Tensor) -> bytes:
    return write_frame(write_record(tensors, {}))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"10,3\n0,5\n", "text/csv"),
        (b"10,3\r\n0,5", "Text/CSV; charset=utf-8; label_size=0"),
        (b"7,10,3\n7,0,5\n", "text/csv;label_size=1"),
        (b'{"instances": [{"features": [10, 3]}, {"features": [0, 5]}]}', "application/json"),
        (
            b'{"instances": [{"data": {"features": {"values": [10, 3]}}}, {"data": {"features": '
            b'{"keys": [1], "shape": [2], "values": [5]}}}]}',
            "application/json",
        ),
        (b'{"features": [10, 3]}\n{"data": {"features": {"values": [0, 5]}}}\n', "application/jsonlines"),
        (write_uniform({"values": ROWS}, {}), RECORDIO),
        (write_uniform({"values": ROWS.astype(numpy.float64)}, {}), RECORDIO),
        (
            record(values=Tensor(ROWS[0])) + record(values=Tensor(ROWS[1, 1:], numpy.array([1]), (2,))),
            RECORDIO,
        ),
    ],
)
@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "image/png, application/*"])
def test_every_kind_of_request_is_answered(
    answer: Predictor, body: bytes, content_type: str, accept: str
) -> None:
    status, reply, reply_type = answer(body, content_type, accept)
    assert (status, reply_type) == (200, "application/json")
    assert json.loads(reply) == {"predictions": EXPECTED}


def test_replies_in_json_lines_and_csv(answer: Predictor) -> None:
    _, reply, kind = answer(b"10,3\n0,5\n", "text/csv", "application/jsonlines")
    assert kind == "application/jsonlines" and [json.loads(line) for line in reply.splitlines()] == EXPECTED
    assert answer(b"10,3\n0,5\n", "text/csv", "text/csv") == (200, b"1.0,3.0\n0.0,5.0\n", "text/csv")


def test_a_recordio_reply_has_a_record_a_row(answer: Predictor) -> None:
    status, reply, kind = answer(b"10,3\n0,5\n", "text/csv", RECORDIO)
    assert (status, kind) == (200, RECORDIO)
    rows = list(read_rows(reply, "reply"))
    assert all(not row.features and row.label["closest_cluster"].values.dtype == "<f4" for row in rows)
    assert [{key: float(t.values[0]) for key, t in row.label.items()} for row in rows] == EXPECTED


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "status", "words"),
    [
        (b"1,2", "text/html", "", 415, "The content type text/html is not supported"),
        (b"1,2", "text/csv", "image/png", 406, "The accept type image/png is not supported"),
        (b"1,2,3", "text/csv", "", 400, "line 1: it has 3 features, but the model takes 2"),
        (b"1,2\n3\n", "text/csv", "", 400, "request, line 2: 1 columns"),
        (b"1,2\n3,x\n", "text/csv", "", 400, "'x' is not a number"),
        (b"1,\n", "text/csv", "", 400, "line 1: feature 2 is missing or NaN"),
        (b"", "text/csv", "", 400, "holds no rows"),
        (b"", RECORDIO, "", 400, "holds no records"),
        (b"1,2", RECORDIO, "", 400, "record 1: the file ends within the record"),
        (
            record(other=Tensor(ROWS[0])),
            RECORDIO,
            "",
            400,
            "record 1: the record has no feature named 'values'",
        ),
        (b'{"instances": []}', "application/json", "", 400, '"instances"'),
        (
            b'{"features": [1, 2]}\n{"features": [1]}',
            "application/jsonlines",
            "",
            400,
            "line 2: the record has 1",
        ),
        (b"{", "application/json", "", 400, "this is not JSON"),
        (b'{"instances": [{"features": [1, 1e999]}]}', "application/json", "", 400, "feature 2 is infinite"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    answer: Predictor, body: bytes, content_type: str, accept: str, status: int, words: str
) -> None:
    got, reply, kind = answer(body, content_type, accept)
    assert (got, kind) == (status, "text/plain") and words in reply.decode()


@pytest.mark.parametrize("dtype", [numpy.float32, numpy.float64])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 200)])
def test_rows_written_at_once_are_as_written_one_by_one(dtype: Any, shape: Any) -> None:
    values = numpy.random.default_rng(2).standard_normal(shape).astype(dtype)
    labels = {"a": values, "bc": values * 2}
    expected = b"".join(
        write_frame(
            write_record({"values": Tensor(numpy.atleast_1d(values[row]))},
                         {key: Tensor(numpy.atleast_1d(each[row])) for key, each in labels.items()})
        ) for row in range(3)
    )  # fmt: skip
    assert write_uniform({"values": values}, labels) == expected


@given(
    st.binary(max_size=200),
    st.sampled_from(["text/csv", "application/json", "application/jsonlines", RECORDIO]),
)
def test_no_body_breaks_the_answerer(body: bytes, content_type: str) -> None:
    answer = _answerer()
    assert answer(body, content_type, "")[0] in (200, 400)


@functools.cache
def _answerer() -> Predictor:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model_algo-1").write_bytes(write_arrays([CENTRES]))
        return load(Path(folder))
