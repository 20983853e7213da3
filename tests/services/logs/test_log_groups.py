"""Log groups, their streams and tags, as CloudWatch Logs answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from clary.faults import InUse, Invalid, LimitExceeded, NotFound
from clary.protocol.models import ServiceModels
from clary.testing.telemetry_world import TelemetryWorld, run_telemetry

MODELS = ServiceModels()
Run = Callable[[Callable[[TelemetryWorld], Awaitable[None]]], None]
ARN = "arn:aws:logs:us-east-1:123456789012:log-group:"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda facts: run_telemetry(tmp_path, MODELS, facts)


def test_a_group_is_shown_as_aws_shows_it(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await world.call("logs", "CreateLogGroup", logGroupName="/aws/x", kmsKeyId="key")
        await world.call("logs", "PutRetentionPolicy", logGroupName="/aws/x", retentionInDays=7)
        await world.call("logs", "CreateLogStream", logGroupName="/aws/x", logStreamName="s")
        event = {"timestamp": world.now, "message": "four"}
        await world.call("logs", "PutLogEvents", logGroupName="/aws/x", logStreamName="s", logEvents=[event])
        (group,) = (await world.call("logs", "DescribeLogGroups"))["logGroups"]
        assert group == {
            "logGroupName": "/aws/x",
            "creationTime": world.now,
            "retentionInDays": 7,
            "metricFilterCount": 0,
            "arn": f"{ARN}/aws/x:*",
            "logGroupArn": f"{ARN}/aws/x",
            "storedBytes": 30,
            "kmsKeyId": "key",
            "logGroupClass": "STANDARD",
        }
        await world.call("logs", "DeleteRetentionPolicy", logGroupName="/aws/x")
        (group,) = (await world.call("logs", "DescribeLogGroups"))["logGroups"]
        assert "retentionInDays" not in group
        await world.call("logs", "DeleteLogGroup", logGroupName="/aws/x")
        assert (await world.call("logs", "DescribeLogGroups"))["logGroups"] == []

    run(facts)


def test_groups_are_found_by_prefix_part_class_or_name(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        for name in ("/aws/One", "/aws/two", "other"):
            await world.call("logs", "CreateLogGroup", logGroupName=name)
        await world.call("logs", "CreateLogGroup", logGroupName="rare", logGroupClass="INFREQUENT_ACCESS")

        async def names(**members: Any) -> list[str]:
            reply = await world.call("logs", "DescribeLogGroups", **members)
            return [group["logGroupName"] for group in reply["logGroups"]]

        assert await names(logGroupNamePrefix="/aws") == ["/aws/One", "/aws/two"]
        assert await names(logGroupNamePattern="e") == ["/aws/One", "other", "rare"]
        assert await names(logGroupNamePattern="one") == []
        assert await names(logGroupClass="INFREQUENT_ACCESS") == ["rare"]
        assert await names(logGroupClass="INFREQUENT_ACCESS", limit=1) == ["rare"]
        assert await names(logGroupIdentifiers=["other", f"{ARN}/aws/two", "none"]) == ["/aws/two", "other"]
        (brief,) = (await world.call("logs", "DescribeLogGroups", logGroupNamePattern="One"))["logGroups"]
        assert set(brief) == {"arn", "creationTime", "logGroupName"}
        for wrong in (
            {"logGroupNamePrefix": "a", "logGroupNamePattern": "b"},
            {"logGroupIdentifiers": ["a"], "limit": 1},
            {"nextToken": "garbled"},
        ):
            with pytest.raises(Invalid):
                await names(**wrong)

    run(facts)


@pytest.mark.parametrize("limit", [1, 2, 5, 50])
def test_pages_of_groups_hold_each_once(run: Run, limit: int) -> None:
    async def facts(world: TelemetryWorld) -> None:
        wanted = [f"group-{number}" for number in range(5)]
        for name in wanted:
            await world.call("logs", "CreateLogGroup", logGroupName=name)
        found: list[str] = []
        token: dict[str, str] = {}
        while True:
            reply = await world.call("logs", "DescribeLogGroups", limit=limit, **token)
            found += [group["logGroupName"] for group in reply["logGroups"]]
            if "nextToken" not in reply:
                break
            token = {"nextToken": reply["nextToken"]}
            with pytest.raises(Invalid, match="nextToken is invalid"):
                await world.call("logs", "DescribeLogGroups", logGroupNamePrefix="group", **token)
        assert found == wanted

    run(facts)


def test_groups_that_cannot_be_made_are_refused(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await world.call("logs", "CreateLogGroup", logGroupName="g")
        with pytest.raises(InUse, match="log group already exists"):
            await world.call("logs", "CreateLogGroup", logGroupName="g")
        with pytest.raises(Invalid, match="aws/"):
            await world.call("logs", "CreateLogGroup", logGroupName="aws/g")
        with pytest.raises(Invalid, match="deletionProtectionEnabled"):
            await world.call("logs", "CreateLogGroup", logGroupName="p", deletionProtectionEnabled=True)
        with pytest.raises(Invalid, match=r"retentionInDays must be one of 1, 3, .*not 2"):
            await world.call("logs", "PutRetentionPolicy", logGroupName="g", retentionInDays=2)
        for operation, more in (
            ("DeleteLogGroup", {}),
            ("PutRetentionPolicy", {"retentionInDays": 1}),
            ("DeleteRetentionPolicy", {}),
            ("DescribeLogStreams", {}),
            ("DescribeMetricFilters", {}),
            ("CreateLogStream", {"logStreamName": "s"}),
        ):
            with pytest.raises(NotFound, match="The specified log group does not exist"):
                await world.call("logs", operation, logGroupName="missing", **more)

    run(facts)


def test_there_are_no_metric_filters(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await world.call("logs", "CreateLogGroup", logGroupName="g")
        assert await world.call("logs", "DescribeMetricFilters") == {"metricFilters": []}
        assert await world.call("logs", "DescribeMetricFilters", logGroupName="g") == {"metricFilters": []}

    run(facts)


def test_tags_are_added_replaced_and_removed_in_both_ways(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await world.call("logs", "CreateLogGroup", logGroupName="g", tags={"A": "1"})
        await world.call("logs", "TagResource", resourceArn=f"{ARN}g", tags={"A": "2", "B": "3"})
        await world.call("logs", "TagLogGroup", logGroupName="g", tags={"C": "4"})
        tags = (await world.call("logs", "ListTagsForResource", resourceArn=f"{ARN}g"))["tags"]
        assert tags == {"A": "2", "B": "3", "C": "4"}
        await world.call("logs", "UntagResource", resourceArn=f"{ARN}g", tagKeys=["A", "none"])
        await world.call("logs", "UntagLogGroup", logGroupName="g", tags=["B"])
        assert (await world.call("logs", "ListTagsLogGroup", logGroupName="g"))["tags"] == {"C": "4"}
        with pytest.raises(LimitExceeded, match="50 tags"):
            await world.call(
                "logs", "TagResource", resourceArn=f"{ARN}g", tags={str(n): "" for n in range(50)}
            )
        for wrong in (f"{ARN}missing", ARN.replace("us-east-1", "eu-west-1") + "g"):
            with pytest.raises(NotFound):
                await world.call("logs", "ListTagsForResource", resourceArn=wrong)
        with pytest.raises(Invalid, match="not that of a log group"):
            await world.call("logs", "ListTagsForResource", resourceArn="arn:aws:logs:x:y:destination:z")

    run(facts)


def test_streams_are_listed_in_pages_in_either_order(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await world.call("logs", "CreateLogGroup", logGroupName="g")
        for number, name in enumerate(["c", "a", "b", "job/1", "job/2"]):
            await world.call("logs", "CreateLogStream", logGroupName="g", logStreamName=name)
            event = {"timestamp": world.now + number, "message": "m"}
            await world.call("logs", "PutLogEvents", logGroupName="g", logStreamName=name, logEvents=[event])

        async def names(**members: Any) -> list[str]:
            found: list[str] = []
            token: dict[str, str] = {}
            while True:
                reply = await world.call(
                    "logs", "DescribeLogStreams", logGroupName="g", limit=2, **members, **token
                )
                found += [stream["logStreamName"] for stream in reply["logStreams"]]
                if "nextToken" not in reply:
                    return found
                token = {"nextToken": reply["nextToken"]}

        assert await names() == ["a", "b", "c", "job/1", "job/2"]
        assert await names(descending=True) == ["job/2", "job/1", "c", "b", "a"]
        assert await names(orderBy="LastEventTime") == ["c", "a", "b", "job/1", "job/2"]
        assert await names(orderBy="LastEventTime", descending=True) == ["job/2", "job/1", "b", "a", "c"]
        assert await names(logStreamNamePrefix="job/", orderBy="LogStreamName") == ["job/1", "job/2"]
        reply = await world.call("logs", "DescribeLogStreams", logGroupIdentifier=f"{ARN}g", limit=1)
        assert reply["logStreams"] == [
            {
                "logStreamName": "a",
                "creationTime": world.now,
                "firstEventTimestamp": world.now + 1,
                "lastEventTimestamp": world.now + 1,
                "lastIngestionTime": world.now,
                "uploadSequenceToken": "1",
                "arn": f"{ARN}g:log-stream:a",
                "storedBytes": 0,
            }
        ]
        with pytest.raises(Invalid, match="LastEventTime"):
            await names(orderBy="LastEventTime", logStreamNamePrefix="a")
        with pytest.raises(Invalid, match="nextToken is invalid"):
            await world.call(
                "logs", "DescribeLogStreams", logGroupName="g", descending=True, nextToken=reply["nextToken"]
            )
        with pytest.raises(Invalid, match="logGroupName or logGroupIdentifier"):
            await world.call("logs", "DescribeLogStreams")
        await world.call("logs", "DeleteLogStream", logGroupName="g", logStreamName="a")
        assert "a" not in await names()
        with pytest.raises(InUse, match="log stream already exists"):
            await world.call("logs", "CreateLogStream", logGroupName="g", logStreamName="b")

    run(facts)
