"""Members that travel in the path, the query, the headers and the status: what the REST protocols share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import Shape

from clary.protocol.codecs.codec import Unreadable
from clary.protocol.codecs.scalars import read_base64, read_scalar, write_base64, write_scalar
from clary.protocol.wire import Headers, HttpRequest, Members, ReplyMembers

MAX_QUERY_FIELDS = 1000


def read_bound_members(shape: Shape, request: HttpRequest, path_parameters: Mapping[str, str]) -> Members:
    """The members of ``shape`` that are not in the body. Raises `Unreadable`."""
    query = _query(request.query)
    members: Members = {}
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        if location is None:
            continue
        wire_name = member.serialization.get("name", name)
        try:
            if location == "uri":
                value = _single(member, path_parameters.get(wire_name))
            elif location == "querystring":
                value = _query_value(shape, member, wire_name, query)
            elif location == "header":
                value = _header_value(member, request.headers.all(wire_name))
            elif location == "headers":
                value = _prefixed(request.headers, wire_name.lower())
            else:
                continue
        except Unreadable as error:
            raise error.within(name) from None
        if value is not None:
            members[name] = value
    return members


def _query(text: str) -> dict[str, list[str]]:
    if not text:
        return {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise Unreadable(f"The query has more than {MAX_QUERY_FIELDS} fields") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def _single(shape: Shape, text: str | None) -> Any:
    """A scalar; nothing for text that is empty where that can be no value."""
    if text is None or (text == "" and shape.type_name not in ("string", "character", "blob")):
        return None
    return read_scalar(shape, text)


def _query_value(parent: Shape, shape: Shape, wire_name: str, query: Mapping[str, list[str]]) -> Any:
    if shape.type_name == "map":
        # What no other member names.
        taken = {member.serialization.get("name", name) for name, member in parent.members.items()}
        several = shape.value.type_name == "list"
        rest = {key: values if several else values[0] for key, values in query.items() if key not in taken}
        return rest or None
    values = query.get(wire_name)
    if values is None:
        return None
    if shape.type_name == "list":
        return [read_scalar(shape.member, value) for value in values]
    return _single(shape, values[0])


def _header_value(shape: Shape, values: list[str]) -> Any:
    if not values:
        return None
    if shape.type_name == "list":
        separate = _split_dates if shape.member.type_name == "timestamp" else _split
        items = [item for value in values for item in separate(value)]
        return [read_scalar(shape.member, item) for item in items] or None
    if shape.serialization.get("jsonvalue"):
        try:
            return json.loads(read_base64(values[0]))
        except ValueError:
            raise Unreadable("the header must be base64 of JSON") from None
    return _single(shape, values[0])


def _split(text: str) -> list[str]:
    """The items of a comma-separated header. Quotes keep a comma inside, a backslash a quote."""
    items: list[str] = []
    item, quoted, escaping = "", False, False
    for character in text:
        if escaping:
            item, escaping = item + character, False
        elif quoted and character == "\\":
            escaping = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            items.append(item.strip())
            item = ""
        else:
            item += character
    return [item for item in (*items, item.strip()) if item]


def _split_dates(text: str) -> list[str]:
    """HTTP dates: every second comma is their own."""
    pieces = text.split(",")
    return [",".join(pieces[index : index + 2]).strip() for index in range(0, len(pieces), 2)]


def _prefixed(headers: Headers, prefix: str) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for name, value in headers.items():
        if name.startswith(prefix):
            key = name[len(prefix) :]
            found[key] = f"{found[key]},{value}" if key in found else value
    return found or None


def write_bound_members(shape: Shape, members: ReplyMembers, headers: Headers) -> int | None:
    """Set the headers that are members. Gives the status, if that is a member. Raises ``TypeError``."""
    status = None
    for name, member in shape.members.items():
        value = members.get(name)
        location = member.serialization.get("location")
        if value is None or location is None:
            continue
        wire_name = member.serialization.get("name", name)
        if location == "statusCode":
            status = int(value)
        elif location == "header":
            headers.set(wire_name, one_line(_header_text(member, value)))
        elif location == "headers":
            for key, item in value.items():
                headers.set(f"{wire_name}{key}", one_line(item))
    return status


def _header_text(shape: Shape, value: Any) -> str:
    if shape.type_name == "list":
        return ", ".join(_quoted(_header_text(shape.member, item)) for item in value)
    if shape.serialization.get("jsonvalue"):
        return write_base64(json.dumps(value, separators=(",", ":")).encode())
    return write_scalar(shape, value, "rfc822")


def _quoted(text: str) -> str:
    if "," not in text and '"' not in text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def one_line(text: str) -> str:
    """``text`` as a header's value: a line break would begin another header."""
    return text.replace("\r", " ").replace("\n", " ")


def has_body_members(shape: Shape) -> bool:
    """Whether members of ``shape`` travel in the document that is the body."""
    return any("location" not in member.serialization for member in shape.members.values())
