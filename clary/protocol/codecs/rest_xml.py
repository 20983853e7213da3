"""REST-XML as S3 speaks it: method, path, query and headers carry members; the rest is XML, or raw bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from botocore.model import OperationModel, ServiceModel, Shape

from clary.protocol.codecs import event_stream, xml
from clary.protocol.codecs.codec import (
    Unreadable,
    has_streaming_payload,
    payload_member,
    refusing,
    unreadable,
)
from clary.protocol.codecs.http_binding import has_body_members, read_bound_members, write_bound_members
from clary.protocol.codecs.raw_payload import RAW_TYPES, raw_reply, read_raw_payload
from clary.protocol.faults import WireFault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_MALFORMED = "The XML you provided was not well-formed or did not validate against our published schema"

# The root elements of replies, where S3 does not call them by the name of their shape. botocore's models
# leave them out, because its parser does not look at them; other clients do.
_ROOTS = {
    "CompleteMultipartUploadOutput": "CompleteMultipartUploadResult",
    "CreateMultipartUploadOutput": "InitiateMultipartUploadResult",
    "CreateSessionOutput": "CreateSessionResult",
    "DeleteObjectsOutput": "DeleteResult",
    "GetBucketAccelerateConfigurationOutput": "AccelerateConfiguration",
    "GetBucketAclOutput": "AccessControlPolicy",
    "GetBucketCorsOutput": "CORSConfiguration",
    "GetBucketLifecycleConfigurationOutput": "LifecycleConfiguration",
    "GetBucketLifecycleOutput": "LifecycleConfiguration",
    "GetBucketLoggingOutput": "BucketLoggingStatus",
    "GetBucketRequestPaymentOutput": "RequestPaymentConfiguration",
    "GetBucketTaggingOutput": "Tagging",
    "GetBucketVersioningOutput": "VersioningConfiguration",
    "GetBucketWebsiteOutput": "WebsiteConfiguration",
    "GetObjectAclOutput": "AccessControlPolicy",
    "GetObjectAttributesOutput": "GetObjectAttributesResponse",
    "GetObjectTaggingOutput": "Tagging",
    "ListBucketAnalyticsConfigurationsOutput": "ListBucketAnalyticsConfigurationResult",
    "ListBucketInventoryConfigurationsOutput": "ListInventoryConfigurationsResult",
    "ListBucketMetricsConfigurationsOutput": "ListMetricsConfigurationsResult",
    "ListBucketsOutput": "ListAllMyBucketsResult",
    "ListDirectoryBucketsOutput": "ListAllMyDirectoryBucketsResult",
    "ListMultipartUploadsOutput": "ListMultipartUploadsResult",
    "ListObjectVersionsOutput": "ListVersionsResult",
    "ListObjectsOutput": "ListBucketResult",
    "ListObjectsV2Output": "ListBucketResult",
    "ListPartsOutput": "ListPartsResult",
}


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
        if shape is None:
            return {}
        with refusing("InvalidArgument"):
            members = read_bound_members(shape, request, path_parameters)
        payload = payload_member(shape)
        if payload is not None and shape.members[payload].type_name in RAW_TYPES:
            with refusing("InvalidRequest"):
                read_raw_payload(operation, request, body, members)
        elif body.strip() and (payload is not None or has_body_members(shape)):
            try:
                root = xml.parse(body)
                if payload is None:
                    members |= xml.read_members(shape, root)
                else:
                    members[payload] = xml.read(shape.members[payload], root)
            except Unreadable as error:
                raise unreadable(f"{_MALFORMED}: {error}", "MalformedXML") from None
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
            member, value = shape.members[payload], members.get(payload)
            if member.serialization.get("eventstream"):
                headers.set("content-type", event_stream.CONTENT_TYPE)
                return HttpResponse(
                    status, headers, event_stream.encode(operation, member, members[payload], _EVENTS)
                )
            if member.type_name in RAW_TYPES:
                return raw_reply(status, headers, shape, payload, members)
            if value is None:
                return HttpResponse(status, headers, b"")
            writer = xml.Writer(always_fraction=True)
            writer.value(member, value, member.serialization.get("name", payload), _NAMESPACE)
            return _document(status, headers, writer)
        if not has_body_members(shape):
            return HttpResponse(status, headers, b"")
        writer = xml.Writer(always_fraction=True)
        if operation.name == "GetBucketLocation":
            # The one reply whose member is the root itself: empty for us-east-1.
            location = xml.escaped(members.get("LocationConstraint") or "")
            writer.raw(f'<LocationConstraint xmlns="{_NAMESPACE}">{location}</LocationConstraint>')
        else:
            root = _ROOTS.get(shape.name, shape.name)
            writer.open(root, _NAMESPACE)
            writer.members(shape, members)
            writer.close(root)
        return _document(status, headers, writer)

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        headers = _headers(request_id)
        if fault.status in (204, 304) or (operation is not None and operation.http["method"] == "HEAD"):
            return HttpResponse(fault.status, headers, b"")
        writer = xml.Writer()
        writer.open("Error")
        writer.text("Code", fault.code)
        writer.text("Message", fault.message)
        for name, value in fault.fields.items():
            writer.text(name, str(value))
        writer.text("RequestId", request_id)
        writer.text("HostId", _host_id(request_id))
        writer.close("Error")
        return _document(fault.status, headers, writer)

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        return has_streaming_payload(operation)


def _host_id(request_id: str) -> str:
    """S3's second id, which clients log beside the first."""
    return base64.b64encode(hashlib.sha384(request_id.encode()).digest()).decode()


def _headers(request_id: str) -> Headers:
    return Headers([("x-amz-request-id", request_id), ("x-amz-id-2", _host_id(request_id))])


def _document(status: int, headers: Headers, writer: xml.Writer) -> HttpResponse:
    headers.set("content-type", "application/xml")
    return HttpResponse(status, headers, writer.encode())


def _write_event(shape: Shape, members: Mapping[str, object]) -> bytes:
    writer = xml.Writer(always_fraction=True)
    writer.value(shape, members, shape.name)
    return writer.encode()


_EVENTS = event_stream.Documents("text/xml", _write_event)
