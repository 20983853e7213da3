"""``clary evaluate``: the scores of labelled predictions, of a file here or in S3."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clary.settings import Settings

HELP = "score labelled predictions: confusion matrix, precision, recall, F1, curves"
_JSON_LINES = (".jsonl", ".jsonlines", ".ndjson", ".json")
_WIDEST_MATRIX = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="CSV or JSON lines: a path, - for input, or s3://...")
    parser.add_argument("--label", default="", help="the column of true labels (default: label, y_true ...)")
    parser.add_argument("--prediction", default="", help="the column of predicted labels")
    parser.add_argument("--score", default="", help="the column of the positive label's probability")
    parser.add_argument("--weight", default="", help="the column of the rows' weights")
    parser.add_argument("--positive", default="", help="the label that counts as positive")
    parser.add_argument("--threshold", type=float, help="from which score on a row counts as positive")
    parser.add_argument("--no-header", action="store_true", help="a CSV without names: columns 0, 1 ...")
    parser.add_argument("--format", choices=["csv", "jsonlines"], help="default: by the file's name")
    parser.add_argument("--region", help="the region of the bucket (default: the server's)")
    parser.add_argument("--json", action="store_true", help="the API's answer, for machines")


def run(settings: Settings, options: argparse.Namespace) -> int:
    from clary.evaluation.classification import Unusable

    try:
        found = _ask(settings, options) if options.file.startswith("s3://") else _evaluate(options)
    except (Unusable, OSError, UnicodeDecodeError) as error:
        print(f"clary evaluate: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2) if options.json else _told(found))
    return 0


def _ask(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    from clary.clients.connect import connect
    from clary.running_server import running_server

    client = connect(
        settings.data, running_server(settings.data), "clary", region=options.region, timeout_seconds=600
    )
    columns = {"Label": options.label, "Prediction": options.prediction, "Score": options.score}
    columns["Weight"] = options.weight
    asked = {
        "Columns": {name: value for name, value in columns.items() if value} or None,
        "PositiveLabel": options.positive or None,
        "Threshold": options.threshold,
        "ContentType": {"csv": "text/csv", "jsonlines": "application/jsonlines"}.get(options.format),
        "HasHeader": not options.no_header,
    }
    found: dict[str, Any] = client.evaluate_predictions(
        S3Uri=options.file, **{name: value for name, value in asked.items() if value is not None}
    )
    found.pop("ResponseMetadata", None)
    return found


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """The same of a file of this machine: no server is needed."""
    from clary.evaluation.predictions import Columns, evaluate

    content = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    text = content.decode("utf-8-sig")
    json_lines = options.file.lower().endswith(_JSON_LINES)
    if options.format:
        json_lines = options.format == "jsonlines"
    elif options.file == "-":
        json_lines = text.lstrip()[:1] == "{"
    columns = Columns(
        label=options.label,
        prediction=options.prediction,
        score=options.score,
        weight=options.weight,
        has_header=not options.no_header,
        positive_label=options.positive,
        threshold=options.threshold,
    )
    return evaluate(text, columns, json_lines=json_lines)


def _told(found: dict[str, Any]) -> str:
    from clary.terminal.chart import Curve, chart, table

    rows = [(each["Label"], each) for each in found["Classes"]]
    rows += [(f"({name.lower()} average)", found[name]) for name in ("Macro", "Micro", "Weighted")]
    names = ("Precision", "Recall", "F1")
    lines = [
        f"{found['RowCount']} rows, accuracy {found['Accuracy']:.4f}",
        "",
        table(
            ["label", "precision", "recall", "F1", "rows"],
            [
                [label, *(f"{scores[name]:.4f}" for name in names), f"{scores['Support']:g}"]
                for label, scores in rows
            ],
        ),
    ]
    labels = found["Labels"]
    if len(labels) <= _WIDEST_MATRIX:
        matrix = [
            [label, *(f"{count:g}" for count in counts)]
            for label, counts in zip(labels, found["ConfusionMatrix"], strict=True)
        ]
        lines += ["", "Confusion matrix (a row is a true label):", table(["", *labels], matrix)]
    else:
        lines += ["", f"The confusion matrix of {len(labels)} labels is in the answer of --json."]
    roc, curve = found.get("RocCurve"), found.get("PrecisionRecallCurve")
    if roc:
        drawn = Curve("ROC", "o", roc["FalsePositiveRates"], roc["TruePositiveRates"])
        lines += ["", f"ROC: area {roc['Area']:.4f} (true over false positive rate)", chart([drawn])]
    if curve:
        lines += [
            "",
            f"Average precision {curve['AveragePrecision']:.4f}; best F1 {curve['BestF1']:.4f} at the "
            f"threshold {curve['BestThreshold']:.6g}.",
        ]
    if "OneVersusRestArea" in found:
        lines += ["", f"Mean ROC area of each label against the rest: {found['OneVersusRestArea']:.4f}"]
    return "\n".join(lines)
