"""XML documents along a shape, for REST-XML and Query.

Parsing refuses document types, and with them entities and what can be done with them.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from botocore.model import Shape

from clary.protocol.codecs.codec import MAX_DEPTH, unreadable
from clary.protocol.codecs.timestamps import as_text, read_timestamp

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def parse(body: bytes) -> Element:
    """The root element of ``body``, names without their namespaces. Raises `Invalid` (``MalformedXML``)."""
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator="}")
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise _malformed(f"elements nest more than {MAX_DEPTH} deep")
        plain = {key.rpartition("}")[2]: value for key, value in attributes.items()}
        builder.start(name.rpartition("}")[2], plain)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name.rpartition("}")[2])

    def doctype(*_: object) -> None:
        raise _malformed("document type declarations are not allowed")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    parser.buffer_text = True
    try:
        parser.Parse(body, True)
        return builder.close()
    except expat.ExpatError as error:
        raise _malformed(str(error)) from None


def _malformed(cause: str) -> Exception:
    return unreadable(
        "The XML you provided was not well-formed or did not validate against our published schema: "
        f"{cause}.",
        "MalformedXML",
    )


def read(shape: Shape, element: Element) -> Any:
    """The value of ``element`` in the types of ``shape``. Raises `Invalid`."""
    kind = shape.type_name
    if kind == "structure":
        members = {}
        for name, member in shape.members.items():
            wire_name = member.serialization.get("name", name)
            if member.serialization.get("xmlAttribute"):
                local = wire_name.rpartition(":")[2]
                if local in element.attrib:
                    members[name] = _read_text(member, element.attrib[local])
            elif member.type_name in ("list", "map") and member.serialization.get("flattened"):
                # The name of a flattened list's elements may be its member's own.
                inner = member.member.serialization.get("name") if member.type_name == "list" else None
                found = element.findall(inner or wire_name) or element.findall(wire_name)
                if found:
                    members[name] = (
                        [read(member.member, item) for item in found]
                        if member.type_name == "list"
                        else dict(_entry(member, item) for item in found)
                    )
            else:
                child = element.find(wire_name)
                if child is not None:
                    members[name] = read(member, child)
        return members
    if kind == "list":
        return [read(shape.member, child) for child in element]
    if kind == "map":
        return dict(_entry(shape, child) for child in element)
    return _read_text(shape, element.text or "")


def _entry(shape: Shape, element: Element) -> tuple[Any, Any]:
    key = element.find(shape.key.serialization.get("name", "key"))
    value = element.find(shape.value.serialization.get("name", "value"))
    if key is None or value is None:
        raise _malformed("a map's entry lacks its key or value")
    return read(shape.key, key), read(shape.value, value)


def read_text(shape: Shape, text: str) -> Any:
    """A scalar from its text. Raises `Invalid`."""
    return _read_text(shape, text)


def _read_text(shape: Shape, text: str) -> Any:
    kind = shape.type_name
    if kind in ("string", "character"):
        return text
    text = text.strip()
    try:
        if kind in ("integer", "long"):
            return int(text)
        if kind in ("float", "double"):
            return float(text)
        if kind == "boolean":
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if kind == "blob":
            return base64.b64decode(text, validate=True)
    except (ValueError, KeyError, binascii.Error):
        raise unreadable(f"'{text[:100]}' is not of type {kind}.", "MalformedXML") from None
    if kind == "timestamp":
        return read_timestamp(text)
    raise unreadable(f"A {kind} cannot be text.", "MalformedXML")


def write(shape: Shape, value: Any, name: str, *, default_timestamp: str = "iso8601") -> str:
    """``value`` as the element ``name``."""
    pieces: list[str] = []
    _write(shape, value, name, pieces, default_timestamp)
    return "".join(pieces)


def write_members(shape: Shape, members: Any, *, without: frozenset[str] = frozenset()) -> str:
    """The members of a structure as elements, without an element around them."""
    pieces: list[str] = []
    _write_members(shape, members, pieces, "iso8601", without)
    return "".join(pieces)


def opening_tag(shape: Shape, name: str, value: Any = None) -> str:
    """``<name ...>`` with the shape's namespace and its members that are attributes."""
    attributes = ""
    namespace = shape.serialization.get("xmlNamespace") or shape.metadata.get("xmlNamespace")
    if namespace:
        uri = namespace["uri"] if isinstance(namespace, dict) else namespace
        prefix = namespace.get("prefix") if isinstance(namespace, dict) else None
        attributes += f" xmlns{':' + prefix if prefix else ''}={quoteattr(uri)}"
    if shape.type_name == "structure" and isinstance(value, dict):
        for member_name, member in shape.members.items():
            if member.serialization.get("xmlAttribute") and value.get(member_name) is not None:
                wire_name = member.serialization.get("name", member_name)
                attributes += f" {wire_name}={quoteattr(_text(member, value[member_name], 'iso8601'))}"
    return f"<{name}{attributes}>"


def _write(shape: Shape, value: Any, name: str, pieces: list[str], timestamps: str) -> None:
    kind = shape.type_name
    pieces.append(opening_tag(shape, name, value))
    if kind == "structure":
        _write_members(shape, value, pieces, timestamps, frozenset())
    elif kind == "list":
        inner = shape.member.serialization.get("name", "member")
        for item in value:
            _write(shape.member, item, inner, pieces, timestamps)
    elif kind == "map":
        for key, item in value.items():
            pieces.append("<entry>")
            _write_entry(shape, key, item, pieces, timestamps)
            pieces.append("</entry>")
    else:
        pieces.append(escaped(_text(shape, value, timestamps)))
    pieces.append(f"</{name}>")


def _write_members(
    shape: Shape, members: Any, pieces: list[str], timestamps: str, without: frozenset[str]
) -> None:
    for name, member in shape.members.items():
        value = members.get(name)
        if value is None or name in without or member.serialization.get("xmlAttribute"):
            continue
        wire_name = member.serialization.get("name", name)
        if member.type_name == "list" and member.serialization.get("flattened"):
            inner = member.member.serialization.get("name", wire_name)
            for item in value:
                _write(member.member, item, inner, pieces, timestamps)
        elif member.type_name == "map" and member.serialization.get("flattened"):
            for key, item in value.items():
                pieces.append(f"<{wire_name}>")
                _write_entry(member, key, item, pieces, timestamps)
                pieces.append(f"</{wire_name}>")
        else:
            _write(member, value, wire_name, pieces, timestamps)


def _write_entry(shape: Shape, key: Any, value: Any, pieces: list[str], timestamps: str) -> None:
    _write(shape.key, key, shape.key.serialization.get("name", "key"), pieces, timestamps)
    _write(shape.value, value, shape.value.serialization.get("name", "value"), pieces, timestamps)


def _text(shape: Shape, value: Any, timestamps: str) -> str:
    kind = shape.type_name
    if kind == "timestamp":
        return as_text(value, shape.serialization.get("timestampFormat", timestamps))
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "blob":
        data = value if isinstance(value, (bytes, bytearray)) else str(value).encode()
        return base64.b64encode(data).decode()
    if kind in ("float", "double"):
        number = float(value)
        if not math.isfinite(number):
            return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
        return repr(number)
    return str(int(value)) if kind in ("integer", "long") else str(value)


def escaped(text: str) -> str:
    """Character data. What XML 1.0 has no way to write becomes the replacement character."""
    return _NOT_XML.sub("\ufffd", escape(text, {"\r": "&#xD;"}))
