"""EC2's dialect of Query: other names for fields, other envelopes for results and errors."""

from __future__ import annotations

from botocore.model import OperationModel, ServiceModel, Shape

from clary.protocol.codecs import xml
from clary.protocol.codecs.query import FieldNames, QueryCodec, headers, namespace
from clary.protocol.faults import WireFault
from clary.protocol.wire import HttpResponse, ReplyMembers


def _field_name(shape: Shape, name: str) -> str:
    serialization = shape.serialization
    if "queryName" in serialization:
        return str(serialization["queryName"])
    wire_name = str(serialization.get("name", name))
    return wire_name[:1].upper() + wire_name[1:] if "name" in serialization else wire_name


class Ec2Codec(QueryCodec):
    """`clary.protocol.codecs.codec.Codec` for ``ec2``."""

    field_names = FieldNames(_field_name, always_flattens=True)

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        writer = xml.Writer(always_fraction=True)
        writer.open(f"{operation.name}Response", namespace(operation.service_model))
        writer.text("requestId", request_id)
        if operation.output_shape is not None:
            writer.members(operation.output_shape, members)
        writer.close(f"{operation.name}Response")
        return HttpResponse(200, headers(request_id), writer.encode())

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        writer = xml.Writer()
        for name in ("Response", "Errors", "Error"):
            writer.open(name)
        writer.text("Code", fault.code)
        writer.text("Message", fault.message)
        writer.close("Error")
        writer.close("Errors")
        writer.text("RequestID", request_id)
        writer.close("Response")
        return HttpResponse(fault.status, headers(request_id), writer.encode())
