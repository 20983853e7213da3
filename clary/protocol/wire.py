"""The shapes in which requests and replies pass through the front door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from botocore.model import OperationModel, ServiceModel

# Values of modelled shapes: str, bool, int, float, bytes (blob), dict, list; timestamps are epoch seconds
# (float) in what handlers receive, and epoch seconds or aware datetimes in what they return.
Members: TypeAlias = "dict[str, Any]"


class Headers:
    """HTTP headers: names without case, several values a name, order kept."""

    def __init__(self, items: list[tuple[str, str]] | None = None) -> None:
        self._items = [(name.lower(), value) for name, value in items or []]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of ``name``."""
        name = name.lower()
        return next((value for key, value in self._items if key == name), default)

    def all(self, name: str) -> list[str]:
        """Every value of ``name``, in order."""
        name = name.lower()
        return [value for key, value in self._items if key == name]

    def items(self) -> list[tuple[str, str]]:
        return list(self._items)

    def set(self, name: str, value: str) -> None:
        """Replace every value of ``name``."""
        name = name.lower()
        self._items = [(key, old) for key, old in self._items if key != name]
        self._items.append((name, value))

    def remove(self, name: str) -> None:
        """Drop every value of ``name``."""
        name = name.lower()
        self._items = [(key, value) for key, value in self._items if key != name]

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None


@dataclass
class HttpRequest:
    """A request as received. ``raw_path`` is percent-encoded and without the query; ``query`` is raw too.

    ``body`` yields the payload once, as it arrives, already taken out of aws-chunked framing and checked
    against its checksums: reading past a mismatch raises a `Fault`.
    """

    method: str
    raw_path: str
    query: str
    headers: Headers
    body: AsyncIterator[bytes]
    scheme: str = "http"
    client: str = ""


@dataclass
class HttpResponse:
    """A reply. ``body`` is bytes, or yields pieces (with ``content_length`` where it is known)."""

    status: int = 200
    headers: Headers = field(default_factory=Headers)
    body: bytes | AsyncIterator[bytes] = b""
    content_length: int | None = None


@dataclass(frozen=True)
class Caller:
    """Who signed the request. ``session_issuer`` is the role's ARN for temporary credentials."""

    account: str
    arn: str
    user_id: str
    access_key_id: str


@dataclass
class Call:
    """One identified, verified, parsed and validated request.

    ``members`` are the input's members. When the input has a streaming payload, that member is the
    request's ``body`` iterator. ``reply_headers`` and ``reply_status`` are the operation's to set, where the
    reply needs what its output shape cannot say (206 for a range of an object).
    """

    service: ServiceModel
    operation: OperationModel
    members: Members
    caller: Caller
    region: str
    request_id: str
    http: HttpRequest
    reply_headers: dict[str, str] = field(default_factory=dict)
    reply_status: int | None = None  # instead of the operation's usual one (206 for a part of an object)


ReplyMembers: TypeAlias = "Mapping[str, Any]"
