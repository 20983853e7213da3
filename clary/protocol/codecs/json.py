"""JSON 1.0 and 1.1: the operation in a header, the members in one JSON object."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

from botocore.model import OperationModel, ServiceModel

from clary.protocol.codecs import event_stream
from clary.protocol.codecs.codec import has_streaming_payload, unreadable
from clary.protocol.codecs.documents import Leaves, read, write
from clary.protocol.codecs.timestamps import as_number, read_timestamp
from clary.protocol.faults import WireFault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers


def _read_blob(value: object) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise unreadable("A blob must be base64 text.")


def _write_blob(value: object) -> str:
    data = value if isinstance(value, (bytes, bytearray)) else str(value).encode()
    return base64.b64encode(data).decode("ascii")


def _write_float(value: object) -> object:
    number = float(str(value))
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


LEAVES = Leaves(_read_blob, _write_blob, read_timestamp, as_number, _write_float)


def load(body: bytes) -> Any:
    """The JSON document in ``body``; an empty body is an empty object. Raises `Invalid`."""
    if not body.strip():
        return {}
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise unreadable(f"The request's body is not JSON: {error}") from None


def dump(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


class JsonCodec:
    """`clary.protocol.codecs.codec.Codec` for ``json``."""

    def parse_request(
        self,
        operation: OperationModel,
        request: HttpRequest,
        body: bytes,
        path_parameters: Mapping[str, str],
    ) -> Members:
        document = load(body)
        if not isinstance(document, dict):
            raise unreadable("The request's body must be a JSON object.")
        return dict(read(operation.input_shape, document, LEAVES)) if operation.input_shape else {}

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        version = operation.service_model.metadata.get("jsonVersion", "1.1")
        headers = Headers(
            [("content-type", f"application/x-amz-json-{version}"), ("x-amzn-requestid", request_id)]
        )
        shape = operation.output_shape
        stream = operation.get_event_stream_output()
        if stream is not None:
            headers.set("content-type", event_stream.CONTENT_TYPE)
            name = next(name for name, member in shape.members.items() if member is stream)
            initial = write(shape, {n: v for n, v in members.items() if n != name}, LEAVES)
            body = event_stream.encode(stream, members[name], LEAVES, initial=dump(initial))
            return HttpResponse(200, headers, body)
        if shape is None:
            return HttpResponse(200, headers, b"")
        return HttpResponse(200, headers, dump(write(shape, members, LEAVES)))

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        version = service.metadata.get("jsonVersion", "1.1")
        return json_fault(service, fault, request_id, f"application/x-amz-json-{version}")

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        return has_streaming_payload(operation)


def json_fault(service: ServiceModel, fault: WireFault, request_id: str, content_type: str) -> HttpResponse:
    """An error as a JSON object; shared with REST-JSON."""
    headers = Headers(
        [
            ("content-type", content_type),
            ("x-amzn-requestid", request_id),
            ("x-amzn-errortype", fault.shape_name),
        ]
    )
    if "awsQueryCompatible" in service.metadata:
        headers.set("x-amzn-query-error", f"{fault.code};{fault.kind}")
    document: dict[str, Any] = {"__type": fault.shape_name}
    if fault.shape is not None:
        document |= write(fault.shape, fault.fields, LEAVES)
        for name in fault.shape.members:
            if name.lower() == "message":
                document[name] = fault.message
    document.setdefault("message", fault.message)
    return HttpResponse(fault.status, headers, dump(document))
