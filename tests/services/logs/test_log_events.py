"""Log events: put, followed and searched, as CloudWatch Logs answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from clary.faults import Invalid, NotFound
from clary.protocol.models import ServiceModels
from clary.testing.telemetry_world import TelemetryWorld, run_telemetry

MODELS = ServiceModels()
DAY = 86_400_000
Run = Callable[[Callable[[TelemetryWorld], Awaitable[None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda facts: run_telemetry(tmp_path, MODELS, facts)


async def make(world: TelemetryWorld, *streams: str) -> None:
    await world.call("logs", "CreateLogGroup", logGroupName="g")
    for stream in streams:
        await world.call("logs", "CreateLogStream", logGroupName="g", logStreamName=stream)


async def put(world: TelemetryWorld, stream: str, events: Sequence[tuple[int, str]]) -> dict[str, Any]:
    return await world.call(
        "logs",
        "PutLogEvents",
        logGroupName="g",
        logStreamName=stream,
        logEvents=[{"timestamp": timestamp, "message": message} for timestamp, message in events],
    )


async def get(world: TelemetryWorld, **members: Any) -> tuple[list[str], str, str]:
    """Messages, the token forward and the token backward."""
    reply = await world.call("logs", "GetLogEvents", logGroupName="g", logStreamName="s", **members)
    messages = [event["message"] for event in reply["events"]]
    return messages, reply["nextForwardToken"], reply["nextBackwardToken"]


async def find(world: TelemetryWorld, **members: Any) -> list[str]:
    """The messages of all pages."""
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        reply = await world.call("logs", "FilterLogEvents", logGroupName="g", **members, **token)
        found += [event["message"] for event in reply["events"]]
        if "nextToken" not in reply:
            return found
        token = {"nextToken": reply["nextToken"]}


def test_events_come_back_with_their_times(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await make(world, "s")
        reply = await put(world, "s", [(world.now - 5, "one"), (world.now, "zwei é")])
        assert set(reply) == {"nextSequenceToken"}
        events = (await world.call("logs", "GetLogEvents", logGroupName="g", logStreamName="s"))["events"]
        assert events == [
            {"timestamp": world.now - 5, "message": "one", "ingestionTime": world.now},
            {"timestamp": world.now, "message": "zwei é", "ingestionTime": world.now},
        ]

    run(facts)


def test_a_follower_misses_nothing_and_sees_the_same_token_at_the_end(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await make(world, "s")
        messages, forward, _ = await get(world, startFromHead=True)
        assert messages == []
        seen: list[str] = []
        for batch in ([(5, "a"), (6, "b"), (7, "c")], [(1, "late")], [], [(8, "d")]):
            if batch:
                await put(world, "s", [(world.now + at, text) for at, text in batch])
            while True:
                messages, following, _ = await get(world, startFromHead=True, nextToken=forward, limit=2)
                seen += messages
                if following == forward:
                    break
                forward = following
            assert messages == []
        assert seen == ["a", "b", "c", "late", "d"]

    run(facts)


def test_pages_go_backward_from_the_end_and_turn_round(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await make(world, "s")
        await put(world, "s", [(world.now + n, str(n)) for n in range(5)])
        messages, forward, backward = await get(world, limit=2)
        assert messages == ["3", "4"]
        assert forward.startswith("f/")
        assert backward.startswith("b/")
        messages, _, backward = await get(world, nextToken=backward, limit=2)
        assert messages == ["1", "2"]
        messages, _, backward = await get(world, nextToken=backward, limit=2)
        assert messages == ["0"]
        messages, forward, again = await get(world, nextToken=backward, limit=2)
        assert (messages, again) == ([], backward)
        messages, forward, _ = await get(world, nextToken=forward, limit=9)
        assert messages == ["0", "1", "2", "3", "4"]
        messages, same, backward = await get(world, nextToken=forward)
        assert (messages, same) == ([], forward)
        assert (await get(world, nextToken=backward, limit=1))[0] == ["4"]

    run(facts)


def test_a_page_is_in_the_order_of_time(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await make(world, "s")
        await put(world, "s", [(world.now + 5, "later")])
        await put(world, "s", [(world.now, "sooner")])
        assert (await get(world))[0] == ["sooner", "later"]
        assert (await get(world, startTime=world.now, endTime=world.now + 5))[0] == ["sooner"]

    run(facts)


@pytest.mark.parametrize("token", ["", "x", "f/", "f/x", "g/1", "f/-1", "f/1/s", "f/" + "9" * 40, "f/²"])
def test_a_token_that_is_none_is_refused(run: Run, token: str) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await make(world, "s")
        with pytest.raises(Invalid):
            await get(world, nextToken=token)

    run(facts)


def test_events_too_old_or_new_are_told_and_the_others_kept(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await make(world, "s")
        now = world.now
        reply = await put(
            world, "s", [(now - 15 * DAY, "old"), (now - 1, "good"), (now + 3 * 3_600_000, "new")]
        )
        assert reply["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2}
        await world.call("logs", "PutRetentionPolicy", logGroupName="g", retentionInDays=1)
        reply = await put(world, "s", [(now - 2 * DAY, "expired"), (now, "fine")])
        assert reply["rejectedLogEventsInfo"] == {"expiredLogEventEndIndex": 1}
        reply = await put(world, "s", [(now - 15 * DAY, "old")])
        assert reply["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}
        assert (await get(world))[0] == ["good", "fine"]

    run(facts)


def test_batches_that_break_a_rule_are_refused_whole(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await make(world, "s")
        now = world.now
        for batch, words in (
            ([(now, "a"), (now - 1, "b")], "must be in chronological order"),
            ([(now - DAY - 1, "a"), (now, "b")], "cannot span more than 24 hours"),
            ([(now, "é" * 524_275)], "Upload too large: 1048576"),
            ([(now, "")] * 10_001, "10000"),
            ([], "logEvents"),
        ):
            if words.startswith("Upload"):
                await put(world, "s", batch)  # as large as it may be
                batch, words = [(now, "é" * 524_275 + "x")], "Upload too large: 1048577 bytes"
            with pytest.raises(Invalid, match=words):
                await put(world, "s", batch)
        assert len((await get(world))[0]) == 1
        with pytest.raises(NotFound, match=r"The specified log stream does not exist\."):
            await put(world, "missing", [(now, "a")])
        with pytest.raises(NotFound, match=r"The specified log stream does not exist\."):
            await put(world, "missing", [(now - 15 * DAY, "rejected anyway")])

    run(facts)


def test_missing_logs_are_told_as_the_sdks_know_it(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        with pytest.raises(NotFound, match=r"The specified log group does not exist\.") as missing:
            await get(world)
        assert missing.value.code == "ResourceNotFoundException"
        await make(world)
        with pytest.raises(NotFound, match=r"The specified log stream does not exist\.") as missing:
            await get(world)
        assert missing.value.code == "ResourceNotFoundException"
        with pytest.raises(NotFound):
            await find(world, logStreamNames=["s"])
        assert await find(world, logStreamNamePrefix="s") == []

    run(facts)


def test_a_search_interleaves_streams_and_pages(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await make(world, "job/1", "job/2", "other")
        now = world.now
        await put(world, "job/2", [(now + 1, "b"), (now + 3, "d")])
        await put(world, "job/1", [(now, "a"), (now + 2, "c")])
        await put(world, "other", [(now + 2, "o")])
        assert await find(world) == ["a", "b", "c", "o", "d"]
        for limit in (1, 2, 3):
            assert await find(world, logStreamNamePrefix="job/", limit=limit) == ["a", "b", "c", "d"]
            assert await find(world, startFromHead=False, limit=limit) == ["d", "o", "c", "b", "a"]
        assert await find(world, logStreamNames=["job/1", "other"]) == ["a", "c", "o"]
        assert await find(world, startTime=now + 1, endTime=now + 2) == ["b", "c", "o"]  # both ends are in
        reply = await world.call("logs", "FilterLogEvents", logGroupName="g", filterPattern="b")
        (event,) = reply["events"]
        assert event.pop("eventId").isdecimal()
        assert event == {"logStreamName": "job/2", "timestamp": now + 1, "message": "b", "ingestionTime": now}
        with pytest.raises(Invalid, match="logStreamNames and logStreamNamePrefix"):
            await find(world, logStreamNames=["job/1"], logStreamNamePrefix="job/")
        token = (await world.call("logs", "FilterLogEvents", logGroupName="g", limit=1))["nextToken"]
        for foreign in ({"filterPattern": "b"}, {"startTime": 1}):
            with pytest.raises(Invalid, match="nextToken is invalid"):
                await world.call("logs", "FilterLogEvents", logGroupName="g", nextToken=token, **foreign)

    run(facts)


def test_a_search_with_a_pattern_pages_over_what_matches(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await make(world, "s")
        await put(world, "s", [(world.now + n, "ERROR" if n % 10 == 0 else "fine") for n in range(100)])
        for limit in (1, 4, 10):
            assert await find(world, filterPattern="ERROR", limit=limit) == ["ERROR"] * 10

    run(facts)


def test_groups_can_be_named_by_arn(run: Run) -> None:
    async def facts(world: TelemetryWorld) -> None:
        await make(world, "s")
        await put(world, "s", [(world.now, "m")])
        arn = "arn:aws:logs:us-east-1:123456789012:log-group:g"
        for identifier in (arn, "g"):
            reply = await world.call("logs", "GetLogEvents", logGroupIdentifier=identifier, logStreamName="s")
            assert len(reply["events"]) == 1
        for wrong in (
            {"logGroupIdentifier": "g", "logGroupName": "g"},
            {},
            {"logGroupIdentifier": "arn:aws:s3:::g"},
        ):
            with pytest.raises(Invalid):
                await world.call("logs", "GetLogEvents", logStreamName="s", **wrong)
        with pytest.raises(NotFound):
            await world.call(
                "logs", "GetLogEvents", logGroupIdentifier=arn.replace("123", "321"), logStreamName="s"
            )

    run(facts)
