"""``clary events``: what the event buses of a region carried; with ``--follow``, what comes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clary.settings import Settings

HELP = "show events: changes of state, and what was put on a bus"
WAIT_SECONDS = 20
RECONNECT_SECONDS = 1.0
_NAMES = ("TrainingJobName", "EndpointName")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--follow", action="store_true", help="show what comes from now on, until Ctrl-C")
    parser.add_argument("--all", action="store_true", help="with --follow: begin with all that is kept")
    parser.add_argument("--pattern", metavar="JSON", help="only events that match this EventBridge pattern")
    parser.add_argument("--json", action="store_true", help="a line of JSON an event, as targets get it")
    parser.add_argument("--region", help="the region whose events to show (default: the server's)")


def run(settings: Settings, options: argparse.Namespace) -> int:
    from botocore.exceptions import ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NoConnection

    from clary.clients.environment import NotReady
    from clary.running_server import NotRunning

    client = _client(settings, options.region)
    asked: dict[str, Any] = {"EventPattern": options.pattern} if options.pattern else {}
    after = client.list_events(**asked)["After"] if options.follow and not options.all else 0
    away = False
    while True:
        try:
            if away:
                client = _client(settings, options.region)
            wait = WAIT_SECONDS if options.follow else 0
            reply = client.list_events(After=after, WaitSeconds=wait, **asked)
            away = False
        except (ClientError, NoConnection, HTTPClientError, NotReady, NotRunning) as error:
            if not options.follow or not _may_come_back(error):
                raise
            if not away:
                print("clary events: the server is away; waiting for it", file=sys.stderr)
            away = True
            time.sleep(RECONNECT_SECONDS)
            continue
        for event in reply["Events"]:
            print(event["Event"] if options.json else _line(json.loads(event["Event"])), flush=True)
        finished = not reply["Events"] and reply["After"] == after
        after = reply["After"]
        if finished and not options.follow:
            return 0


def _client(settings: Settings, region: str | None) -> Any:
    from clary.clients.connect import connect
    from clary.running_server import running_server

    server = running_server(settings.data)
    return connect(settings.data, server, "clary", timeout_seconds=WAIT_SECONDS + 40, region=region)


def _may_come_back(error: Exception) -> bool:
    """Whether the server is away, rather than refusing."""
    response = getattr(error, "response", None)
    return not response or int(response["ResponseMetadata"]["HTTPStatusCode"]) >= 500


def _line(event: dict[str, Any]) -> str:
    """An event on one line: when, what, whose, and its state."""
    detail = event["detail"]
    what = event["detail-type"]
    if event["source"] == "aws.sagemaker":
        what = what.removeprefix("SageMaker ").removesuffix(" State Change")
        states = [str(detail[name]) for name in detail if name.endswith("Status") and detail[name]]
        name = next((str(detail[each]) for each in detail if each in _NAMES), "")
        name = name or ", ".join(event["resources"])
        reason = detail.get("FailureReason")
        words = [what, name, *dict.fromkeys(states), *([f"({reason})"] if reason else [])]
    else:
        words = [event["source"], what, json.dumps(detail, ensure_ascii=False)]
    return "  ".join([event["time"], *(word.replace("\n", " ") for word in words)])
