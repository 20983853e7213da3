"""Bodies that are one member, byte for byte: what the REST protocols share about them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from botocore.model import OperationModel, Shape

from clary.protocol.codecs.codec import Unreadable, has_streaming_payload, payload_member
from clary.protocol.codecs.scalars import checked
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers

RAW_TYPES = ("blob", "string")
_CONTENT_TYPES = {"blob": "application/octet-stream", "string": "text/plain; charset=utf-8"}


def read_raw_payload(operation: OperationModel, request: HttpRequest, body: bytes, members: Members) -> None:
    """Set the payload: the request's body itself if it streams, else bytes or text.

    An empty body is an absent member, unless the member must be there. Raises `Unreadable`.
    """
    shape = operation.input_shape
    payload = payload_member(shape)
    assert payload is not None
    if has_streaming_payload(operation):
        members[payload] = request.body
    elif body or payload in shape.required_members:
        members[payload] = body if shape.members[payload].type_name == "blob" else _text(body)


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("The request's body must be text in UTF-8") from None


def raw_reply(
    status: int, headers: Headers, output: Shape, payload: str, members: ReplyMembers
) -> HttpResponse:
    """The reply whose body is ``value``, the member ``payload``: bytes, text, or what yields bytes.

    Raises ``TypeError``.
    """
    shape = output.members[payload]
    value = members.get(payload)
    if value is not None and not _has_content_type(output):
        headers.set("content-type", _CONTENT_TYPES[shape.type_name])
    if isinstance(value, AsyncIterator):
        return HttpResponse(status, headers, value, members.get("ContentLength"))
    if isinstance(value, str):
        value = value.encode("utf-8")
    elif value is not None:
        value = checked(shape, value)
    return HttpResponse(status, headers, value or b"")


def _has_content_type(output: Shape) -> bool:
    """Whether the content type is for the operation to say."""
    names = (member.serialization.get("name", "") for member in output.members.values())
    return any(name.lower() == "content-type" for name in names)
