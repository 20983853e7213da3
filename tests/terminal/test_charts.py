"""Charts of plain characters."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from clary.terminal.chart import Curve, chart, table


def test_a_falling_curve_falls_from_the_upper_left_to_the_lower_right() -> None:
    lines = chart([Curve("loss", "o", [0, 1, 2], [3.0, 2.0, 1.0])], width=21, height=5).splitlines()
    assert lines[0] == "3 |o"
    assert lines[2] == "  |          o"
    assert lines[4] == "1 |                    o"
    assert lines[6] == "   0                   2"
    assert lines[7] == "   o loss"


def test_values_far_apart_are_drawn_logarithmically() -> None:
    text = chart([Curve("loss", "o", [0, 1, 2], [1.0, 10.0, 1000.0])])
    assert "(logarithmic)" in text


def test_what_is_no_number_is_left_out() -> None:
    text = chart([Curve("a", "o", [0, 1], [math.nan, math.inf]), Curve("b", "#", [0, 1], [1.0, 2.0])])
    assert "o" not in text.replace("logarithmic", "")
    assert chart([Curve("a", "o", [], [])]) == "(nothing to draw)"


@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=50),
)
def test_no_values_break_a_chart(values: list[float]) -> None:
    text = chart([Curve("a", "o", [float(at) for at in range(len(values))], values)])
    assert max(map(len, text.splitlines())) < 120


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert table(["job", "USD"], [["a", "1.5"], ["long-name", "12"]]) == (
        "job        USD\na          1.5\nlong-name   12"
    )
