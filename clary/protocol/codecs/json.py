"""JSON 1.0 and 1.1: the operation in a header, the members in one JSON object."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from botocore.model import OperationModel, ServiceModel

from clary.protocol.codecs import event_stream
from clary.protocol.codecs.codec import Unreadable, has_streaming_payload, refusing
from clary.protocol.codecs.documents import Leaves, read_members, write_members
from clary.protocol.codecs.scalars import read_base64, write_base64, write_not_finite
from clary.protocol.codecs.timestamps import as_number, read_timestamp
from clary.protocol.faults import WireFault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers


def _read_blob(value: Any) -> bytes:
    if not isinstance(value, str):
        raise Unreadable("a blob must be base64 text")
    return read_base64(value)


LEAVES = Leaves(
    read_blob=_read_blob,
    write_blob=write_base64,
    read_timestamp=read_timestamp,
    write_timestamp=as_number,
    write_float=lambda value: write_not_finite(value) or value,
)

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def load(body: bytes) -> dict[str, Any]:
    """The JSON object that is ``body``; an empty body is an empty object. Raises `Unreadable`."""
    if not body or body.isspace():
        return {}
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        if _SURROGATE.search(body):
            # Half a character, written as an escape, could be stored nowhere.
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise Unreadable("The request's body is nested too deep") from None
    except ValueError as error:
        raise Unreadable(f"The request's body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Unreadable("The request's body must be a JSON object")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def dump(document: Any) -> bytes:
    """``document`` as JSON."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")


class JsonCodec:
    """`clary.protocol.codecs.codec.Codec` for ``json``."""

    def parse_request(
        self,
        operation: OperationModel,
        request: HttpRequest,
        body: bytes,
        path_parameters: Mapping[str, str],
    ) -> Members:
        shape = operation.input_shape
        with refusing("SerializationException"):
            document = load(body)
            return dict(read_members(shape, document, LEAVES)) if shape is not None else {}

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        headers = _headers(operation.service_model, request_id)
        shape = operation.output_shape
        if shape is None:
            return HttpResponse(200, headers, b"")
        body = dump(write_members(shape, members, LEAVES))
        stream = shape.event_stream_name
        if stream is None:
            return HttpResponse(200, headers, body)
        headers.set("content-type", event_stream.CONTENT_TYPE)
        events = event_stream.encode(operation, shape.members[stream], members[stream], EVENTS, initial=body)
        return HttpResponse(200, headers, events)

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        return json_fault(fault, _headers(service, request_id), service)

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        return has_streaming_payload(operation)


def _headers(service: ServiceModel, request_id: str) -> Headers:
    version = service.metadata.get("jsonVersion", "1.1")
    return Headers([("content-type", f"application/x-amz-json-{version}"), ("x-amzn-requestid", request_id)])


def fault_document(fault: WireFault, leaves: Leaves) -> dict[str, Any]:
    """The members of an error, as JSON and CBOR hold them."""
    document: dict[str, Any] = {"__type": fault.shape_name}
    message_name = "message"
    if fault.shape is not None:
        document |= write_members(fault.shape, fault.fields, leaves)
        message_name = fault.message_member or message_name
    document[message_name] = fault.message
    return document


def set_error_headers(headers: Headers, fault: WireFault, service: ServiceModel) -> None:
    """What JSON and CBOR say of an error in headers."""
    headers.set("x-amzn-errortype", fault.shape_name)
    if "awsQueryCompatible" in service.metadata:
        headers.set("x-amzn-query-error", f"{fault.code};{fault.kind}")


def json_fault(fault: WireFault, headers: Headers, service: ServiceModel) -> HttpResponse:
    """An error as a JSON object; shared with REST-JSON."""
    set_error_headers(headers, fault, service)
    return HttpResponse(fault.status, headers, dump(fault_document(fault, LEAVES)))


def _write_event(shape: Any, members: Mapping[str, Any]) -> bytes:
    return dump(write_members(shape, members, LEAVES))


EVENTS = event_stream.Documents("application/json", _write_event)
