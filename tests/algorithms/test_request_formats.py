"""Content types, Accept headers, and requests in JSON."""

from __future__ import annotations

import pytest

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.content_type import accepted_type, label_size, parse_content_type
from clary.algorithms.formats.json_requests import read_json

OFFERED = ("text/csv", "application/json", "application/jsonlines")


@pytest.mark.parametrize(
    ("text", "media", "parameters"),
    [
        ("text/csv", "text/csv", {}),
        ("Text/CSV; label_size=1; Charset=UTF-8", "text/csv", {"label_size": "1", "charset": "UTF-8"}),
        ("csv", "text/csv", {}),
        ("libsvm", "text/libsvm", {}),
        ("text/x-libsvm", "text/libsvm", {}),
        ("recordio-protobuf", "application/x-recordio-protobuf", {}),
        ('application/json; verbose="true"', "application/json", {"verbose": "true"}),
        ("", "", {}),
    ],
)
def test_content_types_are_read_whatever_their_spelling(
    text: str, media: str, parameters: dict[str, str]
) -> None:
    assert parse_content_type(text) == (media, parameters)


def test_a_label_size_must_be_a_whole_number() -> None:
    assert label_size({}, 1) == 1 and label_size({"label_size": "0"}, 1) == 0
    with pytest.raises(ClientError, match="label_size must be a whole number, not 'one'"):
        label_size({"label_size": "one"}, 1)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV; charset=utf-8", "text/csv"),
        ("image/png, application/jsonlines", "application/jsonlines"),
        ("text/csv;q=0, application/json", "application/json"),
        ("text/*", "text/csv"),
        ("image/png", None),
    ],
)
def test_the_first_accepted_type_that_is_offered_is_chosen(accept: str, chosen: str | None) -> None:
    assert accepted_type(accept, OFFERED, "application/json") == chosen


def test_json_instances_may_be_short_long_or_sparse() -> None:
    found = read_json(
        b'{"instances": [{"features": [1.5, 16]}, {"data": {"features": {"values": [2]}}},'
        b'{"data": {"features": {"keys": [26, 182], "shape": [2000], "values": [1, 4]}}}],'
        b'"configuration": {"top": 3}}',
        "application/json",
    )
    short, long, sparse = found.instances
    assert short.values.tolist() == [1.5, 16] and short.keys is None
    assert long.values.tolist() == [2]
    assert sparse.keys is not None and sparse.keys.tolist() == [26, 182]
    assert sparse.shape == (2000,) and found.configuration == {"top": 3}


def test_json_lines_are_an_instance_a_line() -> None:
    found = read_json(
        b'{"features": [1]}\n\n{"data": {"features": {"values": [2]}}}', "application/jsonlines"
    )
    assert [each.values.tolist() for each in found.instances] == [[1], [2]]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "this is not JSON"),
        (b"[" * 100_000, "this is not JSON"),
        (b"[]", 'a list of "instances"'),
        (b'{"instances": []}', 'a list of "instances"'),
        (b'{"instances": [{"features": [1]}, 7]}', 'instance 2: it must have "features"'),
        (b'{"instances": [{"features": [1, "a"]}]}', 'instance 1: "features" must be numbers only'),
        (b'{"instances": [{"features": [true]}]}', "must be numbers only"),
        (b'{"instances": [{"features": {"keys": [1], "values": [1]}}]}', 'sparse features need "shape"'),
        (b'{"instances": [{"features": {"keys": [9], "shape": [5], "values": [1]}}]}', "from 0 to 4"),
        (
            b'{"instances": [{"features": {"keys": [1, 2], "shape": [5], "values": [1]}}]}',
            "2 keys for 1 values",
        ),
    ],
)
def test_bad_json_is_refused_with_its_place(body: bytes, words: str) -> None:
    with pytest.raises(ClientError) as caught:
        read_json(body, "application/json")
    assert words in str(caught.value)


def test_a_bad_json_line_is_named() -> None:
    with pytest.raises(ClientError, match="line 3: this is not JSON"):
        read_json(b'{"features": [1]}\n\nnope', "application/jsonlines")
    with pytest.raises(ClientError, match="holds no instances"):
        read_json(b"\n \n", "application/jsonlines")
