"""A real job's changes of state reach a webhook, a queue, a log group and whoever looks, come what may."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clary.testing.server import ServerProcess
from clary.testing.training_requests import XGBOOST_IMAGE, training_request
from clary.testing.webhooks import Answer, Received, WebhookServer

pytestmark = pytest.mark.slow

ACCOUNT, REGION = "123456789012", "us-east-1"
PATIENCE_SECONDS = 120
FINAL = ("Completed", "Failed", "Stopped")
SEED = 20261124


def until(fact: Callable[[], Any]) -> Any:
    """The first true answer of ``fact``."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := fact()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)
    return found


def webhook_target(events: Any, url: str) -> dict[str, str]:
    connection = events.create_connection(
        Name="hook",
        AuthorizationType="API_KEY",
        AuthParameters={"ApiKeyAuthParameters": {"ApiKeyName": "x-key", "ApiKeyValue": "secret"}},
    )
    destination = events.create_api_destination(
        Name="hook",
        ConnectionArn=connection["ConnectionArn"],
        InvocationEndpoint=url,
        HttpMethod="POST",
    )
    return {"Id": "hook", "Arn": destination["ApiDestinationArn"]}


def statuses(details: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["TrainingJobStatus"], each["SecondaryStatus"]) for each in details]


def state(event: dict[str, Any]) -> tuple[str, str]:
    return event["detail"]["TrainingJobName"], event["detail"]["SecondaryStatus"]


def drain(sqs: Any, url: str) -> list[dict[str, Any]]:
    """All messages of a queue, taken out of it."""
    found: list[dict[str, Any]] = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found.append(json.loads(message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_a_jobs_events_reach_every_target_of_a_rule(platform: Any) -> None:
    server = platform.server
    events, sqs, logs = (server.client(name) for name in ("events", "sqs", "logs"))
    queue = sqs.create_queue(QueueName="jobs")["QueueUrl"]
    logs.create_log_group(logGroupName="/aws/events/jobs")
    follower = subprocess.Popen(
        [sys.executable, "-m", "clary.cli", "events", "--follow", "--json", "--data", str(server.data)],
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: list[dict[str, Any]] = []
    reading = threading.Thread(
        target=lambda: lines.extend(json.loads(line) for line in follower.stdout or ())
    )
    reading.start()
    try:
        until(lambda: _see(events, lines))
        with WebhookServer() as hook:
            events.put_rule(
                Name="jobs",
                EventPattern=json.dumps(
                    {"source": ["aws.sagemaker"], "detail-type": ["SageMaker Training Job State Change"]}
                ),
            )
            events.put_targets(
                Rule="jobs",
                Targets=[
                    {"Id": "queue", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:jobs"},
                    {"Id": "log", "Arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/events/jobs:*"},
                    webhook_target(events, f"{hook.url}/in"),
                ],
            )
            rows = "\n".join(f"{number % 2},{number},{number * 7 % 5}" for number in range(50))
            name = platform.create(train=platform.data(rows), Tags=[{"Key": "team", "Value": "red"}])

            def details() -> list[dict[str, Any]]:
                bodies = [json.loads(each.body) for each in hook.received]
                return [body["detail"] for body in bodies if body["detail"]["TrainingJobName"] == name]

            until(lambda: any(each["TrainingJobStatus"] in FINAL for each in details()))
            seen = sorted(details(), key=lambda each: len(each["SecondaryStatusTransitions"]))
        described = platform.sagemaker.describe_training_job(TrainingJobName=name)
        course = [each["Status"] for each in described["SecondaryStatusTransitions"]]
        assert [each["SecondaryStatus"] for each in seen] == course
        assert (seen[-1]["TrainingJobStatus"], seen[-1]["Tags"]) == ("Completed", {"team": "red"})
        assert seen[-1]["ModelArtifacts"] == described["ModelArtifacts"]
        assert seen[-1]["HyperParameters"] == described["HyperParameters"]
        assert all(each.headers["x-key"] == "secret" for each in hook.received)
        in_queue = [e["detail"] for e in drain(sqs, queue) if e["detail"]["TrainingJobName"] == name]
        assert statuses(in_queue) == statuses(seen)
        logged = logs.filter_log_events(logGroupName="/aws/events/jobs")["events"]
        in_log = [json.loads(line["message"])["detail"] for line in logged]
        assert statuses([each for each in in_log if each["TrainingJobName"] == name]) == statuses(seen)
        until(lambda: any(each["detail"].get("TrainingJobStatus") == "Completed" for each in lines))
        followed = [each["detail"] for each in lines if each["detail"].get("TrainingJobName") == name]
        assert statuses(followed) == statuses(seen)
    finally:
        follower.terminate()
        follower.wait()
        reading.join()
        events.remove_targets(Rule="jobs", Ids=["queue", "log", "hook"])
        events.delete_rule(Name="jobs")


def _see(events: Any, lines: list[dict[str, Any]]) -> bool:
    """Whether the follower follows: it shows what is put on the bus."""
    events.put_events(Entries=[{"Source": "test", "DetailType": "hello", "Detail": "{}"}])
    time.sleep(0.2)
    return any(each["source"] == "test" for each in lines)


def test_events_are_shown_chosen_by_a_pattern(platform: Any) -> None:
    events = platform.server.client("events")
    events.put_events(
        Entries=[
            {"Source": "shop", "DetailType": "order", "Detail": json.dumps({"item": item})}
            for item in ("apple", "pear")
        ]
    )
    command = [sys.executable, "-m", "clary.cli", "events", "--data", str(platform.server.data)]
    chosen = subprocess.run(
        [*command, "--pattern", '{"detail": {"item": [{"prefix": "p"}]}}'],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert chosen.stdout.splitlines()[-1].endswith('shop  order  {"item": "pear"}'), chosen
    assert "apple" not in chosen.stdout
    wrong = subprocess.run([*command, "--pattern", "{}"], capture_output=True, text=True, timeout=60)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "Event pattern is not valid. Reason: Empty objects are not allowed" in wrong.stderr


def test_kills_of_the_server_lose_no_event(tmp_path: Path) -> None:
    """Jobs fail quickly, a webhook is away half of the time, and the server dies again and again."""
    chance = random.Random(SEED)
    jobs = [f"job-{number}" for number in range(12)]
    away = threading.Event()
    follower: subprocess.Popen[str] | None = None

    def answer(received: Received) -> Answer:
        return Answer(503 if away.is_set() else 200)

    server = ServerProcess(tmp_path)
    server.start()
    try:
        with WebhookServer(answer) as hook:
            events, sqs = server.client("events"), server.client("sqs")
            queue = sqs.create_queue(QueueName="q")["QueueUrl"]
            events.put_rule(Name="r", EventPattern='{"source": ["aws.sagemaker"]}')
            target = webhook_target(events, hook.url)
            events.put_targets(
                Rule="r", Targets=[target, {"Id": "q", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:q"}]
            )
            command = [sys.executable, "-m", "clary.cli", "events", "--follow", "--all", "--json"]
            follower = subprocess.Popen(
                [*command, "--data", str(server.data)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            lines: list[dict[str, Any]] = []
            reading = threading.Thread(
                target=lambda: lines.extend(json.loads(line) for line in follower.stdout or ())
            )
            reading.start()
            for place, name in enumerate(jobs):
                server.client("sagemaker").create_training_job(
                    **training_request(
                        name, image=XGBOOST_IMAGE, InputDataConfig=None, HyperParameters={"num_round": "1"}
                    )
                )
                if place % 3 == 2:
                    time.sleep(chance.uniform(0, 1.5))
                    server.kill()
                    away.clear() if away.is_set() else away.set()
                    server.start()
            away.clear()

            def in_hook() -> Counter[tuple[str, str]]:
                details = [json.loads(each.body)["detail"] for each in list(hook.received)]
                return Counter((each["TrainingJobName"], each["SecondaryStatus"]) for each in details)

            sagemaker = server.client("sagemaker")
            expected: set[tuple[str, str]] = set()
            for name in jobs:

                def ended(name: str = name) -> dict[str, Any] | None:
                    shown = sagemaker.describe_training_job(TrainingJobName=name)
                    return shown if shown["TrainingJobStatus"] in FINAL else None

                moves = until(ended)["SecondaryStatusTransitions"]
                expected |= {(name, move["Status"]) for move in moves}
            until(lambda: expected <= set(in_hook()))
            found = [each["detail"] for each in drain(server.client("sqs"), queue)]
            followed = until(lambda: Counter(map(state, lines)) if len(lines) >= len(expected) else None)
        assert followed == Counter(expected)  # each once, through all the restarts
        told = Counter((each["TrainingJobName"], each["SecondaryStatus"]) for each in found)
        assert set(told) == expected
        assert set(in_hook()) == expected
        final = [each for each in found if each["TrainingJobStatus"] in FINAL]
        assert {each["TrainingJobName"] for each in final} == set(jobs)
    finally:
        server.stop()
        if follower is not None:
            follower.terminate()
            follower.wait()
            reading.join()
    assert (server.data / "queues.sqlite").stat().st_mode & 0o077 == 0
    assert (server.data / "events.sqlite").stat().st_mode & 0o077 == 0
