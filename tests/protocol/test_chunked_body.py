"""aws-chunked framing, cut into pieces wherever the network likes to cut."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.faults import Fault
from clary.protocol.chunked_body import Framing, decode_chunks

PLAIN = Framing(signed=False, signer=None, trailers=(), decoded_length=None)
CHECKED = Framing(signed=False, signer=None, trailers=("x-amz-checksum-crc32",), decoded_length=None)


def decode(pieces: list[bytes], framing: Framing = PLAIN) -> tuple[bytes, dict[str, str]]:
    trailers: dict[str, str] = {}

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def read() -> bytes:
        return b"".join([piece async for piece in decode_chunks(body(), framing, trailers.__setitem__)])

    return asyncio.run(read()), trailers


def frame(chunks: list[bytes], trailer: bytes = b"") -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return framed + b"0\r\n" + trailer + b"\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.lists(st.integers(0, 5000), max_size=8))
def test_what_was_framed_comes_out_whole_wherever_it_is_cut(chunks: list[bytes], places: list[int]) -> None:
    data = b"".join(chunks)
    framing = Framing(False, None, ("x-amz-checksum-crc32",), len(data))
    framed = frame(chunks, b"x-amz-checksum-crc32:AAAAAA==\r\n")
    assert decode(cut(framed, places), framing) == (data, {"x-amz-checksum-crc32": "AAAAAA=="})


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4), st.data())
def test_a_body_that_ends_too_early_is_refused(chunks: list[bytes], data: st.DataObject) -> None:
    framed = frame(chunks)
    end = data.draw(st.integers(0, len(framed) - len(b"0\r\n\r\n")))
    with pytest.raises(Fault) as caught:
        decode([framed[:end]])
    assert caught.value.code in ("IncompleteBody", "InvalidRequest")


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_random_bytes_are_refused_or_read_and_nothing_else(pieces: list[bytes]) -> None:
    for framing in (PLAIN, CHECKED, Framing(True, None, (), 10)):
        try:
            decode(pieces, framing)
        except Fault as fault:
            assert fault.status in (400, 403)


def test_the_end_of_the_body_may_stand_in_for_the_last_line_end() -> None:
    assert decode([b"1\r\na\r\n0\r\n"])[0] == b"a"


@pytest.mark.parametrize(
    "trailer",
    [
        b"",
        b"x-amz-checksum-crc32\r\n",
        b"x-amz-meta-a:b\r\n",
        b"x-amz-checksum-crc32:A\r\nx-amz-checksum-crc32:B\r\n",
        b"x-amz-checksum-crc32:A\r\nother:B\r\n",
    ],
)
def test_trailers_are_those_that_were_announced(trailer: bytes) -> None:
    with pytest.raises(Fault) as caught:
        decode([frame([b"a"], trailer)], CHECKED)
    assert caught.value.code == "MalformedTrailerError"


def test_a_line_without_end_is_not_gathered_for_ever() -> None:
    with pytest.raises(Fault, match="longer than"):
        decode([b"1" * 1000] * 1000)
