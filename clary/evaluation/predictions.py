"""Labelled predictions as files have them (CSV, JSON lines), and everything that can be said of them.

A file has a column of true labels and one of predicted labels, or of scores: the probability of the positive
label, or a column for each label (``score_LABEL``). `evaluate` gives one document, in the form in which the
API and the command line show it.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clary.evaluation.classification import (
    ClassificationReport,
    Scores,
    Unusable,
    classification_report,
    sorted_labels,
)
from clary.evaluation.curves import (
    PrecisionRecallCurve,
    RocCurve,
    one_versus_rest_area,
    precision_recall_curve,
    roc_curve,
)

MOST_ROWS = 2_000_000
MOST_LABELS = 200  # a matrix of more is read by nobody, and a number predicted is no label
MOST_CURVE_POINTS = 201
LABEL_NAMES = ("label", "true_label", "y_true", "target", "truth", "actual", "class")
PREDICTION_NAMES = ("predicted_label", "prediction", "predicted", "y_pred", "pred")
SCORE_NAMES = ("score", "probability", "proba", "y_score", "predicted_probability")
WEIGHT_NAMES = ("weight", "sample_weight")
_SCORE_PREFIXES = ("score_", "probability_", "proba_")


@dataclass(frozen=True)
class Columns:
    """Which column is what; an empty name means the first usual one that is there.

    Without a header, columns are numbered from 0, and 0 is the label, 1 the prediction.
    """

    label: str = ""
    prediction: str = ""
    score: str = ""
    weight: str = ""
    has_header: bool = True
    positive_label: str = ""
    threshold: float | None = None  # of the score, at and above which a row counts as positive


@dataclass(frozen=True)
class Predictions:
    """Rows of labelled predictions. ``scores`` has a column for each label that has scores."""

    truth: list[str]
    predicted: list[str]
    scores: dict[str, list[float]] = field(default_factory=dict)
    weights: list[float] | None = None
    positive: str | None = None


def evaluate(text: str, columns: Columns, *, json_lines: bool) -> dict[str, Any]:
    """The whole evaluation of a file's ``text``, as a document. Raises `Unusable`."""
    rows = _json_rows(text) if json_lines else _csv_rows(text, columns)
    predictions = read_predictions(rows, columns)
    return describe(predictions)


def describe(predictions: Predictions) -> dict[str, Any]:
    """Everything that can be said of ``predictions``, as a document. Raises `Unusable`."""
    report = classification_report(
        predictions.truth, predictions.predicted, predictions.weights, positive=predictions.positive
    )
    document: dict[str, Any] = {"RowCount": len(predictions.truth), **_report(report)}
    scores, weights = predictions.scores, predictions.weights
    if report.positive is not None and report.positive in scores:
        positive = [label == report.positive for label in predictions.truth]
        if any(positive) and not all(positive):
            document["RocCurve"] = _roc(roc_curve(positive, scores[report.positive], weights))
        if any(positive):
            document["PrecisionRecallCurve"] = _precision_recall(
                precision_recall_curve(positive, scores[report.positive], weights)
            )
    elif len(scores) > 2 and set(predictions.truth) == set(scores):
        document["OneVersusRestArea"] = one_versus_rest_area(predictions.truth, scores, weights)
    return document


def read_predictions(rows: Iterable[Mapping[str, Any]], columns: Columns) -> Predictions:
    """Rows by name as predictions. Raises `Unusable` naming the row and the column."""
    table = []
    for row in rows:
        table.append(row)
        if len(table) > MOST_ROWS:
            raise Unusable(f"There are more than {MOST_ROWS} rows; take a sample of them.")
    if not table:
        raise Unusable("There is no row to evaluate.")
    names = list(table[0])
    label = _find(names, columns.label, LABEL_NAMES if columns.has_header else ("0",), "label")
    if label is None:
        raise Unusable(f"There is no column of labels among {', '.join(names)}; name it.")
    usual = PREDICTION_NAMES if columns.has_header else (() if columns.score else ("1",))
    prediction = _find(names, columns.prediction, usual, "prediction")
    score = _find(names, columns.score, SCORE_NAMES if columns.has_header else (), "score")
    weight = _find(names, columns.weight, WEIGHT_NAMES if columns.has_header else (), "weight")
    truth = [_label(row, label, number) for number, row in enumerate(table, 1)]
    weights = [_number(row, weight, n) for n, row in enumerate(table, 1)] if weight is not None else None
    predicted = (
        [_label(row, prediction, n) for n, row in enumerate(table, 1)] if prediction is not None else []
    )
    truth, predicted = _same_spelling(truth, predicted)
    by_label = _scores_by_label(table, names, set(truth))
    labels = sorted_labels(set(truth))
    if score is None and not by_label and prediction is not None and _are_scores(labels, predicted):
        score, predicted = prediction, []
    if score is not None:
        positive = columns.positive_label or (labels[-1] if len(labels) <= 2 else "")
        if not positive:
            raise Unusable(
                f"The column {score} is one score for {len(labels)} labels; name the positive label, or give "
                "a column score_LABEL for each label."
            )
        (positive,), _ = (
            _same_spelling([positive], []) if labels == tuple(map(_plain, labels)) else ([positive], [])
        )
        by_label = {positive: [_number(row, score, number) for number, row in enumerate(table, 1)]}
        if not predicted or columns.threshold is not None:
            negative = next((each for each in labels if each != positive), "0" if positive != "0" else "1")
            cut = 0.5 if columns.threshold is None else columns.threshold
            predicted = [positive if value >= cut else negative for value in by_label[positive]]
    elif by_label and not predicted:
        order = sorted_labels(set(by_label))
        predicted = [max(order, key=lambda each: by_label[each][row]) for row in range(len(table))]
    if not predicted:
        raise Unusable(f"There is no column of predictions or scores among {', '.join(names)}; name it.")
    count = len({*truth, *predicted})
    if count > MOST_LABELS:
        raise Unusable(
            f"There are {count} different labels; {MOST_LABELS} are the most. Are the predictions numbers "
            "instead of labels?"
        )
    return Predictions(truth, predicted, by_label, weights, columns.positive_label or None)


def _csv_rows(text: str, columns: Columns) -> Iterable[Mapping[str, Any]]:
    reader = csv.reader(io.StringIO(text))
    names: list[str] | None = None
    try:
        for line in reader:
            if not any(cell.strip() for cell in line):
                continue
            if names is None:
                names = [name.strip() for name in line]
                if len(set(names)) != len(names) and columns.has_header:
                    raise Unusable(f"Two columns have the same name: {', '.join(names)}.")
                if columns.has_header:
                    continue
                names = [str(number) for number in range(len(line))]
            if len(line) != len(names):
                raise Unusable(f"Line {reader.line_num} has {len(line)} columns, not {len(names)}.")
            yield dict(zip(names, line, strict=True))
    except csv.Error as error:
        raise Unusable(f"Line {reader.line_num} is no CSV: {error}") from error


def _json_rows(text: str) -> Iterable[Mapping[str, Any]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Unusable(f"Line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise Unusable(f"Line {number} is no JSON object.")
        yield row


def _find(names: Sequence[str], wanted: str, usual: Sequence[str], what: str) -> str | None:
    if wanted:
        if wanted not in names:
            raise Unusable(f"There is no column {wanted} of the {what} among {', '.join(names)}.")
        return wanted
    return next((name for each in usual for name in names if name.lower() == each), None)


def _label(row: Mapping[str, Any], column: str, number: int) -> str:
    value = row.get(column)
    if value is None or isinstance(value, (dict, list)) or not str(value).strip():
        raise Unusable(f"Row {number} has no label in the column {column}.")
    return str(value).strip()


def _number(row: Mapping[str, Any], column: str, number: int) -> float:
    value = row.get(column)
    try:
        if isinstance(value, (bool, dict, list)) or value is None:
            raise ValueError
        found = float(value)
    except ValueError:
        raise Unusable(f"Row {number} has no number in the column {column}: {value!r}.") from None
    if not math.isfinite(found):
        raise Unusable(f"Row {number} has no number in the column {column}: {value!r}.")
    return found


def _plain(label: str) -> str:
    """``1.0`` as ``1``; what is no number as it is."""
    try:
        value = float(label)
    except ValueError:
        return label
    return f"{value:.12g}" if math.isfinite(value) else label


def _same_spelling(truth: list[str], predicted: list[str]) -> tuple[list[str], list[str]]:
    """Labels that are all numbers are spelt alike: a CSV has ``1``, a model answers ``1.0``."""
    try:
        if all(math.isfinite(float(label)) for label in {*truth, *predicted}):
            return [_plain(label) for label in truth], [_plain(label) for label in predicted]
    except ValueError:
        pass
    return truth, predicted


def _are_scores(labels: Sequence[str], predicted: Sequence[str]) -> bool:
    """Whether what is called a prediction is the probability of the label 1."""
    if not set(labels) <= {"0", "1"}:
        return False
    try:
        values = [float(value) for value in set(predicted)]
    except ValueError:
        return False
    return all(0 <= value <= 1 for value in values) and any(value not in (0, 1) for value in values)


def _scores_by_label(
    table: Sequence[Mapping[str, Any]], names: Sequence[str], labels: set[str]
) -> dict[str, list[float]]:
    """Columns ``score_LABEL``, of labels that occur and of others."""
    found = {}
    for name in names:
        prefix = next((each for each in _SCORE_PREFIXES if name.lower().startswith(each)), None)
        if prefix is not None and name.lower() not in SCORE_NAMES:
            label = name[len(prefix) :]
            label = _plain(label) if _plain(label) in labels else label
            found[label] = [_number(row, name, number) for number, row in enumerate(table, 1)]
    return found


# The document.


def _report(report: ClassificationReport) -> dict[str, Any]:
    document = {
        "Accuracy": report.accuracy,
        "Labels": list(report.matrix.labels),
        "ConfusionMatrix": [list(row) for row in report.matrix.counts],
        "Classes": [{"Label": label, **_scores(scores)} for label, scores in report.by_label.items()],
        "Macro": _scores(report.macro),
        "Micro": _scores(report.micro),
        "Weighted": _scores(report.weighted),
    }
    if report.binary is not None:
        document["Binary"] = {"Label": report.positive, **_scores(report.binary)}
    return document


def _scores(scores: Scores) -> dict[str, Any]:
    return {
        "Precision": scores.precision,
        "Recall": scores.recall,
        "F1": scores.f1,
        "Support": scores.support,
    }


def _roc(curve: RocCurve) -> dict[str, Any]:
    kept = _spread(len(curve.thresholds))
    return {
        "Area": curve.area,
        "FalsePositiveRates": [curve.false_positive_rate[at] for at in kept],
        "TruePositiveRates": [curve.true_positive_rate[at] for at in kept],
        # The first point's threshold, above every score, is infinite, which JSON cannot say.
        "Thresholds": [curve.thresholds[at] for at in kept if at],
    }


def _precision_recall(curve: PrecisionRecallCurve) -> dict[str, Any]:
    kept = _spread(len(curve.precision))
    return {
        "AveragePrecision": curve.average_precision,
        "BestF1": curve.best_f1,
        "BestThreshold": curve.best_threshold,
        "Precisions": [curve.precision[at] for at in kept],
        "Recalls": [curve.recall[at] for at in kept],
        "Thresholds": [curve.thresholds[at] for at in kept if at < len(curve.thresholds)],
    }


def _spread(count: int) -> list[int]:
    """The places of at most `MOST_CURVE_POINTS` points, the first and the last among them."""
    if count <= MOST_CURVE_POINTS:
        return list(range(count))
    last = MOST_CURVE_POINTS - 1
    return [round(place * (count - 1) / last) for place in range(MOST_CURVE_POINTS)]
