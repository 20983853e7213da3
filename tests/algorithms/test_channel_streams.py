"""Reading a channel's data, as files and through a pipe: the same rows, in pieces, and never stuck."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer

from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.formats import streams
from clary.algorithms.formats.csv import line_pieces_of, read_csv, read_csv_pieces
from clary.algorithms.formats.recordio import Tensor, read_frames, record_pieces, write_frame, write_record
from clary.algorithms.formats.streams import NoData, channel_streams
from clary.algorithms.xgboost.data import read_channel
from clary.algorithms.xgboost.train import train

CsvBytes = Callable[[object], bytes]


def cancer() -> Any:
    features, labels = load_breast_cancer(return_X_y=True)
    return numpy.column_stack([labels, features]).astype(numpy.float32)


def recordio(rows: Any) -> bytes:
    return b"".join(
        write_frame(write_record({"values": Tensor(row[1:])}, {"values": Tensor(row[:1])})) for row in rows
    )


def pipe(folder: Any, channel: str, pieces: Sequence[bytes], content_type: str, **config: str) -> Any:
    """A pipe for a channel's first epoch, and a thread that writes ``pieces`` to it, one after the other."""
    path = folder.base / "input/data" / f"{channel}_0"
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    folder.channels[channel] = {"ContentType": content_type, "TrainingInputMode": "Pipe", **config}
    folder.write("inputdataconfig.json", folder.channels)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def trained(folder: Any, **hyperparameters: object) -> bytes:
    job = folder.job(objective="binary:logistic", num_round=3, nthread=1, **hyperparameters)
    job.version = "1.7-1"
    job.model.mkdir(parents=True, exist_ok=True)
    train(job)
    return bytes(folder.model.read_bytes())


@pytest.fixture
def from_files(tmp_path: Any, csv_bytes: CsvBytes) -> bytes:
    """The model of the same rows in File mode."""
    from tests.algorithms.conftest import JobFolder

    folder = JobFolder(tmp_path / "files")
    folder.channel("train", {"a.csv": csv_bytes(cancer())})
    return trained(folder)


def test_csv_through_a_pipe_trains_the_same_model(
    folder: Any, csv_bytes: CsvBytes, from_files: bytes
) -> None:
    data = csv_bytes(cancer())
    writer = pipe(
        folder, "train", [data[start : start + 1000] for start in range(0, len(data), 1000)], "text/csv"
    )
    assert trained(folder) == from_files
    writer.join()


def test_recordio_through_a_pipe_trains_the_same_model(folder: Any, from_files: bytes) -> None:
    pipe(folder, "train", [recordio(cancer())], "application/x-recordio-protobuf")
    assert trained(folder) == from_files


def test_objects_wrapped_as_records_are_read_one_by_one(
    folder: Any, csv_bytes: CsvBytes, from_files: bytes
) -> None:
    rows = cancer()
    # No newline at the end: what separates the objects is the wrapping.
    wrapped = [write_frame(csv_bytes(part).rstrip(b"\n")) for part in (rows[:200], rows[200:])]
    pipe(folder, "train", wrapped, "text/csv", RecordWrapperType="RecordIO")
    assert trained(folder) == from_files


def test_a_mistake_in_a_wrapped_object_names_the_object_and_line(folder: Any) -> None:
    pipe(folder, "train", [write_frame(b"1,2\n"), write_frame(b"0,1\n1,x\n")], "text/csv",
         RecordWrapperType="RecordIO")  # fmt: skip
    with pytest.raises(ClientError, match="train, object 2, line 2, column 2: 'x' is not a number"):
        trained(folder)


def test_a_mistake_in_a_stream_is_told_before_the_stream_ends(folder: Any) -> None:
    """A mistake must not cost the reading of the rest, which may be long."""
    before, streams.BLOCK_BYTES = streams.BLOCK_BYTES, 4096
    opened = threading.Event()
    try:
        pipe(folder, "train", [b"1,2\n" * 2000 + b"1,oops\n" + b"1,2\n" * 2000], "text/csv")
        holder = os.open(folder.base / "input/data/train_0", os.O_RDWR)  # the stream goes on
        opened.set()
        with pytest.raises(ClientError, match="line 2001, column 2: 'oops' is not a number"):
            trained(folder)
    finally:
        streams.BLOCK_BYTES = before
        if opened.is_set():
            os.close(holder)


def test_an_empty_pipe_has_no_rows(folder: Any) -> None:
    pipe(folder, "train", [], "text/csv")
    with pytest.raises(NoData, match="The files of channel 'train' are empty"):
        trained(folder)


@pytest.mark.parametrize(
    ("content_type", "version", "words"),
    [
        ("text/libsvm", "1.7-1", "Pipe mode is not supported for text/libsvm"),
        ("text/csv", "3.0-5", r"Pipe mode is not supported by version 3\.0-5"),
    ],
)
def test_what_amazon_refuses_in_pipe_mode_is_refused(
    folder: Any, content_type: str, version: str, words: str
) -> None:
    folder.channels["train"] = {"ContentType": content_type, "TrainingInputMode": "Pipe"}
    folder.write("inputdataconfig.json", folder.channels)
    job = folder.job(num_round=1)
    job.version = version
    with pytest.raises(ClientError, match=words):
        read_channel(job, "train", csv_weights=False)


def test_a_job_told_to_stop_does_not_wait_for_a_pipe(folder: Any) -> None:
    path = folder.base / "input/data/train_0"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)  # which nobody ever opens for writing
    folder.channels["train"] = {"ContentType": "text/csv", "TrainingInputMode": "Pipe"}
    folder.write("inputdataconfig.json", folder.channels)
    job = folder.job(num_round=1)

    def stop() -> None:
        time.sleep(0.1)
        job.stop_requested = True

    threading.Thread(target=stop).start()
    with pytest.raises(NothingTrained):
        read_channel(job, "train", csv_weights=False)


def test_a_pipe_that_does_not_come_is_named(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST_PIPE_WAIT_SECONDS", 0)
    folder.channels["train"] = {"ContentType": "text/csv", "TrainingInputMode": "Pipe"}
    folder.write("inputdataconfig.json", folder.channels)
    with pytest.raises(ClientError, match=r"train_0 of the channel did not come"):
        read_channel(folder.job(num_round=1), "train", csv_weights=False)


def test_a_pipe_keeps_no_more_than_a_block(folder: Any) -> None:
    before, streams.BLOCK_BYTES = streams.BLOCK_BYTES, 10_000
    try:
        pipe(folder, "train", [b"x" * 7_000] * 5, "text/csv")
        (stream,) = channel_streams(folder.job(num_round=1), "train")
        sizes = [len(block) for block in stream.blocks()]
    finally:
        streams.BLOCK_BYTES = before
    assert sizes == [10_000, 10_000, 10_000, 5_000]


@given(st.lists(st.integers(0, 30), max_size=12), st.sampled_from([b"\n", b"\r\n"]))
def test_where_blocks_of_a_text_end_makes_no_difference(cuts: list[int], end: bytes) -> None:
    text = end.join(b"%d,%d" % (number, number * 7) for number in range(40)) + end
    blocks, rest = [], text
    for cut in cuts:
        blocks.append(rest[:cut])
        rest = rest[cut:]
    parts = list(read_csv_pieces(line_pieces_of([*blocks, rest]), "a.csv"))
    whole = read_csv(text, "a.csv")
    assert numpy.array_equal(numpy.concatenate([part.values for part in parts]), whole.values)
    assert numpy.array_equal(numpy.concatenate([part.lines for part in parts]), whole.lines)


@given(
    st.lists(st.binary(max_size=20), max_size=12),
    st.lists(st.integers(0, 40), max_size=12),
    st.booleans(),
)
def test_where_blocks_of_records_end_makes_no_difference(
    payloads: list[bytes], cuts: list[int], uniform: bool
) -> None:
    if uniform:
        payloads = [payload.ljust(20, b"\0") for payload in payloads]
    rest = b"".join(write_frame(payload) for payload in payloads)
    blocks = []
    for cut in cuts:
        blocks.append(rest[:cut])
        rest = rest[cut:]
    found: list[bytes] = []
    for first, piece in record_pieces([*blocks, rest]):
        assert first == len(found) + 1
        found += read_frames(piece, "a", first)
    assert found == payloads


def test_broken_framing_in_a_stream_is_told_with_its_record(folder: Any) -> None:
    data = recordio(cancer()[:5])
    for broken, words in (
        (data[:-9], "train, record 5: the file ends within the record"),
        (data + b"some more that is no record", "train, record 6: this is not RecordIO"),
    ):
        (folder.base / "input/data/train_0").unlink(missing_ok=True)
        pipe(folder, "train", [broken], "application/x-recordio-protobuf")
        with pytest.raises(ClientError, match=words):
            trained(folder)


def test_dense_and_sparse_records_of_one_file_train_together(folder: Any) -> None:
    """A zero of a dense record is a zero, not a missing value, also beside sparse records."""
    rows = cancer()[:40]
    rows[:, 3] = 0
    sparse = b"".join(
        write_frame(
            write_record(
                {"values": Tensor(row[1:], numpy.arange(len(row) - 1), (len(row) - 1,))},
                {"values": Tensor(row[:1])},
            )
        )
        for row in rows[20:]
    )
    content_type = "application/x-recordio-protobuf"
    folder.channel("train", {"a": recordio(rows[:20]), "b": sparse}, content_type)
    found = read_channel(folder.job(num_round=1), "train", csv_weights=False)
    assert numpy.array_equal(found.features.toarray(), rows[:, 1:])
    assert xgboost.DMatrix(found.features).num_nonmissing() == 40 * 30
