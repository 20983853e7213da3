"""What targets are sent: the event, a part of it, a text, or a template filled in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clary.event_bus.target_input import InputTooLarge, check_input, target_input
from clary.faults import Invalid

EVENT = {
    "id": "1",
    "source": "me",
    "resources": ["r0", "r1"],
    "detail": {
        "name": 'say "hi"',
        "count": 3,
        "list": [{"x": 1}, {"x": 2}, {"y": 3}],
        "object": {"a": None},
        "odd.name": "dotted",
    },
}
RULE = "arn:aws:events:us-east-1:123456789012:rule/jobs"


def sent(**target: Any) -> str:
    check_input({"Id": "t", **target})
    return target_input({"Id": "t", **target}, EVENT, rule_arn=RULE, ingested="2026-11-24T12:00:00Z")


def filled(template: str, **paths: str) -> str:
    return sent(InputTransformer={"InputPathsMap": paths, "InputTemplate": template})


def test_without_input_a_target_gets_the_event() -> None:
    assert json.loads(sent()) == EVENT


def test_a_constant_input_is_sent_as_it_is() -> None:
    assert sent(Input='{"a":  1}') == '{"a":  1}'


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", EVENT),
        ("$.detail.count", 3),
        ("$.resources[1]", "r1"),
        ("$.resources[9]", None),
        ("$.detail.list[*].x", [1, 2]),
        ("$.detail['odd.name']", "dotted"),
        ("$.detail.absent.deeper", None),
    ],
)
def test_an_input_path_selects_a_part(path: str, found: Any) -> None:
    assert json.loads(sent(InputPath=path)) == found


def test_a_template_makes_json() -> None:
    made = filled(
        '{"n": <n>, "text": "<n> of <name>", "whole": <object>, "quoted": "<object>", "none": <no>}',
        n="$.detail.count",
        name="$.detail.name",
        object="$.detail.object",
        no="$.detail.absent",
    )
    assert json.loads(made) == {
        "n": 3,
        "text": '3 of say "hi"',
        "whole": {"a": None},
        "quoted": '{"a":null}',
        "none": None,
    }


def test_a_value_cannot_break_out_of_its_quotation_marks() -> None:
    assert json.loads(filled('"<name>"', name="$.detail.name")) == 'say "hi"'
    assert json.loads(filled('"\\"<name>\\""', name="$.detail.name")) == '"say "hi""'


def test_a_template_cannot_be_filled_without_end() -> None:
    event = {**EVENT, "detail": {"x": "y" * 100_000}}
    transformer = {"InputPathsMap": {"x": "$.detail.x"}, "InputTemplate": '"' + "<x>" * 1000 + '"'}
    with pytest.raises(InputTooLarge):
        target_input({"InputTransformer": transformer}, event, rule_arn=RULE, ingested="")


def test_predefined_variables_are_known() -> None:
    made = json.loads(
        filled(
            '["<aws.events.rule-name>", <aws.events.rule-arn>, <aws.events.event.ingestion-time>,'
            " <aws.events.event>, <aws.events.event.json>]"
        )
    )
    without = {name: value for name, value in EVENT.items() if name != "detail"}
    assert made == ["jobs", RULE, "2026-11-24T12:00:00Z", without, EVENT]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ({"Input": "{}", "InputPath": "$"}, "Only one of Input, InputPath, or InputTransformer"),
        ({"Input": "{"}, "JSON syntax error in input"),
        ({"InputPath": "detail"}, "is not a JSON path"),
        ({"InputPath": "$.a[x]"}, "is not a JSON path"),
        ({"InputTransformer": {"InputPathsMap": {"a": "b"}, "InputTemplate": "<a>"}}, "is not a JSON path"),
        ({"InputTransformer": {"InputTemplate": "<a>"}}, "neither in InputPathsMap nor predefined"),
        ({"InputTransformer": {"InputPathsMap": {"AwsX": "$"}, "InputTemplate": "x"}}, "are reserved"),
    ],
)
def test_an_input_that_will_not_do_is_refused(target: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        sent(**target)
