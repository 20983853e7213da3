"""Smithy RPC v2 CBOR: the operation in the path, the members in one CBOR map."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import cbor2
from botocore.model import OperationModel, ServiceModel

from clary.protocol.codecs.codec import has_streaming_payload, unreadable
from clary.protocol.codecs.documents import Leaves, read, write
from clary.protocol.codecs.timestamps import as_number, epoch_seconds, read_timestamp
from clary.protocol.faults import WireFault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers

_EPOCH_TAG = 1


def _read_blob(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    raise unreadable("A blob must be a byte string.")


def _read_timestamp(value: object) -> float:
    return epoch_seconds(value) if isinstance(value, datetime) else read_timestamp(value)


def _write_blob(value: object) -> bytes:
    return bytes(value) if isinstance(value, (bytes, bytearray)) else str(value).encode()


LEAVES = Leaves(
    _read_blob,
    _write_blob,
    _read_timestamp,
    lambda value: cbor2.CBORTag(_EPOCH_TAG, as_number(value)),
    lambda value: float(str(value)),
)


class RpcCborCodec:
    """`clary.protocol.codecs.codec.Codec` for ``smithy-rpc-v2-cbor``."""

    def parse_request(
        self,
        operation: OperationModel,
        request: HttpRequest,
        body: bytes,
        path_parameters: Mapping[str, str],
    ) -> Members:
        document: Any = {}
        if body:
            try:
                document = cbor2.load(io.BytesIO(body))
            except (cbor2.CBORDecodeError, ValueError, RecursionError, OverflowError, MemoryError) as error:
                raise unreadable(f"The request's body is not CBOR: {error}") from None
        if not isinstance(document, dict):
            raise unreadable("The request's body must be a CBOR map.")
        return dict(read(operation.input_shape, document, LEAVES)) if operation.input_shape else {}

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        shape = operation.output_shape
        body = cbor2.dumps(write(shape, members, LEAVES)) if shape is not None else b""
        return HttpResponse(200, _headers(request_id), body)

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        headers = _headers(request_id)
        if "awsQueryCompatible" in service.metadata:
            headers.set("x-amzn-query-error", f"{fault.code};{fault.kind}")
        document = {"__type": fault.shape_name, "message": fault.message}
        if fault.shape is not None:
            document |= write(fault.shape, fault.fields, LEAVES)
        return HttpResponse(fault.status, headers, cbor2.dumps(document))

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        return has_streaming_payload(operation)


def _headers(request_id: str) -> Headers:
    return Headers(
        [
            ("content-type", "application/cbor"),
            ("smithy-protocol", "rpc-v2-cbor"),
            ("x-amzn-requestid", request_id),
        ]
    )
