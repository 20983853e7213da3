"""``clary fit``: how well a training job's model fits, and one hyperparameter to change."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clary.settings import Settings

HELP = "how well a training job's model fits, and what to change"
_WORDS = {
    "Underfitting": "underfitting",
    "Overfitting": "overfitting",
    "Diverging": "diverging: the learning rate is too large",
    "Plateau": "plateau",
    "AppropriateFit": "an appropriate fit",
    "NoVerdict": "no verdict: the data cannot tell",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="the name of a training job; one that runs may change yet")
    parser.add_argument("--metric", help="the metric to look at (default: what the job is judged by)")
    parser.add_argument("--baseline", type=float, help="the metric of a model that knows nothing")
    parser.add_argument("--validation-rows", type=int, metavar="N", help="how many rows validation has")
    parser.add_argument("--region", help="the region it is in (default: the server's)")
    parser.add_argument("--json", action="store_true", help="the API's answer, for machines")


def run(settings: Settings, options: argparse.Namespace) -> int:
    from clary.clients.connect import connect
    from clary.running_server import running_server

    client = connect(settings.data, running_server(settings.data), "clary", region=options.region)
    asked = {
        "MetricName": options.metric,
        "BaselineValue": options.baseline,
        "ValidationRowCount": options.validation_rows,
    }
    found = client.describe_training_job_fit(
        TrainingJobName=options.job, **{name: value for name, value in asked.items() if value is not None}
    )
    found.pop("ResponseMetadata", None)
    print(json.dumps(found, indent=2) if options.json else _told(found))
    return 0


def _told(found: dict[str, Any]) -> str:
    from clary.terminal.chart import Curve, chart

    since = found.get("SinceStep")
    verdict = _WORDS[found["Verdict"]]
    if found["Verdict"] in ("Overfitting", "Plateau") and since is not None:
        verdict += f" from step {since:g}"
    running = "" if found["TrainingJobStatus"] in ("Completed", "Failed", "Stopped") else ", so far"
    lines = [f"{found['TrainingJobName']}, {found['MetricName']}{running}: {verdict}", "", found["Reason"]]
    curves = [
        Curve(curve["MetricName"], mark, curve["Steps"], curve["Values"])
        for mark, curve in (("o", found.get("TrainCurve")), ("#", found.get("ValidationCurve")))
        if curve
    ]
    lines += ["", chart(curves)]
    suggestion = found.get("Suggestion")
    if suggestion:
        name = suggestion.get("HyperparameterName")
        change = ""
        if name:
            present = f" instead of {suggestion['PresentValue']}" if suggestion.get("PresentValue") else ""
            change = f"{name} = {suggestion['ProposedValue']}{present}. "
        lines += ["", f"Try: {change}{suggestion['Reason']}"]
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in sorted(found.get("Numbers", {}).items()))
    return "\n".join([*lines, "", f"Numbers (errors, 0 is best): {numbers}"])
