"""The contract of a codec: one protocol, both ways, driven by the service model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from botocore.model import OperationModel, ServiceModel, Shape

from clary.faults import Invalid
from clary.protocol.faults import WireFault
from clary.protocol.wire import HttpRequest, HttpResponse, Members, ReplyMembers

MAX_DEPTH = 100  # of nested values in a request


class Codec(Protocol):
    """Parses requests and writes replies of one protocol."""

    def parse_request(
        self,
        operation: OperationModel,
        request: HttpRequest,
        body: bytes,
        path_parameters: Mapping[str, str],
    ) -> Members:
        """The input's members. ``path_parameters`` are percent-decoded.

        A streaming payload is ``request.body``, unread; ``body`` is empty then. Members that the shape does
        not know are dropped, as AWS does. Raises `Invalid` for what cannot be read.
        """

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        """The reply; members that are ``None`` or not in the output shape are left out."""

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        """The error, as clients of this protocol read it."""

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        """Whether the request's body is the payload of a streaming member."""


def payload_member(shape: Shape | None) -> str | None:
    """The member that is the whole body, if there is one."""
    return None if shape is None else shape.serialization.get("payload")


def has_streaming_payload(operation: OperationModel) -> bool:
    """See `Codec.has_streaming_payload`."""
    return bool(operation.has_streaming_input) and operation.input_shape.members[
        payload_member(operation.input_shape)
    ].type_name in ("blob", "string")


def unreadable(message: str, code: str = "SerializationException") -> Invalid:
    """The refusal of bytes that are no document of their protocol."""
    return Invalid(message, code=code, status=400)
