"""Schedule expressions: ``rate(5 minutes)`` and ``cron(0 12 * * ? *)``, checked as EventBridge does."""

from __future__ import annotations

import re

from clary.faults import Invalid

_RATE = re.compile(r"rate\(([1-9]\d{0,9}) (minute|minutes|hour|hours|day|days)\)\Z")
_CRON = re.compile(r"cron\((.*)\)\Z")
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
# Of each field: least, most, names that stand for numbers from the least on, letters allowed besides.
_FIELDS: tuple[tuple[int, int, list[str], str], ...] = (
    (0, 59, [], ""),
    (0, 23, [], ""),
    (1, 31, [], "?LW"),
    (1, 12, _MONTHS, ""),
    (1, 7, _DAYS, "?L#"),
    (1970, 2199, [], ""),
)


def check_schedule(expression: str) -> None:
    """Raises `Invalid` for an expression that EventBridge does not take."""
    if not _is_rate(expression) and not _is_cron(expression):
        raise Invalid("Parameter ScheduleExpression is not valid.", code="ValidationException")


def _is_rate(expression: str) -> bool:
    found = _RATE.match(expression)
    return found is not None and (int(found[1]) == 1) != found[2].endswith("s")


def _is_cron(expression: str) -> bool:
    found = _CRON.match(expression)
    fields = found[1].split() if found else []
    if len(fields) != len(_FIELDS):
        return False
    if (fields[2] == "?") == (fields[4] == "?"):  # one of the two days is left open, and only one
        return False
    return all(_fits(field, *rule) for field, rule in zip(fields, _FIELDS, strict=True))


def _fits(field: str, least: int, most: int, names: list[str], letters: str) -> bool:
    if field == "?":
        return "?" in letters

    def number(text: str) -> int | None:
        if text.upper() in names:
            return names.index(text.upper()) + least
        good = text.isascii() and text.isdecimal() and len(text) < 5
        return int(text) if good and least <= int(text) <= most else None

    for part in field.split(","):
        span, slash, step = part.partition("/")
        if slash and (not step.isdecimal() or not 0 < int(step[:5]) <= most):
            return False
        if span == "*":
            continue
        if "L" in letters and (span == "L" or (span.endswith("L") and number(span[:-1]) is not None)):
            continue
        if "W" in letters and (span == "LW" or (span.endswith("W") and number(span[:-1]) is not None)):
            continue
        if "#" in letters and "#" in span:
            day, _, week = span.partition("#")
            if number(day) is None or week not in ("1", "2", "3", "4", "5"):
                return False
            continue
        first, dash, last = span.partition("-")
        if number(first) is None or (dash and number(last) is None):
            return False
    return True
