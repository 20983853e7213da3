"""Files of labelled predictions, as models and people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clary.evaluation.classification import Unusable
from clary.evaluation.predictions import MOST_CURVE_POINTS, Columns, evaluate


def of_csv(text: str, **columns: Any) -> dict[str, Any]:
    return evaluate(text, Columns(**columns), json_lines=False)


def test_labels_and_predictions_in_a_csv_with_a_header() -> None:
    found = of_csv("id,label,prediction\n1,cat,cat\n2,dog,cat\n3,dog,dog\n\n4,cat,cat\n")
    assert found["RowCount"] == 4
    assert found["Accuracy"] == 0.75
    assert found["Labels"] == ["cat", "dog"]
    assert found["ConfusionMatrix"] == [[2, 0], [1, 1]]
    assert found["Binary"]["Label"] == "dog"
    assert found["Binary"]["Recall"] == 0.5
    assert "RocCurve" not in found


def test_without_a_header_the_first_column_is_the_label_and_the_second_the_prediction() -> None:
    found = of_csv("1,1\n0,1\n0,0\n", has_header=False)
    assert found["ConfusionMatrix"] == [[1, 1], [0, 1]]


def test_numbers_are_the_same_label_however_they_are_spelt() -> None:
    found = of_csv("label,prediction\n1,1.0\n0,0.0\n2,1.0\n")
    assert found["Labels"] == ["0", "1", "2"]
    assert found["Accuracy"] == pytest.approx(2 / 3)


def test_a_probability_in_the_prediction_column_is_a_score() -> None:
    found = of_csv("0,0.1\n1,0.9\n0,0.6\n1,0.4\n", has_header=False)
    assert found["ConfusionMatrix"] == [[1, 1], [1, 1]]
    assert found["RocCurve"]["Area"] == 0.75
    assert found["PrecisionRecallCurve"]["BestThreshold"] == 0.4
    assert len(found["RocCurve"]["Thresholds"]) == len(found["RocCurve"]["TruePositiveRates"]) - 1
    curve = found["PrecisionRecallCurve"]
    assert len(curve["Thresholds"]) == len(curve["Precisions"]) - 1


def test_a_threshold_moves_rows_from_one_label_to_the_other() -> None:
    text = "label,score\nspam,0.3\nham,0.2\nspam,0.9\nham,0.6\n"
    strict = of_csv(text, positive_label="spam", threshold=0.8)
    lax = of_csv(text, positive_label="spam", threshold=0.1)
    assert strict["Binary"] == {"Label": "spam", "Precision": 1.0, "Recall": 0.5, "F1": 2 / 3, "Support": 2}
    assert lax["Binary"]["Recall"] == 1.0
    assert strict["RocCurve"]["Area"] == lax["RocCurve"]["Area"] == 0.75


def test_a_score_for_each_label_gives_the_prediction_and_the_area_of_one_against_the_rest() -> None:
    text = (
        '{"label": "a", "score_a": 0.7, "score_b": 0.2, "score_c": 0.1}\n'
        '{"label": "b", "score_a": 0.1, "score_b": 0.8, "score_c": 0.1}\n'
        '{"label": "c", "score_a": 0.3, "score_b": 0.3, "score_c": 0.4}\n'
    )
    found = evaluate(text, Columns(), json_lines=True)
    assert found["Accuracy"] == 1.0
    assert found["OneVersusRestArea"] == 1.0


def test_weights_count() -> None:
    found = of_csv("label,prediction,weight\n1,1,3\n0,1,1\n")
    assert found["Accuracy"] == 0.75


def test_a_long_curve_is_thinned_and_its_area_is_not() -> None:
    rows = [f"{row % 2},{(row * 7919) % 5000 / 5000}" for row in range(5000)]
    found = of_csv("label,score\n" + "\n".join(rows))
    curve = found["RocCurve"]
    assert len(curve["TruePositiveRates"]) == MOST_CURVE_POINTS
    assert (curve["FalsePositiveRates"][0], curve["FalsePositiveRates"][-1]) == (0, 1)


@pytest.mark.parametrize(
    ("text", "columns", "says"),
    [
        ("", {}, "no row"),
        ("label,prediction\n", {}, "no row"),
        ("a,b\n1,2\n", {}, "no column of labels among a, b"),
        ("label,b\n1,2\n", {}, "no column of predictions or scores among label, b"),
        ("label,prediction\n1\n", {}, "Line 2 has 1 columns, not 2"),
        ("label,label\n1,1\n", {}, "same name"),
        ("label,prediction\n,1\n", {}, "Row 1 has no label in the column label"),
        ("label,score\n1,x\n0,1\n", {}, "Row 1 has no number in the column score"),
        ("label,score\n1,inf\n0,1\n", {}, "Row 1 has no number in the column score"),
        ("label,score\n1,1\n2,1\n3,1\n", {}, "one score for 3 labels"),
        ("label,prediction\n1,1\n", {"label": "y"}, "no column y of the label"),
        ("label,prediction\n1,1\n0,1\n", {"positive_label": "7"}, "positive label '7'"),
        ("label,prediction,weight\n1,1,-2\n", {}, "weight of row 1"),
        ("label,prediction\n" + "\n".join(f"{n},{n}" for n in range(300)), {}, "300 different labels"),
        ('label,prediction\n"1,1\n', {}, "columns|no CSV"),
    ],
)
def test_what_cannot_be_read_is_told_by_row_and_column(text: str, columns: dict[str, Any], says: str) -> None:
    with pytest.raises(Unusable, match=says):
        of_csv(text, **columns)


@pytest.mark.parametrize("line", ["{", "[1]", "7", '{"label": {"a": 1}, "prediction": 1}', "[" * 100_000])
def test_lines_that_are_no_json_objects_are_told(line: str) -> None:
    with pytest.raises(Unusable, match=r"Line 1|Row 1"):
        evaluate(line, Columns(), json_lines=True)


@given(text=st.text(max_size=200), header=st.booleans(), lines=st.booleans())
def test_no_text_breaks_the_reader(text: str, header: bool, lines: bool) -> None:
    try:
        evaluate(text, Columns(has_header=header), json_lines=lines)
    except Unusable as error:
        assert str(error)
