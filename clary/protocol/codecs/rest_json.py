"""REST-JSON: method, path, query and headers carry members; the rest is JSON, or one raw payload."""

from __future__ import annotations

from collections.abc import Mapping

from botocore.model import OperationModel, ServiceModel

from clary.protocol.codecs import event_stream
from clary.protocol.codecs.codec import Unreadable, has_streaming_payload, payload_member, refusing
from clary.protocol.codecs.documents import read, read_members, write, write_members
from clary.protocol.codecs.http_binding import has_body_members, read_bound_members, write_bound_members
from clary.protocol.codecs.json import EVENTS, LEAVES, dump, json_fault, load
from clary.protocol.codecs.raw_payload import RAW_TYPES, raw_reply, read_raw_payload
from clary.protocol.faults import WireFault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers

_CONTENT_TYPE = "application/json"


class RestJsonCodec:
    """`clary.protocol.codecs.codec.Codec` for ``rest-json``."""

    def parse_request(
        self,
        operation: OperationModel,
        request: HttpRequest,
        body: bytes,
        path_parameters: Mapping[str, str],
    ) -> Members:
        shape = operation.input_shape
        if shape is None:
            return {}
        with refusing("SerializationException"):
            members = read_bound_members(shape, request, path_parameters)
            payload = payload_member(shape)
            if payload is None:
                if has_body_members(shape):
                    members |= read_members(shape, load(body), LEAVES)
            elif shape.members[payload].type_name in RAW_TYPES:
                read_raw_payload(operation, request, body, members)
            elif body:
                try:
                    members[payload] = read(shape.members[payload], load(body), LEAVES)
                except Unreadable as error:
                    raise error.within(payload) from None
            return members

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        headers = Headers([("x-amzn-requestid", request_id)])
        shape = operation.output_shape
        status = int(operation.http.get("responseCode", 200))
        if shape is None:
            return HttpResponse(status, headers, b"")
        status = write_bound_members(shape, members, headers) or status
        payload = payload_member(shape)
        if payload is None:
            headers.set("content-type", _CONTENT_TYPE)
            body = dump(write_members(shape, members, LEAVES)) if has_body_members(shape) else b""
            return HttpResponse(status, headers, body)
        member, value = shape.members[payload], members.get(payload)
        if member.serialization.get("eventstream"):
            # A member of InvokeEndpointWithResponseStream has the content type of the parts.
            headers.set("content-type", event_stream.CONTENT_TYPE)
            return HttpResponse(
                status, headers, event_stream.encode(operation, member, members[payload], EVENTS)
            )
        if member.type_name in RAW_TYPES:
            return raw_reply(status, headers, shape, payload, members)
        headers.set("content-type", _CONTENT_TYPE)
        return HttpResponse(status, headers, b"" if value is None else dump(write(member, value, LEAVES)))

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        headers = Headers([("content-type", _CONTENT_TYPE), ("x-amzn-requestid", request_id)])
        return json_fault(fault, headers, service)

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        return has_streaming_payload(operation)
