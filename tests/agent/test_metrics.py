"""Metrics are read from lines, and an expression that never ends harms nothing."""

from __future__ import annotations

from clary.agent import metrics
from clary.agent.metrics import MetricReader


def test_the_first_group_is_the_value() -> None:
    reader = MetricReader(
        [
            {"Name": "auc", "Regex": r"auc=([-+0-9.e]+)"},
            {"Name": "loss", "Regex": r".*#011loss:(\S+)"},
        ]
    )
    assert reader.read("auc=0.5 #011loss:1e-3") == [("auc", 0.5), ("loss", 0.001)]
    assert reader.read("nothing here") == []
    assert reader.read("#011loss:many") == []
    assert reader.complaints == []


def test_wrong_expressions_are_told_and_left_out() -> None:
    reader = MetricReader([{"Name": "a", "Regex": "("}, {"Name": "b", "Regex": "no group"}])
    assert reader.read("no group") == []
    assert len(reader.complaints) == 2


def test_an_expression_that_takes_for_ever_is_dropped_and_the_others_go_on() -> None:
    reader = MetricReader([{"Name": "slow", "Regex": r"(a+)+b"}, {"Name": "auc", "Regex": r"auc=([0-9.]+)"}])
    reader.read("a" * 60)
    assert "'slow'" in reader.complaints[0]
    assert reader.read("auc=1 " + "a" * 60) == [("auc", 1.0)]


def test_only_the_beginning_of_a_long_line_is_looked_at() -> None:
    reader = MetricReader([{"Name": "auc", "Regex": r"auc=([0-9.]+)"}])
    assert reader.read("x" * metrics.LONGEST_LINE + "auc=1") == []
