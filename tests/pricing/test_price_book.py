"""Prices have a date and a source, the user's come first, and what nobody told is unknown."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from clary.pricing.price_book import SHIPPED, BrokenPrices, PriceBook, read_prices

OWN = """
[[prices]]
region = "us-east-1"
date = 2026-11-01
source = "our contract"
[prices.dollars_per_hour]
"ml.m5.xlarge" = 0.2
"ml.ours.big" = 3
"""


def test_every_shipped_price_has_a_date_and_a_source() -> None:
    prices = read_prices(SHIPPED)
    assert len(prices) > 20
    for (region, name), price in prices.items():
        assert name.startswith("ml.")
        assert region.count("-") == 2
        assert price.source
        assert price.date > datetime.date(2020, 1, 1)
        assert 0 < price.dollars_per_hour < 200


def test_a_type_or_region_that_nobody_told_is_unknown() -> None:
    book = PriceBook()
    assert book.price("us-east-1", "ml.m5.xlarge") is not None
    assert book.price("us-east-1", "ml.m5.3xlarge") is None
    assert book.price("mars-north-1", "ml.m5.xlarge") is None


def test_the_users_prices_come_first_and_are_read_again_when_they_change(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    book = PriceBook(own)
    shipped = book.price("us-east-1", "ml.m5.xlarge")
    assert shipped is not None
    own.write_text(OWN)
    price = book.price("us-east-1", "ml.m5.xlarge")
    assert price is not None
    assert (price.dollars_per_hour, price.source) == (0.2, "our contract")
    assert book.price("us-east-1", "ml.ours.big") is not None
    own.write_text(OWN.replace("0.2\n", "0.25\n"))
    os.utime(own, ns=(1, 1))
    changed = book.price("us-east-1", "ml.m5.xlarge")
    assert changed is not None
    assert changed.dollars_per_hour == 0.25
    own.unlink()
    assert book.price("us-east-1", "ml.m5.xlarge") == shipped


def test_of_two_dates_the_later_counts(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(OWN + OWN.replace("2026-11-01", "2025-01-01").replace("0.2\n", "0.9\n"))
    assert read_prices(path)["us-east-1", "ml.m5.xlarge"].dollars_per_hour == 0.2


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[[prices]]", "[[prizes]]", r"must consist of \[\[prices\]\] blocks"),
        ('region = "us-east-1"', "region = 1", "block 1: 'region' must be text, not 1"),
        ("date = 2026-11-01", 'date = "yesterday"', "'date' must be a date"),
        ('source = "our contract"', 'source = ""', "'source' must be text"),
        ('source = "our contract"', 'source = "x"\ncurrency = "EUR"', "there is no 'currency'"),
        ("= 0.2\n", '= "0.2"\n', "price of ml.m5.xlarge must be a number of at least 0"),
        ("= 0.2\n", "= -1\n", "price of ml.m5.xlarge must be a number of at least 0"),
        ("= 0.2\n", "= nan\n", "price of ml.m5.xlarge must be a number of at least 0"),
        ("= 0.2\n", "= true\n", "price of ml.m5.xlarge must be a number of at least 0"),
        ("[[prices]]", "[[prices", "cannot be read"),
    ],
)
def test_a_broken_table_is_told_by_file_and_place(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(OWN.replace(old, new))
    with pytest.raises(BrokenPrices, match=says) as told:
        PriceBook(path).price("us-east-1", "ml.m5.xlarge")
    assert str(path) in str(told.value)
