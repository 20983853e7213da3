"""``clary cost``: billable seconds of training jobs, and what the same runs cost on AWS."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clary.settings import Settings

HELP = "billable seconds of training jobs, and AWS's price of the same runs"
MOST_JOBS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("jobs", metavar="JOB", nargs="*", help="names of training jobs (default: all)")
    parser.add_argument("--since", type=_date, metavar="DATE", help="only jobs created at or after it")
    parser.add_argument("--region", help="the region they are in (default: the server's)")
    parser.add_argument("--json", action="store_true", help="the API's answers, for machines")


def run(settings: Settings, options: argparse.Namespace) -> int:
    from clary.clients.connect import connect
    from clary.running_server import running_server

    server = running_server(settings.data)
    client = connect(settings.data, server, "clary", region=options.region)
    names = options.jobs
    more = False
    if not names:
        sagemaker = connect(settings.data, server, "sagemaker", region=options.region)
        names, more = _names(sagemaker, options.since)
    costs = [client.describe_training_job_cost(TrainingJobName=name) for name in names]
    if options.since is not None:
        costs = [cost for cost in costs if cost["CreationTime"] >= options.since]
    for cost in costs:
        cost.pop("ResponseMetadata", None)
    if options.json:
        print(json.dumps(costs, indent=2, default=lambda value: value.isoformat()))
        return 0
    print(_told(costs))
    if more:
        print(f"Only the {MOST_JOBS} latest jobs are here; name others, or narrow them with --since.")
    return 0


def _date(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no date such as 2026-11-24") from None


def _names(sagemaker: Any, since: datetime | None) -> tuple[list[str], bool]:
    """The names of the latest jobs, and whether there are more."""
    found: list[str] = []
    question: dict[str, Any] = {"MaxResults": 100, "SortBy": "CreationTime", "SortOrder": "Descending"}
    if since is not None:
        question["CreationTimeAfter"] = since
    while True:
        page = sagemaker.list_training_jobs(**question)
        found += [job["TrainingJobName"] for job in page["TrainingJobSummaries"]]
        if len(found) >= MOST_JOBS or not page.get("NextToken"):
            return found[:MOST_JOBS], len(found) > MOST_JOBS or bool(page.get("NextToken"))
        question["NextToken"] = page["NextToken"]


def _told(costs: list[dict[str, Any]]) -> str:
    from clary.terminal.chart import table

    if not costs:
        return "There are no such training jobs."
    rows = [_row(cost) for cost in costs]
    priced = [cost["Price"] for cost in costs if "Price" in cost]
    if len(costs) > 1:
        seconds = sum(_instance_seconds(cost) for cost in costs)
        rows.append(["total", "", "", "", str(seconds), f"{sum(priced):.4f}" if priced else "unknown", ""])
    head = ["job", "status", "instances", "seconds", "billed instance-seconds", "USD on AWS", "spot saving"]
    lines = [table(head, rows)]
    unknown = sorted({(cost["Region"], name) for cost in costs for name in cost["UnpricedInstanceTypes"]})
    if unknown:
        told = ", ".join(f"{name} ({region})" for region, name in unknown)
        lines += ["", f"Unknown prices: {told}. Put them into prices.toml in the data folder."]
        if priced:
            lines.append("The total is without them.")
    sources = sorted(
        {
            (each["PriceDate"], each["PriceSource"])
            for cost in costs
            for each in cost["Instances"]
            if "Price" in each
        }
    )
    if sources:
        lines += ["", "On-demand prices of:", *(f"  {date}  {source}" for date, source in sources)]
    return "\n".join(lines)


def _row(cost: dict[str, Any]) -> list[str]:
    saving = cost.get("SpotSavingPercent")
    return [
        cost["TrainingJobName"],
        cost["TrainingJobStatus"],
        " + ".join(f"{each['InstanceCount']} {each['InstanceType']}" for each in cost["Instances"]),
        str(cost.get("TrainingTimeInSeconds", 0)),
        str(_instance_seconds(cost)),
        f"{cost['Price']:.4f}" if "Price" in cost else "unknown",
        f"{saving:.1f} %" if saving is not None else "",
    ]


def _instance_seconds(cost: dict[str, Any]) -> int:
    return sum(int(each["BillableInstanceSeconds"]) for each in cost["Instances"])
