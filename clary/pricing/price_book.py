"""The price book: the table shipped with Clary, and before it the user's own.

The user's file is read again when it has changed, so that a price can be corrected while the server runs.
"""

from __future__ import annotations

import datetime
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).with_name("prices.toml")
OWN_NAME = "prices.toml"  # in the data folder
LARGEST_TABLE_BYTES = 1 << 20


class BrokenPrices(ValueError):
    """A table of prices that cannot be read; the message names the file, the place and the remedy."""


@dataclass(frozen=True)
class Price:
    """What an instance costs an hour, from when the price is, and who says so."""

    dollars_per_hour: float
    date: datetime.date
    source: str


Prices = Mapping[tuple[str, str], Price]  # by region and instance type


class PriceBook:
    """Prices by region and instance type. ``own`` is the user's file, which need not exist."""

    def __init__(self, own: Path | None = None) -> None:
        self._own = own
        self._shipped: Prices | None = None
        self._read: tuple[tuple[int, int], Prices] | None = None  # of the user's file: when written, what

    def price(self, region: str, instance_type: str) -> Price | None:
        """The price of ``instance_type`` (``ml.m5.xlarge``) in ``region``; ``None`` if nobody told it.

        Reads files. Raises `BrokenPrices`.
        """
        key = (region, instance_type)
        own = self._own_prices().get(key)
        if own is not None:
            return own
        if self._shipped is None:
            self._shipped = read_prices(SHIPPED)
        return self._shipped.get(key)

    def _own_prices(self) -> Prices:
        if self._own is None:
            return {}
        try:
            found = self._own.stat()
        except FileNotFoundError:
            return {}
        mark = (found.st_mtime_ns, found.st_size)
        if self._read is None or self._read[0] != mark:
            self._read = (mark, read_prices(self._own))
        return self._read[1]


def read_prices(path: Path) -> Prices:
    """The prices in a file. Of two blocks with the same type and region the later dated one counts.

    Raises `BrokenPrices`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TABLE_BYTES + 1)
        if len(content) > LARGEST_TABLE_BYTES:
            raise BrokenPrices(f"{path} is larger than {LARGEST_TABLE_BYTES} bytes.")
        document = tomllib.loads(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BrokenPrices(f"{path} cannot be read: {error}") from error
    blocks = document.get("prices")
    if not isinstance(blocks, list) or set(document) != {"prices"}:
        raise BrokenPrices(f"{path} must consist of [[prices]] blocks; see the documentation of costs.")
    found: dict[tuple[str, str], Price] = {}
    for number, block in enumerate(blocks, 1):
        for key, price in _block(block, f"{path}, block {number}").items():
            if key not in found or found[key].date <= price.date:
                found[key] = price
    return found


def _block(block: Any, place: str) -> Prices:
    members = {"region": str, "date": datetime.date, "source": str, "dollars_per_hour": dict}
    for name, kind in members.items():
        value = block.get(name) if isinstance(block, dict) else None
        if not isinstance(value, kind) or not value:
            form = {"date": "a date (2026-09-25)", "dollars_per_hour": "a table of prices"}.get(name, "text")
            raise BrokenPrices(f"{place}: '{name}' must be {form}, not {value!r}.")
    unknown = ", ".join(sorted(set(block) - set(members)))
    if unknown:
        raise BrokenPrices(f"{place}: there is no '{unknown}'; a block has {', '.join(members)}.")
    found = {}
    for name, amount in block["dollars_per_hour"].items():
        number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
        if not number or not math.isfinite(amount) or amount < 0:
            raise BrokenPrices(
                f"{place}: the price of {name} must be a number of at least 0, not {amount!r}."
            )
        date = block["date"]
        date = date.date() if isinstance(date, datetime.datetime) else date
        found[block["region"], name] = Price(float(amount), date, block["source"])
    return found
