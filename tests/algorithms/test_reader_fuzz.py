"""Broken files: whatever is in them, a reader answers or refuses, soon and in little memory.

A second for each reader here; ``CLARY_FUZZ_SECONDS=600`` makes it ten minutes.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest

from clary.algorithms.faults import ClientError
from clary.algorithms.formats.content_type import JSON, JSON_LINES
from clary.algorithms.formats.csv import line_pieces_of, read_csv_pieces
from clary.algorithms.formats.json_requests import read_json
from clary.algorithms.formats.libsvm import read_libsvm
from clary.algorithms.formats.ndarrays import read_arrays, write_arrays
from clary.algorithms.formats.recordio import Tensor, write_frame, write_record, write_uniform
from clary.algorithms.formats.streams import Stream
from clary.algorithms.job import Job
from clary.algorithms.knn.index import FlatIndex, read_index
from clary.algorithms.records import read_batches

pytestmark = pytest.mark.slow

DATA = Path(__file__).parent.parent / "data"
SECONDS = float(os.environ.get("CLARY_FUZZ_SECONDS", "1"))
# Of one file of at most some hundred kilobytes.
LONGEST_READ_SECONDS = 20.0
LARGEST_MEMORY_BYTES = 256 * 1024 * 1024
ROWS = numpy.arange(60, dtype=numpy.float32).reshape(20, 3)
INTERESTING = [
    0,
    1,
    127,
    128,
    255,
    256,
    2**15,
    2**16,
    2**29 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
]
WORDS = [b"nan", b"inf", b"-", b"1e999", b'"', b",", b"\n", b"\r", b"\0", b"{", b"[", b"]", b":", b"\xff\xfe",
         b"\xef\xbb\xbf", b"0" * 400, b"[" * 3000, b"-1", b"18446744073709551616", b"qid:", b"#"]  # fmt: skip


def mutated(samples: Sequence[bytes], chance: random.Random) -> bytes:
    data = bytearray(chance.choice(samples))
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + chance.choice([1, 4, 8, 100])]
        elif kind == 3:
            data[at:at] = chance.choice(WORDS)
        elif kind == 4:
            number = chance.choice(INTERESTING)
            width = chance.choice([1, 2, 4, 8])
            data[at : at + width] = struct.pack("<Q", number)[:width]
        elif kind == 5:
            other = chance.choice(samples)
            start = chance.randrange(len(other) + 1)
            data[at:at] = other[start : start + chance.choice([1, 16, 300])]
        else:
            data[at:at] = data[at : at + chance.choice([1, 8, 200])] * chance.choice([1, 3])
    return bytes(data)


def sparse_records() -> bytes:
    return b"".join(
        write_frame(
            write_record(
                {"values": Tensor(row, numpy.array([1, 5, 300]), (1000,))}, {"values": Tensor(row[:1])}
            )
        )
        for row in ROWS
    )


def batches(folder: Path, content_type: str, **options: Any) -> Callable[[bytes], None]:
    channel = folder / "input/data/train"
    channel.mkdir(parents=True)
    job = Job(folder, {}, {"train": {"ContentType": content_type}})

    def read(data: bytes) -> None:
        (channel / "rows").write_bytes(data)
        for batch in read_batches(job, "train", rows=7, **options):
            assert batch.features.dtype == numpy.float32 and batch.place(0)

    return read


def in_pieces(data: bytes) -> None:
    blocks = [data[start : start + 50] for start in range(0, len(data), 50)]
    for rows in read_csv_pieces(line_pieces_of(blocks), "f"):
        assert len(rows.values) == len(rows.lines)


def parquet_file(folder: Path) -> tuple[bytes, Callable[[bytes], None]]:
    import pyarrow
    import pyarrow.parquet

    from clary.algorithms.formats.parquet import read_parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0, 2.0], "b": [3, 4]}), file)

    def read(data: bytes) -> None:
        path = folder / "rows"
        path.write_bytes(data)
        for _ in read_parquet(Stream("rows", lambda: iter((data,)), path)):
            pass
        for _ in read_parquet(Stream("rows", lambda: iter((data[:100], data[100:])))):
            pass

    return file.getvalue(), read


def readers(folder: Path) -> Iterator[tuple[str, Sequence[bytes], Callable[[bytes], None]]]:
    records = [
        write_uniform({"values": ROWS}, {"values": ROWS[:, 0]}),
        write_uniform({"values": ROWS.astype(numpy.float64)}, {}),
        sparse_records(),
        (DATA / "nips-train_first_20.pbr").read_bytes()[:8000],
    ]
    protobuf = "application/x-recordio-protobuf"
    yield "recordio", records, batches(folder / "1", protobuf)
    yield "labelled recordio", records, batches(folder / "2", protobuf, labelled=True)
    yield "recordio of a width", records, batches(folder / "3", protobuf, width=3)
    lines = [b"1,2,3\n4,5,6\n7,8,9\n", b'1,"2",3\r\n\r\n4,,6', b"1\t2\n3\t4\n"]
    yield "csv", lines, batches(folder / "4", "text/csv;label_size=1", labelled=True)
    yield "csv in pieces", lines, in_pieces
    libsvm = [b"1 1:2 3:4.5\n0:2.5 qid:3 7:1\n", b"1 qid:1 1:2 # x\n2 qid:1 2:3\n"]
    yield "libsvm", libsvm, lambda data: (read_libsvm(data, "f"), None)[1]
    long = {"data": {"features": {"keys": [0, 2], "shape": [3], "values": [1, 2]}}}
    instances = json.dumps({"instances": [{"features": [1, 2.5]}, long], "configuration": {}}).encode()
    yield "json", [instances], lambda data: (read_json(data, JSON), None)[1]
    in_lines = [b'{"features": [1, 2]}\n' + json.dumps(long).encode()]
    yield "json lines", in_lines, lambda data: (read_json(data, JSON_LINES), None)[1]
    arrays = [write_arrays({"v": ROWS, "s": ROWS[0]}), write_arrays([ROWS.astype(numpy.float64)])]
    yield "arrays", arrays, lambda data: (read_arrays(data), None)[1]
    yield "flat index", [FlatIndex(ROWS, "L2").written()], lambda data: (read_index(data), None)[1]


def check(name: str, samples: Sequence[bytes], read: Callable[[bytes], None], seed: int) -> None:
    refusal = ValueError if name in ("arrays", "flat index") else ClientError
    chance = random.Random(seed)
    until = time.monotonic() + SECONDS
    tried = 0
    while time.monotonic() < until or tried < 50:
        data = mutated(samples, chance)
        tried += 1
        tracemalloc.start()
        began = time.process_time()
        try:
            read(data)
        except refusal as error:
            assert str(error), data
        except BaseException as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error} for {data.hex()}") from error
        finally:
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert most < LARGEST_MEMORY_BYTES, f"{name}: {most} bytes for {data.hex()}"
        assert time.process_time() - began < LONGEST_READ_SECONDS, f"{name}: too long for {data.hex()}"


@pytest.mark.parametrize("number", range(10))
def test_a_broken_file_is_read_or_refused(tmp_path: Path, number: int) -> None:
    name, samples, read = list(readers(tmp_path))[number]
    check(name, samples, read, seed=number)


def test_a_broken_parquet_file_is_read_or_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    sample, read = parquet_file(tmp_path)
    check("parquet", [sample], read, seed=99)
