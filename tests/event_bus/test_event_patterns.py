"""Event patterns match as EventBridge documents, and are refused in its words."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.event_bus.event_pattern import compile_pattern
from clary.faults import Invalid

EVENT = {
    "version": "0",
    "id": "1",
    "detail-type": "SageMaker Training Job State Change",
    "source": "aws.sagemaker",
    "account": "123456789012",
    "time": "2026-11-24T12:00:00Z",
    "region": "us-east-1",
    "resources": ["arn:aws:sagemaker:us-east-1:123456789012:training-job/job-1", "other"],
    "detail": {
        "TrainingJobName": "Job-1",
        "TrainingJobStatus": "Failed",
        "count": 5,
        "limit": 301.8,
        "ratio": -0.5,
        "address": "10.0.0.33",
        "address6": "2001:db8::7",
        "path": "/opt/ml/model/model.tar.gz",
        "flag": True,
        "nothing": None,
        "empty": "",
        "none": [],
        "object": {"inner": 1},
        "people": [{"first": "Anna", "last": "Smith"}, {"first": "Peter", "last": "Jones"}],
        "nested": [[{"x": 1}, {"x": 2}], [{"y": [3, [4]]}]],
        "Tags": {"team": "a.b"},
    },
}


def detail(**fields: Any) -> dict[str, Any]:
    return {"detail": fields}


MATCHING: list[dict[str, Any]] = [
    {"source": ["aws.sagemaker"]},
    {"source": ["other", "aws.sagemaker"], "detail-type": ["SageMaker Training Job State Change"]},
    {"resources": ["other"]},
    {"time": [{"prefix": "2026-11-24"}]},
    {"source": [{"suffix": "maker"}]},
    {"source": [{"prefix": {"equals-ignore-case": "AWS."}}]},
    {"source": [{"suffix": {"equals-ignore-case": "MAKER"}}]},
    {"source": [{"equals-ignore-case": "AWS.SageMaker"}]},
    {"source": [{"exactly": "aws.sagemaker"}]},
    detail(TrainingJobStatus=["Failed", "Stopped"]),
    detail(TrainingJobStatus=[{"anything-but": "Completed"}]),
    detail(TrainingJobStatus=[{"anything-but": ["Completed", "Stopped"]}]),
    detail(TrainingJobStatus=[{"anything-but": {"prefix": "Comp"}}]),
    detail(TrainingJobStatus=[{"anything-but": {"prefix": ["Comp", "Stop"]}}]),
    detail(TrainingJobStatus=[{"anything-but": {"suffix": "pleted"}}]),
    detail(TrainingJobStatus=[{"anything-but": {"equals-ignore-case": ["completed", "stopped"]}}]),
    detail(path=[{"anything-but": {"wildcard": "*/lib/*"}}]),
    detail(count=[{"anything-but": 123}]),
    detail(count=[{"anything-but": [1, 2]}]),
    detail(count=[{"anything-but": "5"}]),
    detail(count=[5]),
    detail(count=[5.0]),
    detail(limit=[3.018e2]),
    detail(count=[{"numeric": [">", 0, "<=", 5]}], ratio=[{"numeric": ["<", 0]}]),
    detail(limit=[{"numeric": ["=", 301.8]}]),
    detail(flag=[True]),
    detail(nothing=[None]),
    detail(empty=[""]),
    detail(address=[{"cidr": "10.0.0.0/24"}], address6=[{"cidr": "2001:db8::/32"}]),
    detail(path=[{"wildcard": "/opt/*/model.*.gz"}]),
    detail(path=[{"wildcard": "*"}]),
    detail(count=[{"exists": True}], absent=[{"exists": False}]),
    detail(nothing=[{"exists": True}]),
    detail(object=[{"exists": False}]),
    detail(none=[{"exists": False}]),
    detail(object={"inner": [{"exists": True}], "other": [{"exists": False}]}),
    {"absent": {"deeper": [{"exists": False}]}},
    detail(absent=[{"exists": False}, "x"], TrainingJobName=[{"exists": False}, "Job-1"]),
    detail(people={"first": ["Anna"], "last": ["Smith"]}),
    detail(nested={"x": [2]}),
    detail(nested={"y": [4]}),
    detail(Tags={"team": ["a.b"]}),
    {"$or": [{"source": ["nobody"]}, {"detail": {"count": [5]}}]},
    detail(**{"$or": [{"count": [1]}, {"flag": [True]}], "limit": [301.8]}),
    {
        "source": ["aws.sagemaker"],
        "$or": [{"region": ["x"]}, {"account": ["123456789012"], "$or": [{"id": ["1"]}, {"id": ["2"]}]}],
    },
]
NOT_MATCHING: list[dict[str, Any]] = [
    {"source": ["AWS.SageMaker"]},
    {"source": ["aws.sagemaker"], "region": ["eu-west-1"]},
    {"absent": ["x"]},
    {"absent": [{"anything-but": "x"}]},
    {"source": [{"prefix": "sage"}]},
    detail(TrainingJobStatus=[{"anything-but": "Failed"}]),
    detail(TrainingJobStatus=[{"anything-but": {"prefix": ["F", "x"]}}]),
    detail(TrainingJobStatus=[{"anything-but": {"equals-ignore-case": "FAILED"}}]),
    detail(path=[{"anything-but": {"wildcard": "*/ml/*"}}]),
    detail(count=["5"]),
    detail(count=[{"prefix": "5"}]),
    detail(count=[{"numeric": [">", 5]}]),
    detail(empty=[{"numeric": ["<", 9]}]),
    detail(flag=[1]),
    detail(flag=[{"numeric": ["=", 1]}]),
    detail(nothing=[""]),
    detail(address=[{"cidr": "10.0.1.0/24"}]),
    detail(address6=[{"cidr": "10.0.0.0/8"}]),
    detail(path=[{"cidr": "10.0.0.0/8"}]),
    detail(path=[{"wildcard": "/opt/*/model"}]),
    detail(count=[{"exists": False}]),
    detail(object=[{"exists": True}]),
    detail(none=[{"exists": True}]),
    detail(people={"first": ["Anna"], "last": ["Jones"]}),
    detail(people={"first": [{"exists": False}]}),
    detail(nested={"x": [3]}),
    {"$or": [{"source": ["nobody"]}, {"detail": {"count": [6]}}]},
]


@pytest.mark.parametrize("pattern", MATCHING, ids=json.dumps)
def test_patterns_that_match(pattern: dict[str, Any]) -> None:
    assert compile_pattern(json.dumps(pattern))(EVENT)


@pytest.mark.parametrize("pattern", NOT_MATCHING, ids=json.dumps)
def test_patterns_that_do_not(pattern: dict[str, Any]) -> None:
    assert not compile_pattern(json.dumps(pattern))(EVENT)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "It is not JSON"),
        ("{", "It is not JSON"),
        ("[]", "Filter is not an object"),
        ('"x"', "Filter is not an object"),
        ("{}", "Empty objects are not allowed"),
        ('{"detail": {}}', "Empty objects are not allowed"),
        ('{"source": []}', "Empty arrays are not allowed"),
        ('{"source": "x"}', '"source" must be an object or an array'),
        ('{"source": NaN}', "NaN is no JSON number"),
        ('{"source": ["a"], "source": ["b"]}', "Path `source` cannot be allowed multiple times"),
        ('{"source": [["x"]]}', "Match value must be String, number, true, false, or null"),
        ('{"source": [{"like": "x"}]}', "Unrecognized match type like"),
        ('{"source": [{}]}', "Match expression name not found"),
        ('{"source": [{"prefix": "a", "suffix": "b"}]}', "Only one key allowed in match expression"),
        ('{"source": [{"prefix": 1}]}', "prefix match pattern must be a string"),
        ('{"source": [{"prefix": {"wildcard": "x"}}]}', "Unsupported prefix pattern: wildcard"),
        ('{"source": [{"suffix": null}]}', "suffix match pattern must be a string"),
        ('{"source": [{"equals-ignore-case": 1}]}', "equals-ignore-case match pattern must be a string"),
        ('{"source": [{"exists": "yes"}]}', "exists match pattern must be either true or false."),
        ('{"source": [{"wildcard": "a**b"}]}', "Consecutive wildcard characters at pos 2"),
        ('{"source": [{"wildcard": "a\\\\b"}]}', "Invalid escape character at pos 1"),
        ('{"source": [{"anything-but": {"cidr": "x"}}]}', "Unsupported anything-but pattern: cidr"),
        ('{"source": [{"anything-but": {"prefix": ""}}]}', "Null prefix/suffix not allowed"),
        ('{"source": [{"anything-but": {"prefix": 1}}]}', "prefix/suffix match pattern must be a string"),
        ('{"source": [{"anything-but": []}]}', "either all values are number or string"),
        ('{"source": [{"anything-but": ["a", 1]}]}', "mixed type is not supported"),
        ('{"source": [{"anything-but": [true]}]}', "start|null|boolean is not supported"),
        ('{"source": [{"anything-but": true}]}', "must be an array or single string/number value"),
        ('{"n": [{"numeric": 5}]}', "Value of numeric must be an array."),
        ('{"n": [{"numeric": []}]}', "Invalid member in numeric match"),
        ('{"n": [{"numeric": [">"]}]}', "Too few elements in numeric expression"),
        ('{"n": [{"numeric": [">", 1, "<", 2, "<", 3]}]}', "Too many elements in numeric expression"),
        ('{"n": [{"numeric": ["!=", 1]}]}', "Unrecognized numeric range operator: !="),
        ('{"n": [{"numeric": [">", "1"]}]}', "Value of > must be numeric"),
        ('{"n": [{"numeric": [">", 5, "<", 1]}]}', "Bottom must be less than top"),
        ('{"n": [{"numeric": ["<", 5, ">", 1]}]}', "Bad numeric range operator: <"),
        ('{"a": [{"cidr": "10.0.0.0"}]}', "Malformed CIDR, one '/' required"),
        ('{"a": [{"cidr": "10.0.0.0/99"}]}', "Malformed CIDR"),
        ('{"$or": {"a": [1]}}', "It must be an Array followed with $or."),
        ('{"$or": [1, 2]}', "Only JSON object is allowed in array of $or relationship."),
        ('{"$or": [{"a": [1]}]}', "There must have at least 2 Objects in $or relationship."),
        ('{"$or": [{"prefix": [1]}, {"a": [1]}]}', "prefix is Ruler reserved fieldName"),
        ('{"a":' * 120 + "[1]" + "}" * 120, "nested more than 100 deep"),
        ("[" * 100_000, "nested more than 100 deep"),
    ],
)
def test_a_malformed_pattern_is_refused_in_the_words_of_aws(pattern: str, reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        compile_pattern(pattern)
    assert refused.value.code == "InvalidEventPatternException"
    assert refused.value.message.startswith("Event pattern is not valid. Reason: ")
    assert reason in refused.value.message


def test_a_pattern_with_too_many_branches_is_refused() -> None:
    branches = [{"a": [number]} for number in range(1001)]
    with pytest.raises(Invalid, match="too complex"):
        compile_pattern(json.dumps({"$or": branches}))


def test_a_wildcard_against_a_long_text_takes_no_time() -> None:
    """What backtracking would take for ever over."""
    pattern = {"a": [{"wildcard": "*a" * 50 + "*b"}]}
    assert not compile_pattern(json.dumps(pattern))({"a": "a" * 200_000})


def test_stars_and_backslashes_can_be_escaped() -> None:
    matches = compile_pattern(json.dumps({"a": [{"wildcard": r"\**\\*"}]}))
    assert matches({"a": r"*anything\more"})
    assert not matches({"a": r"x\more"})


def test_an_event_nested_as_deep_as_json_allows_is_looked_through() -> None:
    value: Any = "x"
    for _ in range(800):
        value = [value]
    assert compile_pattern('{"a": ["x"]}')({"a": value})


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["", "a", "b", "ab", "A", "*", "\\"])
)
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
EVENTS = st.dictionaries(NAMES, VALUES, max_size=3)
TEXTS = st.text("abA*", max_size=4)
LEAF = st.one_of(
    SCALARS,
    st.fixed_dictionaries({"prefix": TEXTS}),
    st.fixed_dictionaries({"suffix": TEXTS}),
    st.fixed_dictionaries({"equals-ignore-case": TEXTS}),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.fixed_dictionaries({"anything-but": st.lists(TEXTS, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"numeric": st.tuples(st.sampled_from("<>="), st.integers(-5, 5))}),
)
PATTERNS = st.recursive(
    st.dictionaries(NAMES, st.lists(LEAF, min_size=1, max_size=3), min_size=1, max_size=2),
    lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=2),
    max_leaves=4,
)


def matches(pattern: Any, event: Any) -> bool:
    return compile_pattern(json.dumps(pattern))(event)


@given(PATTERNS, EVENTS)
@settings(max_examples=300, deadline=None)
def test_any_pattern_gives_an_answer_for_any_event(pattern: Any, event: Any) -> None:
    assert matches(pattern, event) in (True, False)


@given(PATTERNS, PATTERNS, EVENTS)
@settings(max_examples=200, deadline=None)
def test_or_is_one_or_the_other(one: Any, other: Any, event: Any) -> None:
    assert matches({"$or": [one, other]}, event) == (matches(one, event) or matches(other, event))


@given(NAMES, st.lists(LEAF, min_size=1, max_size=4), EVENTS)
@settings(max_examples=200, deadline=None)
def test_a_field_matches_if_one_of_its_values_does(name: str, values: list[Any], event: Any) -> None:
    assert matches({name: values}, event) == any(matches({name: [value]}, event) for value in values)


@given(PATTERNS, EVENTS)
@settings(max_examples=200, deadline=None)
def test_every_field_must_match(pattern: Any, event: Any) -> None:
    each = [matches({name: value}, event) for name, value in pattern.items()]
    assert matches(pattern, event) == all(each)


@given(NAMES, EVENTS)
@settings(max_examples=200, deadline=None)
def test_a_field_exists_or_does_not(name: str, event: Any) -> None:
    assert matches({name: [{"exists": True}]}, event) != matches({name: [{"exists": False}]}, event)


@given(SCALARS, st.lists(TEXTS, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_anything_but_is_the_opposite_of_the_values(value: Any, refused: list[str]) -> None:
    assert matches({"a": [{"anything-but": refused}]}, {"a": value}) != matches({"a": refused}, {"a": value})


@given(st.text("ab*", max_size=6).filter(lambda text: "**" not in text), st.text("ab", max_size=8))
@settings(max_examples=500, deadline=None)
def test_wildcards_match_as_those_of_a_shell(wildcard: str, text: str) -> None:
    assert matches({"a": [{"wildcard": wildcard}]}, {"a": text}) == fnmatch.fnmatchcase(text, wildcard)


@given(PATTERNS, EVENTS)
@settings(max_examples=200, deadline=None)
def test_what_a_pattern_does_not_name_does_not_matter(pattern: Any, event: Any) -> None:
    assert matches(pattern, event) == matches(pattern, {**event, "unnamed": [{"x": 1}]})
