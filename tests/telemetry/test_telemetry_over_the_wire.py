"""Logs and metrics through botocore and a real server, which is killed on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import botocore.exceptions
import pytest

from clary.testing.server import ServerProcess

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("telemetry"))
    server.start()
    yield server
    server.stop()


def events(client: Any, group: str, stream: str) -> list[str]:
    reply = client.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True)
    return [event["message"] for event in reply["events"]]


def test_logs_are_put_followed_and_searched(server: ServerProcess) -> None:
    client = server.client("logs")
    client.create_log_group(logGroupName="/wire", tags={"A": "1"})
    for stream in ("job/algo-1", "job/algo-2"):
        client.create_log_stream(logGroupName="/wire", logStreamName=stream)
    now = int(time.time() * 1000)
    for number in range(30):
        client.put_log_events(
            logGroupName="/wire",
            logStreamName=f"job/algo-{number % 2 + 1}",
            logEvents=[{"timestamp": now + number, "message": f"line {number} é"}],
        )
    wanted = [f"line {number} é" for number in range(30)]
    assert events(client, "/wire", "job/algo-1") == wanted[::2]
    pages = client.get_paginator("filter_log_events").paginate(
        logGroupName="/wire", logStreamNamePrefix="job/", PaginationConfig={"PageSize": 7}
    )
    assert [event["message"] for page in pages for event in page["events"]] == wanted
    pages = client.get_paginator("describe_log_streams").paginate(
        logGroupName="/wire", PaginationConfig={"PageSize": 1}
    )
    assert [stream["logStreamName"] for page in pages for stream in page["logStreams"]] == [
        "job/algo-1",
        "job/algo-2",
    ]
    (group,) = client.describe_log_groups(logGroupNamePrefix="/wire")["logGroups"]
    assert client.list_tags_for_resource(resourceArn=group["logGroupArn"])["tags"] == {"A": "1"}


def test_the_errors_are_those_that_clients_catch(server: ServerProcess) -> None:
    client = server.client("logs")
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="log group does not exist"):
        client.get_log_events(logGroupName="/none", logStreamName="s")
    client.create_log_group(logGroupName="/taken")
    with pytest.raises(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_group(logGroupName="/taken")
    with pytest.raises(client.exceptions.InvalidParameterException, match="filter pattern"):
        client.filter_log_events(logGroupName="/taken", filterPattern="[a, b]")
    with pytest.raises(botocore.exceptions.ClientError) as wrong:
        server.client("cloudwatch").put_metric_data(
            Namespace="N", MetricData=[{"MetricName": "m", "Value": float("nan")}]
        )
    assert wrong.value.response["Error"]["Code"] in (
        "InvalidParameterValue",
        "InvalidParameterValueException",
    )


def test_metrics_of_jobs_and_of_scripts_are_read_as_statistics(server: ServerProcess) -> None:
    now = time.time()
    reply = server.client("sagemaker-metrics").batch_put_metrics(
        TrialComponentName="job-aws-training-job",
        MetricData=[
            {"MetricName": "validation:error", "Timestamp": now, "Step": step, "Value": 1 / (step + 1)}
            for step in range(4)
        ],
    )
    assert not reply.get("Errors")
    client = server.client("cloudwatch")
    found = client.list_metrics(Namespace="/aws/sagemaker/TrainingJobs")["Metrics"]
    assert [metric["MetricName"] for metric in found] == ["validation:error"]
    when = datetime.fromtimestamp(now, timezone.utc)
    client.put_metric_data(
        Namespace="N",
        MetricData=[{"MetricName": "latency", "Timestamp": when, "Values": [1.0, 3.0], "Counts": [3.0, 1.0]}],
    )
    (point,) = client.get_metric_statistics(
        Namespace="N",
        MetricName="latency",
        StartTime=now - 60,
        EndTime=now + 60,
        Period=3600,
        Statistics=["Average", "SampleCount"],
    )["Datapoints"]
    assert (point["Average"], point["SampleCount"], point["Unit"]) == (1.5, 4.0, "None")
    (result,) = client.get_metric_data(
        MetricDataQueries=[
            {
                "Id": "last",
                "MetricStat": {"Metric": found[0], "Period": 3600, "Stat": "Minimum"},
            }
        ],
        StartTime=when,
        EndTime=now + 60,
    )["MetricDataResults"]
    assert result["Values"] == [0.25]


def test_what_was_acknowledged_outlives_a_killed_server(server: ServerProcess) -> None:
    client = server.client("logs")
    client.create_log_group(logGroupName="/killed")
    client.create_log_stream(logGroupName="/killed", logStreamName="s")
    said = []
    for life in range(3):
        for number in range(20):
            message = f"{life}.{number}"
            event = {"timestamp": int(time.time() * 1000), "message": message}
            client.put_log_events(logGroupName="/killed", logStreamName="s", logEvents=[event])
            said.append(message)
        server.kill()
        server.start()
        client = server.client("logs")
        assert events(client, "/killed", "s") == said
