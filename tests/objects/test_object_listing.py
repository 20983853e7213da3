"""Listings agree with a simple model of them, for any keys, prefix, delimiter, start and page size."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from clary.objects.filesystem.store import FilesystemObjectStore
from clary.objects.object_store import PutOptions

LETTERS = st.sampled_from(["a", "b", "/", "-", "é", "😀", "\uffff", "\x00", "."])
TEXT = st.text(LETTERS, max_size=4)
KEYS = st.sets(st.text(LETTERS, min_size=1, max_size=5), max_size=12)


async def nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def model(keys: set[str], prefix: str, delimiter: str, after: str) -> list[tuple[str, str]]:
    """Every entry of a listing without pages: keys and folded prefixes, in the order of their bytes."""
    entries: dict[bytes, tuple[str, str]] = {}
    for key in keys:
        if not key.startswith(prefix) or key.encode() <= after.encode():
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            entries[key.encode()] = ("key", key)
            continue
        folded = key[: cut + len(delimiter)]
        if folded != after:  # a page that ended with it told of all that is below
            entries[folded.encode()] = ("prefix", folded)
    return [entry for _, entry in sorted(entries.items())]


QUESTIONS = st.lists(
    st.tuples(TEXT, st.sampled_from(["", "/", "a", "//", "é"]), TEXT, st.integers(1, 4)), max_size=6
)


def test_any_listing_agrees_with_the_model(tmp_path: Path) -> None:
    store = FilesystemObjectStore(tmp_path)
    loop = asyncio.new_event_loop()
    numbers = itertools.count()

    async def facts(keys: set[str], questions: list[tuple[str, str, str, int]]) -> None:
        bucket = f"bucket-{next(numbers)}"
        await store.create_bucket(bucket, account="1", region="r")
        await asyncio.gather(*(store.put(bucket, key, nothing(), PutOptions()) for key in keys))
        for prefix, delimiter, start, limit in questions:
            seen: list[tuple[str, str]] = []
            after: str | None = start
            while after is not None:
                page = await store.list(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
                entries = [("key", info.key) for info in page.objects]
                entries += [("prefix", each) for each in page.common_prefixes]
                entries.sort(key=lambda entry: entry[1].encode())
                assert len(entries) <= limit
                if page.next_marker is not None:
                    assert entries[-1][1] == page.next_marker
                seen += entries
                after = page.next_marker
            assert seen == model(keys, prefix, delimiter, start)

    @settings(max_examples=80, deadline=None)
    @given(KEYS, QUESTIONS)
    def check(keys: set[str], questions: list[tuple[str, str, str, int]]) -> None:
        loop.run_until_complete(facts(keys, questions))

    try:
        check()
    finally:
        loop.run_until_complete(store.close())
        loop.close()
