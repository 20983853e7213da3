"""Scores of labelled predictions are scikit-learn's, whatever the labels, ties and weights."""

from __future__ import annotations

import math
import warnings

import numpy
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from clary.evaluation.classification import Unusable, classification_report, confusion_matrix
from clary.evaluation.curves import one_versus_rest_area, precision_recall_curve, roc_curve

LABELS = ("0", "1", "2", "10")
WEIGHT = st.floats(0, 100, allow_nan=False).map(lambda value: round(value, 3))
ROWS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS), WEIGHT), min_size=1, max_size=60)
# Few distinct scores, so that ties are the rule.
SCORED = st.lists(
    st.tuples(st.booleans(), st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(-5, 5)), WEIGHT),
    min_size=2,
    max_size=60,
)


@given(rows=ROWS, weighted=st.booleans())
def test_all_scores_of_labels_equal_those_of_scikit_learn(
    rows: list[tuple[str, str, float]], weighted: bool
) -> None:
    truth, predicted = [row[0] for row in rows], [row[1] for row in rows]
    weights = [row[2] for row in rows] if weighted and any(row[2] for row in rows) else None
    ours = classification_report(truth, predicted, weights)
    order = list(ours.matrix.labels)
    theirs = sklearn.metrics.confusion_matrix(truth, predicted, labels=order, sample_weight=weights)
    assert numpy.allclose(ours.matrix.counts, theirs)
    assert ours.accuracy == pytest.approx(
        sklearn.metrics.accuracy_score(truth, predicted, sample_weight=weights)
    )
    for average, scores in (("macro", ours.macro), ("micro", ours.micro), ("weighted", ours.weighted)):
        expected = sklearn.metrics.precision_recall_fscore_support(
            truth, predicted, labels=order, average=average, sample_weight=weights, zero_division=0
        )
        assert (scores.precision, scores.recall, scores.f1) == pytest.approx(expected[:3])
    expected = sklearn.metrics.precision_recall_fscore_support(
        truth, predicted, labels=order, sample_weight=weights, zero_division=0
    )
    found = [(s.precision, s.recall, s.f1, s.support) for s in ours.by_label.values()]
    assert numpy.allclose(numpy.array(found).T, numpy.array(expected))


@given(rows=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), min_size=1, max_size=40))
def test_binary_scores_are_those_of_the_positive_label(rows: list[tuple[str, str]]) -> None:
    truth, predicted = [row[0] for row in rows], [row[1] for row in rows]
    if len({*truth, *predicted}) < 2:
        assert classification_report(truth, predicted).binary is None
        return
    for positive in ("a", "b"):
        binary = classification_report(truth, predicted, positive=positive).binary
        assert binary is not None
        expected = sklearn.metrics.precision_recall_fscore_support(
            truth, predicted, pos_label=positive, average="binary", zero_division=0
        )
        assert (binary.precision, binary.recall, binary.f1) == pytest.approx(expected[:3])


@given(rows=SCORED, weighted=st.booleans())
def test_curves_and_areas_equal_those_of_scikit_learn(
    rows: list[tuple[bool, float, float]], weighted: bool
) -> None:
    weights = [row[2] for row in rows] if weighted else None
    positive, scores = [row[0] for row in rows], [row[1] for row in rows]
    counted = [row[0] for row in rows if weights is None or row[2]]
    if not any(counted):
        with pytest.raises(Unusable):
            precision_recall_curve(positive, scores, weights)
        return
    ours = precision_recall_curve(positive, scores, weights)
    precision, recall, thresholds = sklearn.metrics.precision_recall_curve(
        positive, scores, sample_weight=weights
    )
    assert numpy.allclose(ours.precision, precision)
    assert numpy.allclose(ours.recall, recall)
    assert numpy.allclose(ours.thresholds, thresholds)
    assert ours.average_precision == pytest.approx(
        sklearn.metrics.average_precision_score(positive, scores, sample_weight=weights)
    )
    guesses = [score >= ours.best_threshold for score in scores]
    assert ours.best_f1 == pytest.approx(
        sklearn.metrics.f1_score(positive, guesses, sample_weight=weights, zero_division=0)
    )
    if all(counted):
        with pytest.raises(Unusable, match="no negative"):
            roc_curve(positive, scores, weights)
        return
    curve = roc_curve(positive, scores, weights)
    wrong, found, cuts = sklearn.metrics.roc_curve(
        positive, scores, sample_weight=weights, drop_intermediate=False
    )
    assert numpy.allclose(curve.false_positive_rate, wrong)
    assert numpy.allclose(curve.true_positive_rate, found)
    assert numpy.allclose(curve.thresholds[1:], cuts[1:])
    assert curve.area == pytest.approx(sklearn.metrics.roc_auc_score(positive, scores, sample_weight=weights))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.tuples(*[st.integers(1, 9)] * 3)), min_size=3, max_size=40)
)
def test_one_versus_rest_is_the_mean_over_labels(rows: list[tuple[str, tuple[int, int, int]]]) -> None:
    truth = [row[0] for row in rows]
    if set(truth) != set("abc"):
        return
    probabilities = numpy.array([row[1] for row in rows], dtype=float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    columns = {label: list(probabilities[:, index]) for index, label in enumerate("abc")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = sklearn.metrics.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert one_versus_rest_area(truth, columns) == pytest.approx(expected)


def test_labels_that_are_numbers_are_in_the_order_of_numbers() -> None:
    assert confusion_matrix(["10", "9"], ["9", "9"]).labels == ("9", "10")
    assert confusion_matrix(["10", "x"], ["9", "9"]).labels == ("10", "9", "x")


@pytest.mark.parametrize(
    ("truth", "predicted", "weights", "says"),
    [
        ([], [], None, "no row"),
        (["a"], ["a", "b"], None, "1 labels and 2 predictions"),
        (["a"], ["a"], [1.0, 2.0], "1 rows and 2 weights"),
        (["a"], ["a"], [-1.0], "weight of row 1"),
        (["a"], ["a"], [math.nan], "weight of row 1"),
        (["a", "b"], ["a", "b"], [0.0, 0.0], "Every weight is 0"),
    ],
)
def test_what_nothing_can_be_computed_from_is_said(
    truth: list[str], predicted: list[str], weights: list[float] | None, says: str
) -> None:
    with pytest.raises(Unusable, match=says):
        classification_report(truth, predicted, weights)


def test_a_label_or_score_out_of_place_is_named() -> None:
    with pytest.raises(Unusable, match="Row 2 has the label 'c'"):
        confusion_matrix(["a", "c"], ["a", "b"], labels=["a", "b"])
    with pytest.raises(Unusable, match="positive label 'z'"):
        classification_report(["a", "b"], ["a", "b"], positive="z")
    with pytest.raises(Unusable, match="score of row 2"):
        roc_curve([True, False], [0.5, math.nan])
