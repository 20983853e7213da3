"""Filter patterns: which messages they match, and which patterns are refused."""

from __future__ import annotations

import pytest

from clary.faults import Invalid
from clary.services.logs.filter_pattern import compile_pattern

LINE = '[2024-01-01 12:00:00] ERROR code=500 said "no" after 3 tries'
EVENT = (
    '{"level": "ERROR", "ms": 120, "ok": false, "user": null, "tags": ["a", {"b": "c d"}],'
    ' "ip": "10.0.0.7", "text": "50", "nested": {"deep": {"er": -1.5}}}'
)


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("ERROR", True),
        ("error", False),
        ("ERROR code=500", True),
        ("ERROR missing", False),
        ("ERROR -missing", True),
        ("ERROR -tries", False),
        ("-ERROR", False),
        ('"code=500 said"', True),
        ('"said code"', False),
        (r'"said \"no\""', True),
        ('-"after 3"', False),
        ("?missing ?tries", True),
        ("?missing ?absent", False),
        ("ERROR ?missing ?tries", True),
        ('""', True),
        ("ERR", True),
    ],
)
def test_words_and_phrases(pattern: str, matched: bool) -> None:
    matches = compile_pattern(pattern)
    assert matches is not None
    assert matches(LINE) is matched


@pytest.mark.parametrize("pattern", ["", "   "])
def test_no_pattern_matches_all(pattern: str) -> None:
    assert compile_pattern(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ('{ $.level = "ERROR" }', True),
        ("{ $.level = ERROR }", True),
        ("{$.level=error}", False),
        ('{ $.level != "INFO" }', True),
        ('{ $.missing != "INFO" }', False),
        ("{ $.ms = 120 }", True),
        ("{ $.ms > 1.1e2 }", True),
        ("{ $.ms >= 120 && $.ms <= 120 }", True),
        ("{ $.ms < 120 }", False),
        ("{ $.text > 1 }", False),
        ("{ $.text = 50 }", True),
        ("{ $.nested.deep.er = -1.5 }", True),
        ("{ $.nested.deep.er.no = 1 }", False),
        ('{ $.tags[0] = "a" }', True),
        ('{ $.tags[1].b = "c d" }', True),
        ("{ $.tags[7] = a }", False),
        ("{ $.ip = 10.0.* }", True),
        ('{ $.ip = "10.*.8" }', False),
        ('{ $.ip = "10.0.0.?" }', False),
        ("{ $.user IS NULL }", True),
        ("{ $.level IS NULL }", False),
        ("{ $.ok IS FALSE }", True),
        ("{ $.ok IS TRUE }", False),
        ("{ $.ok is false }", True),
        ("{ $.missing NOT EXISTS }", True),
        ("{ $.user NOT EXISTS }", False),
        ("{ $.user EXISTS }", True),
        ("{ $.ms > 999 || $.ip = 10.* }", True),
        ("{ $.ms > 999 && $.ip = 10.* || $.ok IS FALSE }", True),
        ("{ $.ms > 999 && ($.ip = 10.* || $.ok IS FALSE) }", False),
    ],
)
def test_json(pattern: str, matched: bool) -> None:
    matches = compile_pattern(pattern)
    assert matches is not None
    assert matches(EVENT) is matched


@pytest.mark.parametrize("message", ["plain", "", "{broken", '"text"', "7", "[" * 5000, "{}", "[1]"])
def test_what_is_not_json_or_lacks_the_field_does_not_match(message: str) -> None:
    matches = compile_pattern("{ $.level = * }")
    assert matches is not None
    assert matches(message) is False


@pytest.mark.parametrize(
    "pattern",
    [
        "[ip, user]",
        "%ERR.*%",
        'an "open phrase',
        "{ $.a = 1",
        "{ }",
        "{ $.a }",
        "{ $.a = }",
        "{ $.a < word }",
        "{ $.a IS 7 }",
        "{ $.a NOT NULL }",
        "{ a = 1 }",
        "{ $.a = 1 && }",
        "{ ($.a = 1 }",
        "{ $.a = 1 $.b = 2 }",
        '{ $.a = "open }',
        "{ " + "(" * 200 + "$.a = 1" + ")" * 200 + " }",
    ],
)
def test_a_pattern_that_is_malformed_or_not_offered_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="Invalid filter pattern"):
        compile_pattern(pattern)


def test_a_pattern_full_of_wildcards_is_no_trap() -> None:
    matches = compile_pattern("{ $.a = " + "*a" * 50 + "b }")
    assert matches is not None
    assert matches('{"a": "' + "a" * 5000 + '"}') is False
