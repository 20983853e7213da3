"""REST-XML, as S3 speaks it: method, path, query and headers carry members; the rest is XML, or raw bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from botocore.model import OperationModel, ServiceModel

from clary.protocol.codecs import event_stream, xml
from clary.protocol.codecs.codec import has_streaming_payload, payload_member
from clary.protocol.codecs.http_binding import body_members, read_bound_members, write_bound_members
from clary.protocol.codecs.json import LEAVES
from clary.protocol.faults import WireFault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class RestXmlCodec:
    """`clary.protocol.codecs.codec.Codec` for ``rest-xml``."""

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
            elif body.strip():
                members[payload] = xml.read(member, xml.parse(body))
        elif body_members(shape) and body.strip():
            found = xml.read(shape, xml.parse(body))
            members |= {name: value for name, value in found.items() if name in body_members(shape)}
        return members

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        headers = _headers(request_id)
        shape = operation.output_shape
        status = int(operation.http.get("responseCode", 200))
        if shape is None:
            return HttpResponse(status, headers, b"")
        status = write_bound_members(shape, members, headers) or status
        payload = payload_member(shape)
        if payload is not None:
            member, value = shape.members[payload], members.get(payload)  # type: Any, Any
            if member.serialization.get("eventstream"):
                headers.set("content-type", event_stream.CONTENT_TYPE)
                return HttpResponse(status, headers, event_stream.encode(member, value, LEAVES))
            if member.type_name in ("blob", "string"):
                if isinstance(value, str):
                    value = value.encode()
                length = members.get("ContentLength")
                return HttpResponse(status, headers, b"" if value is None else value, length)
            if value is None:
                return HttpResponse(status, headers, b"")
            return _document(
                status, headers, xml.write(member, value, member.serialization.get("name", payload))
            )
        inside = body_members(shape)
        if not inside:
            return HttpResponse(status, headers, b"")
        if operation.name == "GetBucketLocation":
            # The one reply whose member is the root itself, empty for us-east-1.
            location = xml.escaped(str(members.get("LocationConstraint") or ""))
            text = f'<LocationConstraint xmlns="{_NAMESPACE}">{location}</LocationConstraint>'
            return _document(status, headers, text)
        name = shape.serialization.get("name", shape.name)
        bound = frozenset(shape.members) - frozenset(inside)
        inner = xml.write_members(shape, members, without=bound)
        return _document(status, headers, f'<{name} xmlns="{_NAMESPACE}">{inner}</{name}>')

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        headers = _headers(request_id)
        if fault.status == 304:
            return HttpResponse(304, headers, b"")
        fields = "".join(
            f"<{name}>{xml.escaped(str(value))}</{name}>" for name, value in fault.fields.items()
        )
        text = (
            f"<Error><Code>{xml.escaped(fault.code)}</Code><Message>{xml.escaped(fault.message)}</Message>"
            f"{fields}<RequestId>{request_id}</RequestId><HostId>{_host_id(request_id)}</HostId></Error>"
        )
        return _document(fault.status, headers, text)

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        return has_streaming_payload(operation)


def _host_id(request_id: str) -> str:
    return base64.b64encode(request_id.encode()).decode()


def _headers(request_id: str) -> Headers:
    return Headers([("x-amz-request-id", request_id), ("x-amz-id-2", _host_id(request_id))])


def _document(status: int, headers: Headers, text: str) -> HttpResponse:
    headers.set("content-type", "application/xml")
    return HttpResponse(status, headers, (_DECLARATION + text).encode("utf-8", "surrogatepass"))
