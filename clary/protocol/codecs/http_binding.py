"""Members that travel in the path, the query, the headers and the status: what the REST protocols share."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import Shape

from clary.protocol.codecs.codec import unreadable
from clary.protocol.codecs.timestamps import as_text, read_timestamp
from clary.protocol.wire import Headers, HttpRequest, Members, ReplyMembers

MAX_QUERY_FIELDS = 1000


def read_bound_members(
    shape: Shape | None, request: HttpRequest, path_parameters: Mapping[str, str]
) -> Members:
    """The members of ``shape`` that are not in the body. Raises `Invalid` for text of the wrong type."""
    if shape is None:
        return {}
    try:
        pairs = parse_qsl(request.query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise unreadable(f"The query has more than {MAX_QUERY_FIELDS} fields.") from None
    bound = {
        member.serialization.get("name", name)
        for name, member in shape.members.items()
        if member.serialization.get("location") == "querystring"
    }
    found: Members = {}
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        wire_name = member.serialization.get("name", name)
        if location == "uri":
            if wire_name in path_parameters:
                found[name] = _scalar(member, path_parameters[wire_name], name, "iso8601")
        elif location == "querystring":
            values = [value for key, value in pairs if key == wire_name]
            if member.type_name == "list":
                if values:
                    found[name] = [_scalar(member.member, value, name, "iso8601") for value in values]
            elif member.type_name == "map":
                rest = [(key, value) for key, value in pairs if key not in bound]
                if rest:
                    found[name] = _query_map(member, rest)
            elif values:
                found[name] = _scalar(member, values[0], name, "iso8601")
        elif location == "header":
            value = request.headers.get(wire_name)
            if value is not None:
                found[name] = _header_value(member, request.headers.all(wire_name), name)
        elif location == "headers":
            prefix = wire_name.lower()
            values_by_name: dict[str, str] = {}
            for key, value in request.headers.items():
                if key.startswith(prefix):
                    rest_of_name = key[len(prefix) :]
                    earlier = values_by_name.get(rest_of_name)
                    values_by_name[rest_of_name] = value if earlier is None else f"{earlier},{value}"
            if values_by_name:
                found[name] = values_by_name
    return found


def _query_map(shape: Shape, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    if shape.value.type_name != "list":
        return dict(pairs)
    grouped: dict[str, list[str]] = {}
    for key, value in pairs:
        grouped.setdefault(key, []).append(value)
    return grouped


def _header_value(shape: Shape, values: list[str], name: str) -> Any:
    if shape.type_name == "list":
        return [
            _scalar(shape.member, item, name, "rfc822") for value in values for item in _split(value) if item
        ]
    if shape.serialization.get("jsonvalue"):
        try:
            return json.loads(base64.b64decode(values[0], validate=True))
        except (binascii.Error, ValueError):
            raise unreadable(f"'{name}' must be base64 of JSON.") from None
    return _scalar(shape, values[0], name, "rfc822")


def _split(text: str) -> list[str]:
    """Items of a comma-separated header; quotes keep a comma together, a backslash the next character."""
    items, item, quoted, escaped = [], "", False, False
    for character in text:
        if escaped:
            item, escaped = item + character, False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            items.append(item.strip())
            item = ""
        else:
            item += character
    return [*items, item.strip()]


def _scalar(shape: Shape, text: str, name: str, timestamp_format: str) -> Any:
    kind = shape.type_name
    try:
        if kind in ("integer", "long"):
            return int(text)
        if kind in ("float", "double"):
            return float(text)
        if kind == "boolean":
            return {"true": True, "false": False}[text.lower()]
        if kind == "blob":
            return base64.b64decode(text, validate=True)
    except (ValueError, KeyError, binascii.Error):
        raise unreadable(f"'{name}' must be of type {kind}, not '{text[:100]}'.") from None
    return read_timestamp(text) if kind == "timestamp" else text


def write_bound_members(shape: Shape | None, members: ReplyMembers, headers: Headers) -> int | None:
    """Put the members that are headers into ``headers``; gives the member that is the status, if any."""
    status = None
    for name, member in shape.members.items() if shape is not None else ():
        value = members.get(name)
        location = member.serialization.get("location")
        if value is None or location is None:
            continue
        wire_name = member.serialization.get("name", name)
        if location == "statusCode":
            status = int(value)
        elif location == "header":
            headers.set(wire_name, _clean(_header_text(member, value)))
        elif location == "headers":
            for key, item in value.items():
                headers.set(f"{wire_name}{key}", _clean(str(item)))
    return status


def _header_text(shape: Shape, value: Any) -> str:
    if shape.type_name == "timestamp":
        return as_text(value, shape.serialization.get("timestampFormat", "rfc822"))
    if shape.type_name == "boolean":
        return "true" if value else "false"
    if shape.type_name == "list":
        return ", ".join(_header_text(shape.member, item) for item in value)
    if shape.type_name == "blob":
        return base64.b64encode(bytes(value)).decode()
    if shape.serialization.get("jsonvalue"):
        return base64.b64encode(json.dumps(value).encode()).decode()
    return str(value)


def _clean(text: str) -> str:
    """A header's value cannot hold line breaks: they would begin another header."""
    return text.replace("\r", " ").replace("\n", " ")


def body_members(shape: Shape) -> dict[str, Shape]:
    """The members that are neither bound elsewhere nor the payload's neighbours: those in the document."""
    return {
        name: member for name, member in shape.members.items() if member.serialization.get("location") is None
    }
