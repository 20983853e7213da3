"""Parquet as training data: from files and through a pipe, and what is said of what it cannot be."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest

from clary.algorithms.faults import ClientError
from clary.algorithms.formats import parquet
from clary.algorithms.formats.parquet import read_parquet, split_files
from clary.algorithms.formats.streams import Stream

pyarrow = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")


def table_bytes(columns: Sequence[Any], names: Sequence[str] | None = None) -> bytes:
    import pyarrow.parquet

    names = names or [f"column{number}" for number in range(len(columns))]
    file = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table(dict(zip(names, [pyarrow.array(each) for each in columns], strict=True))), file
    )
    return file.getvalue()


def from_file(path: Path, data: bytes) -> list[tuple[str, int, Any]]:
    path.write_bytes(data)
    return list(read_parquet(Stream("train/a.parquet", lambda: iter((data,)), path)))


def from_pipe(data: bytes, size: int) -> list[tuple[str, int, Any]]:
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    return list(read_parquet(Stream("train", lambda: iter(blocks))))


def test_numbers_of_every_kind_become_rows_and_nulls_missing(tmp_path: Path) -> None:
    data = table_bytes(
        [numpy.array([1, 0], numpy.int64), [2.5, None], numpy.array([1, 2], numpy.uint8), [True, False]]
    )
    ((name, first, values),) = from_file(tmp_path / "a", data)
    assert (name, first) == ("train/a.parquet", 1)
    assert numpy.array_equal(values, [[1, 2.5, 1, 1], [0, numpy.nan, 2, 0]], equal_nan=True)


def test_many_rows_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 3)
    column = numpy.arange(8, dtype=numpy.float32)
    found = from_file(tmp_path / "a", table_bytes([column, column]))
    assert [(first, len(values)) for _, first, values in found] == [(1, 3), (4, 3), (7, 2)]


@pytest.mark.parametrize("size", [7, 1000, 1_000_000])
def test_files_that_follow_one_another_in_a_pipe_are_told_apart(size: int) -> None:
    files = [table_bytes([[number, number + 1], [0.5, 1.5]]) for number in range(3)]
    found = from_pipe(b"".join(files), size)
    assert [name for name, _, _ in found] == ["train, object 1", "train, object 2", "train, object 3"]
    assert [values[0, 0] for _, _, values in found] == [0, 1, 2]


def test_the_magic_number_inside_a_file_ends_nothing() -> None:
    data = table_bytes([[1.0, 2.0], [3.0, 4.0]], ["PAR1PAR1", "other"])
    assert b"PAR1PAR1" in data
    assert list(split_files(iter([data + data]), "train")) == [data, data]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "train/a.parquet: "),
        (b"no parquet at all", "train/a.parquet: "),
        (table_bytes([[1, 2], [3, 4]])[:-20], "train/a.parquet: "),
        (table_bytes([[1, 2], ["a", "b"]]), "train/a.parquet, column 'column1': string is not a number"),
        (table_bytes([[1, 2], [[1], [2]]]), "train/a.parquet, column 'column1': list"),
    ],
)
def test_what_holds_no_numbers_is_refused_with_its_place(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(ClientError) as caught:
        from_file(tmp_path / "a", data)
    assert str(caught.value).startswith(words)


def test_a_pipe_that_ends_within_a_file_is_refused() -> None:
    data = table_bytes([[1, 2], [3, 4]])
    with pytest.raises(ClientError, match="train, object 2: "):
        from_pipe(data + data[:-9], 100)


def test_an_algorithm_trains_from_parquet(folder: Any) -> None:
    import xgboost
    from sklearn.datasets import load_breast_cancer

    from clary.algorithms.xgboost.train import train

    features, labels = load_breast_cancer(return_X_y=True)
    half = len(labels) // 2
    parts = [
        table_bytes([labels[part], *features[part].T]) for part in (slice(None, half), slice(half, None))
    ]
    folder.channel("train", {"a.parquet": parts[0], "b/c.parquet": parts[1]}, "application/x-parquet")
    job = folder.job(objective="binary:logistic", num_round=4, nthread=1)
    job.model.mkdir(parents=True)
    train(job)
    wanted = xgboost.train(
        {"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(features.astype("f4"), labels), 4
    )
    assert bytes(xgboost.Booster(model_file=folder.model).save_raw("ubj")) == bytes(wanted.save_raw("ubj"))
