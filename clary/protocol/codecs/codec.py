"""The contract of a codec, one protocol both ways, and what all codecs share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Protocol

from botocore.model import OperationModel, ServiceModel, Shape

from clary.faults import Invalid
from clary.protocol.faults import WireFault
from clary.protocol.wire import HttpRequest, HttpResponse, Members, ReplyMembers

MAX_DEPTH = 100  # of values nested in a request


class Codec(Protocol):
    """Parses the requests and writes the replies of one protocol."""

    def parse_request(
        self,
        operation: OperationModel,
        request: HttpRequest,
        body: bytes,
        path_parameters: Mapping[str, str],
    ) -> Members:
        """The input's members, in the types of their shapes. Nothing else is checked here.

        ``body`` is the whole body, and ``path_parameters``, by the names of the path's template, are
        percent-decoded. A streaming payload (`has_streaming_payload`) is not in ``body``: its member is
        ``request.body``, unread. Members that the shape does not know, and nulls, are dropped, as AWS does;
        a null inside a list stays, for the validation to refuse. Raises `Invalid` for what cannot be read.
        """

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        """The reply. Members that are ``None`` or not in the output shape are left out.

        A payload of bytes may be bytes or an ``AsyncIterator[bytes]``, whose length is the output's member
        ``ContentLength``, if it has one. An event stream is an ``AsyncIterator`` of (event name, members).
        Raises ``TypeError`` for a value that is not of its shape's type.
        """

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        """The error, as clients of this protocol read it."""

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        """Whether the request's body is a member that is handed on unread."""


class Unreadable(Exception):
    """A value of a request that is not what its shape says; knows where it was found."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self._words = words
        self._path: list[str] = []

    def within(self, name: str) -> Unreadable:
        """The same, told from one level further out."""
        self._path.insert(0, name)
        return self

    def __str__(self) -> str:
        return f"{self._words} (at '{'.'.join(self._path)}')" if self._path else self._words


@contextlib.contextmanager
def refusing(code: str) -> Iterator[None]:
    """Turn `Unreadable` into the refusal that a protocol has for it."""
    try:
        yield
    except Unreadable as error:
        raise unreadable(str(error), code) from None


def unreadable(message: str, code: str = "SerializationException") -> Invalid:
    """The refusal of bytes that are no document of their protocol."""
    return Invalid(message, code=code, status=400)


def shortened(value: object, limit: int = 100) -> str:
    """``value`` for an error message."""
    text = str(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def payload_member(shape: Shape | None) -> str | None:
    """The member that is the whole body, if there is one."""
    return None if shape is None else shape.serialization.get("payload")


def has_streaming_payload(operation: OperationModel) -> bool:
    """See `Codec.has_streaming_payload`."""
    shape = operation.input_shape
    payload = payload_member(shape)
    return payload is not None and bool(shape.members[payload].serialization.get("streaming"))
