"""Attributes of messages: checked, kept as JSON, and the digests by which clients check them."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Mapping
from typing import Any

from clary.faults import Invalid

MAX_ATTRIBUTES = 10
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}\Z")
_TYPE = re.compile(r"(String|Number|Binary)(\.[^\x00-\x1f]{1,})?\Z")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\Z")


def check_message_attributes(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """``given`` as JSON: binary values in base64. Raises `Invalid`."""
    if len(given) > MAX_ATTRIBUTES:
        raise _wrong(
            f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{MAX_ATTRIBUTES}]."
        )
    return {name: _check(name, value) for name, value in given.items()}


def _check(name: str, value: Mapping[str, Any]) -> dict[str, str]:
    if not _NAME.match(name) or name.startswith(".") or name.endswith(".") or ".." in name:
        raise _wrong(
            f"The message attribute name '{name[:256]}' is invalid. Attribute name can contain A-Z, a-z, "
            "0-9, underscore (_), hyphen (-), and period (.)"
        )
    if name.lower().startswith(("aws.", "amazon.")):
        raise _wrong(f"The message attribute name '{name}' is invalid: AWS. and Amazon. are reserved.")
    kind = value.get("DataType") or ""
    found = _TYPE.match(kind)
    if found is None or len(kind) > 256:
        raise _wrong(
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported "
            "type prefixes is Binary, Number, and String."
        )
    if found[1] == "Binary":
        binary = value.get("BinaryValue")
        if not binary:
            raise _wrong(
                f"The message attribute '{name}' must contain non-empty message attribute value for "
                f"message attribute type '{kind}'."
            )
        return {"DataType": kind, "BinaryValue": base64.b64encode(binary).decode()}
    text = value.get("StringValue")
    if not text:
        raise _wrong(
            f"The message attribute '{name}' must contain non-empty message attribute value for message "
            f"attribute type '{kind}'."
        )
    if found[1] == "Number" and not _NUMBER.match(text):
        raise _wrong(f"Can't cast the value of message attribute '{name}' to a number.")
    return {"DataType": kind, "StringValue": text}


def attributes_size(kept: Mapping[str, Mapping[str, str]]) -> int:
    """What the attributes count of a message's size."""
    return sum(
        len(name.encode()) + len(value["DataType"].encode()) + len(_bytes(value))
        for name, value in kept.items()
    )


def shown_attributes(kept: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """Kept attributes as replies have them."""
    return {
        name: (
            {"DataType": value["DataType"], "BinaryValue": base64.b64decode(value["BinaryValue"])}
            if "BinaryValue" in value
            else dict(value)
        )
        for name, value in kept.items()
    }


def digest_of_attributes(kept: Mapping[str, Mapping[str, str]]) -> str | None:
    """The MD5 that SQS gives: of name, type and value of each, with their lengths, by name."""
    if not kept:
        return None
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(kept):
        value = kept[name]
        for part in (name.encode(), value["DataType"].encode()):
            digest.update(struct.pack(">I", len(part)) + part)
        content = _bytes(value)
        digest.update(
            (b"\x02" if "BinaryValue" in value else b"\x01") + struct.pack(">I", len(content)) + content
        )
    return digest.hexdigest()


def digest_of_body(body: str) -> str:
    """The MD5 of a body in UTF-8."""
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


def _bytes(value: Mapping[str, str]) -> bytes:
    return base64.b64decode(value["BinaryValue"]) if "BinaryValue" in value else value["StringValue"].encode()


def _wrong(message: str) -> Invalid:
    return Invalid(message, code="InvalidParameterValue")
