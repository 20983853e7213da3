"""REST-JSON: method, path, query and headers carry members; the rest is JSON, or one raw payload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.model import OperationModel, ServiceModel

from clary.protocol.codecs import event_stream
from clary.protocol.codecs.codec import has_streaming_payload, payload_member, unreadable
from clary.protocol.codecs.documents import read, write
from clary.protocol.codecs.http_binding import body_members, read_bound_members, write_bound_members
from clary.protocol.codecs.json import LEAVES, dump, json_fault, load
from clary.protocol.faults import WireFault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers


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
        members = read_bound_members(shape, request, path_parameters)
        if shape is None:
            return members
        payload = payload_member(shape)
        if payload is not None:
            member = shape.members[payload]
            if has_streaming_payload(operation):
                members[payload] = request.body
            elif member.type_name == "blob":
                members[payload] = body
            elif member.type_name == "string":
                members[payload] = body.decode("utf-8", "replace")
            elif body:
                members[payload] = read(member, load(body), LEAVES)
            return members
        inside = body_members(shape)
        if inside:
            document = load(body)
            if not isinstance(document, dict):
                raise unreadable("The request's body must be a JSON object.")
            for name, member in inside.items():
                value = document.get(member.serialization.get("name", name))
                if value is not None:
                    members[name] = read(member, value, LEAVES, name)
        return members

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        headers = Headers([("content-type", "application/json"), ("x-amzn-requestid", request_id)])
        shape = operation.output_shape
        status = int(operation.http.get("responseCode", 200))
        if shape is None:
            return HttpResponse(status, headers, b"")
        payload = payload_member(shape)
        if payload is None:
            status = write_bound_members(shape, members, headers) or status
            document: dict[str, Any] = {
                member.serialization.get("name", name): write(member, members[name], LEAVES)
                for name, member in body_members(shape).items()
                if members.get(name) is not None
            }
            return HttpResponse(status, headers, dump(document))
        member, value = shape.members[payload], members.get(payload)  # type: Any, Any
        if member.type_name in ("blob", "string"):
            headers.set("content-type", "application/octet-stream")
        elif getattr(member, "is_event_stream", False) or member.serialization.get("eventstream"):
            headers.set("content-type", event_stream.CONTENT_TYPE)
        status = write_bound_members(shape, members, headers) or status
        if member.serialization.get("eventstream"):
            return HttpResponse(status, headers, event_stream.encode(member, value, LEAVES))
        if member.type_name in ("blob", "string"):
            if isinstance(value, str):
                value = value.encode()
            return HttpResponse(
                status, headers, b"" if value is None else value, members.get("ContentLength")
            )
        body = dump(write(member, value, LEAVES)) if value is not None else b""
        return HttpResponse(status, headers, body)

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        return json_fault(service, fault, request_id, "application/json")

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        return has_streaming_payload(operation)
