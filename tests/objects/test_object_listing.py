"""Listings agree with a simple model of them, for any keys, prefix, delimiter, start and page size."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from clary.objects.filesystem.store import FilesystemObjectStore
from clary.objects.object_store import PutOptions

BUCKET = "bucket"
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


@settings(max_examples=120, deadline=None)
@given(
    KEYS,
    st.lists(
        st.tuples(TEXT, st.sampled_from(["", "/", "a", "//", "é"]), TEXT, st.integers(1, 4)), max_size=6
    ),
)
def test_any_listing_agrees_with_the_model(
    keys: set[str], questions: list[tuple[str, str, str, int]]
) -> None:
    async def facts(folder: Path) -> None:
        store = FilesystemObjectStore(folder)
        await store.create_bucket(BUCKET, account="1", region="r")
        for key in keys:
            await store.put(BUCKET, key, nothing(), PutOptions())
        for prefix, delimiter, start, limit in questions:
            seen: list[tuple[str, str]] = []
            after: str | None = start
            while after is not None:
                page = await store.list(BUCKET, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
                entries = [("key", info.key) for info in page.objects]
                entries += [("prefix", each) for each in page.common_prefixes]
                entries.sort(key=lambda entry: entry[1].encode())
                assert len(entries) <= limit
                if page.next_marker is not None:
                    assert entries[-1][1] == page.next_marker
                seen += entries
                after = page.next_marker
            assert seen == model(keys, prefix, delimiter, start)
        await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(facts(Path(folder)))
