"""What a target is sent of an event: all of it, a part, a text of the rule's, or a template filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from clary.faults import Invalid

MAX_PATHS = 100  # of one transformer
LARGEST_INPUT_CHARACTERS = 2_097_152  # that a target is sent: a template may hold an event twice

_Step: TypeAlias = "str | int | None"  # a member, an element, or every element
_STEP = re.compile(r"\.([^.\[\]\s]+)|\['([^']+)'\]|\[\"([^\"]+)\"\]|\[(\d{1,6})\]|\[(\*)\]")
_VARIABLE = re.compile(r"<([A-Za-z0-9_.\-]+)>")
_PREDEFINED = (
    "aws.events.rule-arn",
    "aws.events.rule-name",
    "aws.events.event.ingestion-time",
    "aws.events.event",
    "aws.events.event.json",
)
_MISSING = object()


class InputTooLarge(Exception):
    """A template was filled with more than a target is sent."""


def read_path(path: str, member: str = "InputPath") -> list[_Step]:
    """The steps of a JSON path (``$.detail.name``, ``$.resources[0]``, ``[*]``). Raises `Invalid`."""
    steps: list[_Step] = []
    place = 1
    if not path.startswith("$"):
        raise _not_a_path(path, member)
    while place < len(path):
        found = _STEP.match(path, place)
        if found is None:
            raise _not_a_path(path, member)
        name, quoted, double, index, every = found.groups()
        if every:
            steps.append(None)
        else:
            steps.append(int(index) if index else name or quoted or double)
        place = found.end()
    return steps


def _not_a_path(path: str, member: str) -> Invalid:
    return Invalid(
        f"Invalid {member}: '{path}' is not a JSON path. Write $, names after dots, and indices in brackets: "
        "$.detail.TrainingJobName, $.resources[0]."
    )


def select(event: Any, path: str) -> Any:
    """What ``path`` leads to; ``None`` if it leads nowhere."""
    found = _follow(event, read_path(path))
    return None if found is _MISSING else found


def _follow(value: Any, steps: Sequence[_Step]) -> Any:
    for place, step in enumerate(steps):
        if step is None:
            if not isinstance(value, list):
                return _MISSING
            found = [_follow(each, steps[place + 1 :]) for each in value]
            return [each for each in found if each is not _MISSING]
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return _MISSING
        elif not isinstance(value, dict) or step not in value:
            return _MISSING
        value = value[step]
    return value


def check_input(target: Mapping[str, Any]) -> None:
    """Raises `Invalid` unless Input, InputPath or InputTransformer of ``target`` will do."""
    given = [name for name in ("Input", "InputPath", "InputTransformer") if target.get(name) is not None]
    if len(given) > 1:
        raise Invalid(
            "Only one of Input, InputPath, or InputTransformer must be provided for target "
            f"{target.get('Id')}."
        )
    if target.get("Input") is not None:
        try:
            json.loads(target["Input"])
        except (ValueError, RecursionError):
            raise Invalid(f"JSON syntax error in input for target {target.get('Id')}.") from None
    if target.get("InputPath"):
        read_path(target["InputPath"])
    transformer = target.get("InputTransformer")
    if transformer is not None:
        _check_transformer(transformer, target.get("Id"))


def _check_transformer(transformer: Mapping[str, Any], target: Any) -> None:
    paths = transformer.get("InputPathsMap") or {}
    if len(paths) > MAX_PATHS:
        raise Invalid(
            f"InputPathsMap of target {target} has {len(paths)} paths; there may be {MAX_PATHS} at most."
        )
    for name, path in paths.items():
        if name.lower().startswith("aws"):
            raise Invalid(
                f"InputPathsMap of target {target}: names that start with AWS are reserved: {name}."
            )
        read_path(path, "InputPathsMap")
    template = transformer["InputTemplate"]
    unknown = sorted(set(_VARIABLE.findall(template)) - set(paths) - set(_PREDEFINED))
    if unknown:
        raise Invalid(
            f"Invalid InputTemplate for target {target} : "
            f"The variable <{unknown[0]}> is neither in InputPathsMap nor predefined."
        )


def target_input(target: Mapping[str, Any], event: Mapping[str, Any], *, rule_arn: str, ingested: str) -> str:
    """What ``target`` is sent of ``event``, as text. ``ingested`` is when the bus took it, in ISO 8601.

    Raises `InputTooLarge`.
    """
    if target.get("Input") is not None:
        return str(target["Input"])
    if target.get("InputPath"):
        return _json(select(event, target["InputPath"]))
    transformer = target.get("InputTransformer")
    if transformer is None:
        return _json(event)
    values = {name: select(event, path) for name, path in (transformer.get("InputPathsMap") or {}).items()}
    values |= {
        "aws.events.rule-arn": rule_arn,
        "aws.events.rule-name": rule_arn.rpartition("/")[2],
        "aws.events.event.ingestion-time": ingested,
        "aws.events.event": {name: value for name, value in event.items() if name != "detail"},
        "aws.events.event.json": event,
    }
    return fill(transformer["InputTemplate"], values)


def fill(template: str, values: Mapping[str, Any]) -> str:
    """``template`` with each ``<name>`` replaced.

    Within quotation marks a value stands as text, escaped, objects and arrays as their JSON; elsewhere
    it stands as JSON. Raises `InputTooLarge`.
    """
    room = LARGEST_INPUT_CHARACTERS - len(template)
    pieces: list[str] = []
    place, quoted = 0, False
    for found in _VARIABLE.finditer(template):
        before = template[place : found.start()]
        quoted = _ends_quoted(before, quoted)
        pieces.append(before)
        place = found.end()
        if found[1] not in values:
            pieces.append(found[0])
            continue
        value = values[found[1]]
        text = ""
        if not quoted:
            text = _json(value)
        elif value is not None:
            text = json.dumps(value if isinstance(value, str) else _json(value), ensure_ascii=False)[1:-1]
        room -= len(text)
        if room < 0:
            raise InputTooLarge(f"The input would have more than {LARGEST_INPUT_CHARACTERS} characters.")
        pieces.append(text)
    pieces.append(template[place:])
    return "".join(pieces)


def _ends_quoted(text: str, quoted: bool) -> bool:
    """Whether a JSON string is open behind ``text``."""
    escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = quoted
        elif character == '"':
            quoted = not quoted
    return quoted


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
