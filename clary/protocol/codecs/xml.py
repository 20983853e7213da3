"""Members as XML holds them, for REST-XML and for the replies of Query.

Documents are read without document types, so without entities and what can be done with them, and to a
limited depth. Namespaces are not looked at: clients differ in whether they send them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from botocore.model import Shape

from clary.protocol.codecs.codec import MAX_DEPTH, Unreadable
from clary.protocol.codecs.scalars import read_scalar, write_scalar

DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
MAX_ELEMENTS = 200_000

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
# Beside markup: a carriage return, which a parser would make a line feed, and what XML 1.0 cannot hold. The
# latter goes out as a reference, as S3 does; a client that cannot read it asks for URL-encoded keys.
_ESCAPED = re.compile('[&<>"\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]')


@dataclass
class Element:
    """One element: names without prefix, the text before its first child."""

    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def parse(body: bytes) -> Element:
    """The root element of ``body``. Raises `Unreadable`."""
    root = Element("")
    open_elements = [root]
    count = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(open_elements) > MAX_DEPTH:
            raise Unreadable(f"Elements are nested more than {MAX_DEPTH} deep")
        if count > MAX_ELEMENTS:
            raise Unreadable(f"The document has more than {MAX_ELEMENTS} elements")
        plain = {_local(key): value for key, value in attributes.items()}
        element = Element(_local(name), plain)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        open_elements.pop()

    def text(piece: str) -> None:
        open_elements[-1].pieces.append(piece)

    def doctype(*_: object) -> None:
        raise Unreadable("Document type declarations are not allowed")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two: of its encoding
        raise Unreadable(f"The document is not XML: {error}") from None
    return root.children[0]


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def read(shape: Shape, element: Element) -> Any:
    """The value of ``element`` in the types of ``shape``. Raises `Unreadable`."""
    kind = shape.type_name
    if kind == "structure":
        return read_members(shape, element)
    if kind == "list":
        wanted = shape.member.serialization.get("name", "member")
        return [read(shape.member, child) for child in element.children if child.name in (wanted, "member")]
    if kind == "map":
        return dict(_read_entry(shape, child) for child in element.children if child.name == "entry")
    if kind in ("string", "character"):
        return element.text
    return read_scalar(shape, element.text.strip())


def read_members(shape: Shape, element: Element) -> dict[str, Any]:
    """The members of a structure that travel in documents. Raises `Unreadable`."""
    by_name: dict[str, list[Element]] = {}
    for child in element.children:
        by_name.setdefault(child.name, []).append(child)
    members = {}
    for name, member in shape.members.items():
        serialization = member.serialization
        if "location" in serialization:
            continue
        wire_name = serialization.get("name", name)
        try:
            if serialization.get("xmlAttribute"):
                if _local(wire_name) in element.attributes:
                    members[name] = read_scalar(member, element.attributes[_local(wire_name)])
            elif serialization.get("flattened") and member.type_name in ("list", "map"):
                found = by_name.get(wire_name) or by_name.get(_flattened_name(member, wire_name))
                if found:
                    members[name] = _read_flattened(member, found)
            elif wire_name in by_name:
                members[name] = read(member, by_name[wire_name][0])
        except Unreadable as error:
            raise error.within(name) from None
    return members


def _flattened_name(shape: Shape, wire_name: str) -> str:
    """The name of the elements of a flattened list, which its member may have."""
    if shape.type_name != "list":
        return wire_name
    return str(shape.member.serialization.get("name", wire_name))


def _read_flattened(shape: Shape, elements: list[Element]) -> Any:
    if shape.type_name == "list":
        return [read(shape.member, element) for element in elements]
    return dict(_read_entry(shape, element) for element in elements)


def _read_entry(shape: Shape, element: Element) -> tuple[Any, Any]:
    found = {child.name: child for child in element.children}
    key = found.get(shape.key.serialization.get("name", "key"))
    value = found.get(shape.value.serialization.get("name", "value"))
    if key is None or value is None:
        raise Unreadable("An entry of a map lacks its key or its value")
    return read(shape.key, key), read(shape.value, value)


class Writer:
    """Writes members as elements. ``always_fraction``: see `timestamps.as_text`."""

    def __init__(self, *, always_fraction: bool = False) -> None:
        self._always_fraction = always_fraction
        self._pieces: list[str] = []

    def __str__(self) -> str:
        return "".join(self._pieces)

    def encode(self) -> bytes:
        """What was written, as a document."""
        return (DECLARATION + str(self)).encode("utf-8")

    def open(self, name: str, namespace: str | None = None, attributes: str = "") -> None:
        xmlns = f' xmlns="{escaped(namespace)}"' if namespace else ""
        self._pieces.append(f"<{name}{xmlns}{attributes}>")

    def close(self, name: str) -> None:
        self._pieces.append(f"</{name}>")

    def raw(self, markup: str) -> None:
        """Markup that is ready."""
        self._pieces.append(markup)

    def text(self, name: str, text: str) -> None:
        """An element with nothing but text."""
        self._pieces.append(f"<{name}>{escaped(text)}</{name}>")

    def value(self, shape: Shape, value: Any, name: str, namespace: str | None = None) -> None:
        """``value`` as the element ``name``. Raises ``TypeError``."""
        kind = shape.type_name
        if kind == "structure":
            if not isinstance(value, Mapping):
                raise TypeError(f"{shape.name} is a structure, not {type(value).__name__}")
            self.open(name, namespace, self._attributes(shape, value))
            self.members(shape, value)
        elif kind == "list":
            self.open(name, namespace)
            self._items(shape, value, shape.member.serialization.get("name", "member"))
        elif kind == "map":
            self.open(name, namespace)
            self._entries(shape, value, "entry")
        else:
            self.open(name, namespace)
            self._pieces.append(escaped(self._scalar(shape, value)))
        self.close(name)

    def members(self, shape: Shape, members: Mapping[str, Any]) -> None:
        """The members of a structure that travel in documents, without an element around them."""
        for name, member in shape.members.items():
            value = members.get(name)
            serialization = member.serialization
            if value is None or "location" in serialization or serialization.get("xmlAttribute"):
                continue
            wire_name = serialization.get("name", name)
            if not serialization.get("flattened"):
                self.value(member, value, wire_name)
            elif member.type_name == "list":
                self._items(member, value, _flattened_name(member, wire_name))
            else:
                self._entries(member, value, wire_name)

    def _items(self, shape: Shape, items: Any, name: str) -> None:
        if not isinstance(items, (list, tuple)):
            raise TypeError(f"{shape.name} is a list, not {type(items).__name__}")
        for item in items:
            self.value(shape.member, item, name)

    def _entries(self, shape: Shape, entries: Any, name: str) -> None:
        if not isinstance(entries, Mapping):
            raise TypeError(f"{shape.name} is a map, not {type(entries).__name__}")
        for key, item in entries.items():
            if item is not None:
                self.open(name)
                self.value(shape.key, key, shape.key.serialization.get("name", "key"))
                self.value(shape.value, item, shape.value.serialization.get("name", "value"))
                self.close(name)

    def _attributes(self, shape: Shape, members: Mapping[str, Any]) -> str:
        namespace = shape.serialization.get("xmlNamespace")
        text = ""
        if isinstance(namespace, Mapping) and namespace.get("prefix"):
            text = f' xmlns:{namespace["prefix"]}="{escaped(namespace["uri"])}"'
        for name, member in shape.members.items():
            if member.serialization.get("xmlAttribute") and members.get(name) is not None:
                wire_name = member.serialization.get("name", name)
                text += f' {wire_name}="{escaped(self._scalar(member, members[name]))}"'
        return text

    def _scalar(self, shape: Shape, value: Any) -> str:
        return write_scalar(shape, value, "iso8601", always_fraction=self._always_fraction)


def escaped(text: str) -> str:
    """``text`` as it stands in an element or in an attribute with double quotes."""
    return _ESCAPED.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return _ESCAPES.get(character) or f"&#{ord(character)};"
