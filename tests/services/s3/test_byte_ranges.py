"""The Range header against a model that knows nothing but slices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.faults import Invalid
from clary.services.s3.object_members import byte_range

NUMBERS = st.integers(0, 40)


@given(size=st.integers(0, 30), first=st.none() | NUMBERS, last=st.none() | NUMBERS)
def test_a_range_is_the_slice_it_says(size: int, first: int | None, last: int | None) -> None:
    data = bytes(range(size))
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    if first is None and last is None:
        expected = None  # no range, so the whole
    elif first is None:
        expected = data[-last:] if last else b""
    elif last is not None and last < first:
        expected = None
    else:
        expected = data[first:] if last is None else data[first : last + 1]
    if expected == b"":
        with pytest.raises(Invalid) as refused:
            byte_range(header, size)
        assert (refused.value.code, refused.value.status) == ("InvalidRange", 416)
        return
    found = byte_range(header, size)
    assert (data if found is None else data[found[0] : found[1] + 1]) == (
        data if expected is None else expected
    )


@given(header=st.none() | st.text(max_size=20).filter(lambda text: not text.strip().startswith("bytes=")))
def test_what_is_no_range_means_the_whole(header: str | None) -> None:
    assert byte_range(header, 10) is None
