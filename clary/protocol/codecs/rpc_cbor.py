"""Smithy RPC v2 CBOR: the operation in the path, the members in one CBOR map."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import cbor2
from botocore.model import OperationModel, ServiceModel

from clary.protocol.codecs.codec import MAX_DEPTH, Unreadable, has_streaming_payload, refusing
from clary.protocol.codecs.documents import Leaves, read_members, write_members
from clary.protocol.codecs.json import fault_document, set_error_headers
from clary.protocol.codecs.timestamps import as_number, read_timestamp
from clary.protocol.faults import WireFault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers

_EPOCH_TAG = 1


def _read_blob(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise Unreadable("a blob must be a byte string")
    return value


def _read_timestamp(value: Any) -> float:
    return value.timestamp() if isinstance(value, datetime) else read_timestamp(value)


LEAVES = Leaves(
    read_blob=_read_blob,
    write_blob=bytes,
    read_timestamp=_read_timestamp,
    write_timestamp=lambda value: cbor2.CBORTag(_EPOCH_TAG, as_number(value)),
    write_float=float,
)


def _refuse_tag(decoder: Any) -> Any:
    raise Unreadable("The request's body has a CBOR tag other than that of a timestamp")


# Of the tags that cbor2 knows (shared values, regular expressions, big numbers, messages ...) this protocol
# has one only.
_FOREIGN_TAGS = (
    0,
    2,
    3,
    4,
    5,
    25,
    28,
    29,
    30,
    35,
    36,
    37,
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43000,
    55799,
)
_TAGS = dict.fromkeys(_FOREIGN_TAGS, _refuse_tag)


def load(body: bytes) -> dict[Any, Any]:
    """The CBOR map that is ``body``; an empty body is an empty map. Raises `Unreadable`."""
    if not body:
        return {}
    try:
        document = cbor2.loads(body, semantic_decoders=_TAGS, max_depth=MAX_DEPTH, strict_hashable_types=True)
    except Unreadable:
        raise
    except (cbor2.CBORError, ValueError, RecursionError, OverflowError, MemoryError) as error:
        raise Unreadable(f"The request's body is not CBOR: {error}") from None
    if not isinstance(document, dict):
        raise Unreadable("The request's body must be a CBOR map")
    return document


class RpcCborCodec:
    """`clary.protocol.codecs.codec.Codec` for ``smithy-rpc-v2-cbor``."""

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
        shape = operation.output_shape
        headers = _headers(request_id)
        if shape is None:
            headers.remove("content-type")
            return HttpResponse(200, headers, b"")
        return HttpResponse(200, headers, cbor2.dumps(write_members(shape, members, LEAVES)))

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        headers = _headers(request_id)
        set_error_headers(headers, fault, service)
        return HttpResponse(fault.status, headers, cbor2.dumps(fault_document(fault, LEAVES)))

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
