"""EventBridge's API as botocore sees it."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.testing.event_world import EventApiWorld

ACCOUNT = "123456789012"
PATTERN = '{"source": ["me"]}'
QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"
BASIC = {"BasicAuthParameters": {"Username": "u", "Password": "p"}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[EventApiWorld]:
    made = EventApiWorld(tmp_path)
    yield made
    made.close()


@pytest.fixture
def events(world: EventApiWorld) -> Any:
    return world.client("events")


def refused(call: Any, **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**members)
    told = error.value.response["Error"]
    return told["Code"], told["Message"]


def bare(reply: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in reply.items() if name != "ResponseMetadata"}


def on_bus(world: EventApiWorld) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        return [dict(each.envelope) for each in await world.events.events(after=0, limit=100)]

    return asyncio.run(read())


def test_a_rule_is_put_described_changed_and_deleted(events: Any) -> None:
    arn = events.put_rule(Name="r", EventPattern=PATTERN, Description="d", Tags=[{"Key": "a", "Value": "b"}])
    assert arn["RuleArn"] == f"arn:aws:events:us-east-1:{ACCOUNT}:rule/r"
    assert bare(events.describe_rule(Name="r")) == {
        "Name": "r",
        "Arn": arn["RuleArn"],
        "EventPattern": PATTERN,
        "State": "ENABLED",
        "Description": "d",
        "EventBusName": "default",
        "CreatedBy": ACCOUNT,
    }
    events.put_targets(Rule="r", Targets=[{"Id": "t", "Arn": QUEUE}])
    events.put_rule(Name="r", ScheduleExpression="rate(5 minutes)", State="DISABLED")
    changed = events.describe_rule(Name="r")
    assert "EventPattern" not in changed and "Description" not in changed
    assert (changed["ScheduleExpression"], changed["State"]) == ("rate(5 minutes)", "DISABLED")
    assert [t["Id"] for t in events.list_targets_by_rule(Rule="r")["Targets"]] == ["t"]
    assert events.list_tags_for_resource(ResourceARN=arn["RuleArn"])["Tags"] == [{"Key": "a", "Value": "b"}]
    events.enable_rule(Name="r")
    assert events.describe_rule(Name="r")["State"] == "ENABLED"
    events.disable_rule(Name="r")
    assert events.describe_rule(Name="r")["State"] == "DISABLED"
    assert refused(events.delete_rule, Name="r") == (
        "ValidationException",
        "Rule can't be deleted since it has targets.",
    )
    events.remove_targets(Rule="r", Ids=["t"])
    events.delete_rule(Name="r")
    events.delete_rule(Name="r")
    assert refused(events.describe_rule, Name="r") == (
        "ResourceNotFoundException",
        "Rule r does not exist on EventBus default.",
    )


@pytest.mark.parametrize(
    ("members", "code", "message"),
    [
        ({}, "ValidationException", "EventPattern or ScheduleExpression must be specified"),
        ({"EventPattern": "{}"}, "InvalidEventPatternException", "Empty objects are not allowed"),
        ({"EventPattern": '{"a": "b"}'}, "InvalidEventPatternException", "must be an object or an array"),
        ({"ScheduleExpression": "rate(1 minutes)"}, "ValidationException", "ScheduleExpression is not valid"),
        ({"ScheduleExpression": "rate(2 minute)"}, "ValidationException", "ScheduleExpression is not valid"),
        ({"ScheduleExpression": "cron(0 12 * * * *)"}, "ValidationException", "is not valid"),
        ({"ScheduleExpression": "cron(0 25 * * ? *)"}, "ValidationException", "is not valid"),
        ({"ScheduleExpression": "at noon"}, "ValidationException", "is not valid"),
        ({"EventPattern": PATTERN, "EventBusName": "none"}, "ResourceNotFoundException", "Event bus none"),
        ({"EventPattern": PATTERN, "Name": "a b"}, "ValidationException", "regular expression"),
    ],
)
def test_a_rule_that_will_not_do_is_refused(
    events: Any, members: dict[str, Any], code: str, message: str
) -> None:
    told = refused(events.put_rule, **{"Name": "r", **members})
    assert told[0] == code and message in told[1]


@pytest.mark.parametrize(
    "schedule",
    [
        "rate(1 hour)",
        "rate(10 days)",
        "cron(0 10 * * ? *)",
        "cron(15,30 12 * * ? *)",
        "cron(0/10 8-17 ? * MON-FRI *)",
        "cron(0 8 1 JAN ? 2027)",
        "cron(0 8 L * ? *)",
        "cron(0 8 15W * ? *)",
        "cron(0 8 ? * 6#3 *)",
        "cron(0 8 ? * FRIL *)",
    ],
)
def test_schedules_are_kept_as_aws_takes_them(events: Any, schedule: str) -> None:
    events.put_rule(Name="r", ScheduleExpression=schedule)
    assert events.describe_rule(Name="r")["ScheduleExpression"] == schedule


def test_rules_are_listed_in_pages_by_bus_and_prefix(events: Any) -> None:
    events.create_event_bus(Name="own")
    for name in ("b1", "a1", "a2"):
        events.put_rule(Name=name, EventPattern=PATTERN)
    arn = events.put_rule(Name="a1", EventPattern=PATTERN, EventBusName="own")["RuleArn"]
    assert arn.endswith(":rule/own/a1")
    assert [r["Name"] for r in events.list_rules()["Rules"]] == ["a1", "a2", "b1"]
    assert [r["Name"] for r in events.list_rules(EventBusName="own")["Rules"]] == ["a1"]
    first = events.list_rules(NamePrefix="a", Limit=1)
    second = events.list_rules(NamePrefix="a", Limit=1, NextToken=first["NextToken"])
    assert [r["Name"] for page in (first, second) for r in page["Rules"]] == ["a1", "a2"]
    assert "NextToken" not in second
    assert (
        refused(events.list_rules, NamePrefix="b", NextToken=first["NextToken"])[0] == "ValidationException"
    )


def test_targets_are_put_listed_found_and_removed(events: Any) -> None:
    events.put_rule(Name="r", EventPattern=PATTERN)
    target = {
        "Id": "t",
        "Arn": QUEUE,
        "InputTransformer": {"InputPathsMap": {"n": "$.detail.n"}, "InputTemplate": '{"n": <n>}'},
        "RetryPolicy": {"MaximumRetryAttempts": 3, "MaximumEventAgeInSeconds": 60},
        "DeadLetterConfig": {"Arn": f"{QUEUE}-dead"},
    }
    log = {"Id": "l", "Arn": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/events/g:*"}
    assert bare(events.put_targets(Rule="r", Targets=[target, log])) == {
        "FailedEntryCount": 0,
        "FailedEntries": [],
    }
    assert events.list_targets_by_rule(Rule="r")["Targets"] == [log, target]
    assert events.list_rule_names_by_target(TargetArn=QUEUE)["RuleNames"] == ["r"]
    assert events.list_rule_names_by_target(TargetArn=f"{QUEUE}-dead")["RuleNames"] == []
    reply = events.remove_targets(Rule="r", Ids=["l", "none"])
    assert reply["FailedEntryCount"] == 1
    assert reply["FailedEntries"][0]["TargetId"] == "none"
    assert [t["Id"] for t in events.list_targets_by_rule(Rule="r")["Targets"]] == ["t"]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ({"Arn": "queue"}, "not in correct format"),
        ({"Arn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f"}, "Clary delivers to an SQS queue"),
        ({"Arn": "arn:aws:sqs:us-east-1:999999999999:q"}, "own account and region"),
        ({"Arn": f"arn:aws:sqs:eu-west-1:{ACCOUNT}:q"}, "own account and region"),
        ({"Arn": f"{QUEUE}.fifo"}, "SqsParameters must be specified"),
        ({"Arn": QUEUE, "Input": "{"}, "JSON syntax error"),
        ({"Arn": QUEUE, "InputPath": "x"}, "is not a JSON path"),
        ({"Arn": QUEUE, "Input": "1", "InputPath": "$"}, "Only one of"),
        ({"Arn": QUEUE, "DeadLetterConfig": {"Arn": f"{QUEUE}.fifo"}}, "standard SQS queue"),
        ({"Arn": QUEUE, "RetryPolicy": {"MaximumRetryAttempts": 186}}, "less than or equal to 185"),
    ],
)
def test_a_target_that_could_never_be_reached_is_refused(
    events: Any, target: dict[str, Any], why: str
) -> None:
    events.put_rule(Name="r", EventPattern=PATTERN)
    code, message = refused(events.put_targets, Rule="r", Targets=[{"Id": "t", **target}])
    assert code == "ValidationException" and why in message
    assert events.list_targets_by_rule(Rule="r")["Targets"] == []


def test_a_rule_has_five_targets_at_most(events: Any) -> None:
    events.put_rule(Name="r", EventPattern=PATTERN)
    targets = [{"Id": str(number), "Arn": QUEUE} for number in range(6)]
    assert refused(events.put_targets, Rule="r", Targets=targets)[0] == "LimitExceededException"
    assert events.list_targets_by_rule(Rule="r")["Targets"] == []
    assert refused(events.put_targets, Rule="none", Targets=targets[:1])[0] == "ResourceNotFoundException"


def test_events_are_put_on_a_bus_and_what_is_wrong_is_told_by_entry(
    world: EventApiWorld, events: Any
) -> None:
    events.create_event_bus(Name="own")
    good = {"Source": "me", "DetailType": "t", "Detail": '{"n": 1}'}
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    reply = events.put_events(
        Entries=[
            {**good, "Time": at, "Resources": ["r"]},
            {**good, "Detail": "{"},
            {**good, "Detail": "[]"},
            {**good, "Detail": '{"x": 1e999}'},
            {**good, "Detail": '{"x": "\\ud800"}'},
            {**good, "Detail": '{"x":' * 300 + "1" + "}" * 300},
            {**good, "Source": "aws.sagemaker"},
            {**good, "EventBusName": "none"},
            {"Source": "me", "Detail": "{}"},
            {**good, "EventBusName": "own"},
        ]
    )
    assert reply["FailedEntryCount"] == 8
    assert [each.get("ErrorCode") for each in reply["Entries"]] == [
        None,
        *["MalformedDetail"] * 5,
        "NotAuthorizedForSourceException",
        "ResourceNotFoundException",
        "InvalidArgument",
        None,
    ]
    first, second = on_bus(world)
    assert first == {
        "version": "0",
        "id": reply["Entries"][0]["EventId"],
        "detail-type": "t",
        "source": "me",
        "account": ACCOUNT,
        "time": "2026-01-02T03:04:05Z",
        "region": "us-east-1",
        "resources": ["r"],
        "detail": {"n": 1},
    }
    assert second["id"] == reply["Entries"][-1]["EventId"]
    large = {**good, "Detail": json.dumps({"x": "y" * 1_100_000})}
    code, message = refused(events.put_events, Entries=[large])
    assert code == "ValidationException" and "over the limit" in message


def test_a_pattern_is_tried_on_an_event(events: Any) -> None:
    event = dict.fromkeys(("id", "account", "source", "time", "region", "resources", "detail-type"), "x")
    given = json.dumps({**event, "source": "me"})
    assert events.test_event_pattern(EventPattern=PATTERN, Event=given)["Result"] is True
    assert events.test_event_pattern(EventPattern=PATTERN, Event=json.dumps(event))["Result"] is False
    assert (
        refused(events.test_event_pattern, EventPattern="{", Event=given)[0] == "InvalidEventPatternException"
    )
    assert "It lacks id" in refused(events.test_event_pattern, EventPattern=PATTERN, Event="{}")[1]
    assert "no JSON object" in refused(events.test_event_pattern, EventPattern=PATTERN, Event="[")[1]


def test_buses_are_made_listed_tagged_and_deleted(events: Any) -> None:
    arn = events.create_event_bus(Name="own", Tags=[{"Key": "a", "Value": "b"}])["EventBusArn"]
    assert arn == f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/own"
    assert refused(events.create_event_bus, Name="own")[0] == "ResourceAlreadyExistsException"
    assert refused(events.create_event_bus, Name="default")[0] == "ValidationException"
    assert [bus["Name"] for bus in events.list_event_buses()["EventBuses"]] == ["default", "own"]
    assert events.describe_event_bus()["Name"] == "default"
    assert events.describe_event_bus(Name=arn)["Arn"] == arn
    events.tag_resource(ResourceARN=arn, Tags=[{"Key": "c", "Value": "d"}])
    events.untag_resource(ResourceARN=arn, TagKeys=["a"])
    assert events.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "c", "Value": "d"}]
    assert refused(events.list_tags_for_resource, ResourceARN=f"{arn}x")[0] == "ResourceNotFoundException"
    events.put_rule(Name="r", EventPattern=PATTERN, EventBusName=arn)
    assert refused(events.delete_event_bus, Name="own")[0] == "ValidationException"
    events.delete_rule(Name="r", EventBusName="own")
    events.delete_event_bus(Name="own")
    assert refused(events.describe_event_bus, Name="own")[0] == "ResourceNotFoundException"
    assert refused(events.delete_event_bus, Name="default")[0] == "ValidationException"


def test_connections_keep_their_secrets_to_themselves(events: Any) -> None:
    parameters = {
        "ApiKeyAuthParameters": {"ApiKeyName": "x-key", "ApiKeyValue": "hidden-1"},
        "InvocationHttpParameters": {
            "HeaderParameters": [
                {"Key": "x", "Value": "hidden-2", "IsValueSecret": True},
                {"Key": "y", "Value": "shown", "IsValueSecret": False},
            ]
        },
    }
    made = events.create_connection(Name="c", AuthorizationType="API_KEY", AuthParameters=parameters)
    assert made["ConnectionState"] == "AUTHORIZED"
    shown = events.describe_connection(Name="c")
    assert "hidden" not in str(shown) + str(events.list_connections())
    assert shown["AuthParameters"]["ApiKeyAuthParameters"] == {"ApiKeyName": "x-key"}
    assert shown["AuthParameters"]["InvocationHttpParameters"]["HeaderParameters"][1]["Value"] == "shown"
    events.update_connection(Name="c", AuthorizationType="BASIC", AuthParameters=BASIC, Description="d")
    shown = events.describe_connection(Name="c")
    assert set(shown["AuthParameters"]) == {"BasicAuthParameters", "InvocationHttpParameters"}
    assert (shown["Description"], shown["ConnectionArn"]) == ("d", made["ConnectionArn"])
    assert refused(events.create_connection, Name="c", AuthorizationType="BASIC", AuthParameters=BASIC) == (
        "ResourceAlreadyExistsException",
        "Connection c already exists.",
    )
    code, message = refused(
        events.create_connection, Name="d", AuthorizationType="API_KEY", AuthParameters=BASIC
    )
    assert code == "ValidationException" and "must hold ApiKeyAuthParameters" in message
    assert events.deauthorize_connection(Name="c")["ConnectionState"] == "DEAUTHORIZED"
    assert events.delete_connection(Name="c")["ConnectionState"] == "DELETING"
    assert refused(events.describe_connection, Name="c")[0] == "ResourceNotFoundException"


def test_api_destinations_are_made_changed_listed_and_deleted(events: Any) -> None:
    connection = events.create_connection(Name="c", AuthorizationType="BASIC", AuthParameters=BASIC)[
        "ConnectionArn"
    ]
    members = {
        "Name": "d",
        "ConnectionArn": connection,
        "InvocationEndpoint": "http://127.0.0.1:9/hook",
        "HttpMethod": "POST",
    }
    made = events.create_api_destination(**members)
    assert made["ApiDestinationState"] == "ACTIVE"
    assert made["ApiDestinationArn"].startswith(f"arn:aws:events:us-east-1:{ACCOUNT}:api-destination/d/")
    assert refused(events.create_api_destination, **members)[0] == "ResourceAlreadyExistsException"
    events.update_api_destination(Name="d", HttpMethod="PUT", InvocationRateLimitPerSecond=5)
    shown = events.describe_api_destination(Name="d")
    assert (shown["HttpMethod"], shown["InvocationRateLimitPerSecond"]) == ("PUT", 5)
    assert [each["Name"] for each in events.list_api_destinations(NamePrefix="d")["ApiDestinations"]] == ["d"]
    for endpoint in ("ftp://host/", "http://", "http://u@host/", "http://host:0/"):
        code, message = refused(
            events.create_api_destination, **{**members, "Name": "e", "InvocationEndpoint": endpoint}
        )
        assert code == "ValidationException" and "InvocationEndpoint" in message
    wrong = connection.replace("connection/c", "connection/none")
    assert refused(events.create_api_destination, **{**members, "Name": "e", "ConnectionArn": wrong}) == (
        "ResourceNotFoundException",
        f"Connection '{wrong}' does not exist.",
    )
    events.delete_connection(Name="c")
    assert events.describe_api_destination(Name="d")["ApiDestinationState"] == "INACTIVE"
    events.delete_api_destination(Name="d")
    assert refused(events.describe_api_destination, Name="d")[0] == "ResourceNotFoundException"
