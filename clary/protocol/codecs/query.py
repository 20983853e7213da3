"""Query: the operation and its members in a form, the reply in XML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import OperationModel, ServiceModel, Shape

from clary.protocol.codecs import xml
from clary.protocol.codecs.codec import MAX_DEPTH, Unreadable, has_streaming_payload, refusing
from clary.protocol.codecs.scalars import read_scalar
from clary.protocol.faults import WireFault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers

MAX_FORM_FIELDS = 10_000


@dataclass
class _Field:
    """A form's fields as a tree: ``Tags.member.1.Key=k`` is ``k`` below Tags, member, 1 and Key."""

    text: str | None = None
    inner: dict[str, _Field] = field(default_factory=dict)

    def numbered(self) -> list[_Field]:
        """The fields ``1``, ``2``, ... in the order of their numbers, gaps closed."""
        found = [
            (int(name), inner)
            for name, inner in self.inner.items()
            if name.isascii() and name.isdigit() and len(name) <= 9
        ]
        return [inner for _, inner in sorted(found, key=lambda pair: pair[0])]


@dataclass(frozen=True)
class FieldNames:
    """How a dialect of Query names the fields of a form."""

    of_member: Callable[[Shape, str], str]
    always_flattens: bool = False  # lists have no field between their own and the numbers


def _query_name(shape: Shape, name: str) -> str:
    return str(shape.serialization.get("name", name))


class QueryCodec:
    """`clary.protocol.codecs.codec.Codec` for ``query``."""

    field_names = FieldNames(_query_name)

    def parse_request(
        self,
        operation: OperationModel,
        request: HttpRequest,
        body: bytes,
        path_parameters: Mapping[str, str],
    ) -> Members:
        if operation.input_shape is None:
            return {}
        with refusing("MalformedInput"):
            return _read_members(operation.input_shape, _form(request.query, body), self.field_names)

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        shape = operation.output_shape
        writer = xml.Writer()
        writer.open(f"{operation.name}Response", namespace(operation.service_model))
        if shape is not None:
            wrapper = shape.serialization.get("resultWrapper", f"{operation.name}Result")
            writer.open(wrapper)
            writer.members(shape, members)
            writer.close(wrapper)
        writer.open("ResponseMetadata")
        writer.text("RequestId", request_id)
        writer.close("ResponseMetadata")
        writer.close(f"{operation.name}Response")
        return HttpResponse(200, headers(request_id), writer.encode())

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        writer = xml.Writer()
        writer.open("ErrorResponse", namespace(service))
        writer.open("Error")
        writer.text("Type", fault.kind)
        writer.text("Code", fault.code)
        writer.text("Message", fault.message)
        if fault.shape is not None:
            members = {name: value for name, value in fault.fields.items() if name in fault.shape.members}
            writer.members(fault.shape, members)
        writer.close("Error")
        writer.text("RequestId", request_id)
        writer.close("ErrorResponse")
        return HttpResponse(fault.status, headers(request_id), writer.encode())

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        return has_streaming_payload(operation)


def namespace(service: ServiceModel) -> str | None:
    """The namespace of the replies of ``service``."""
    uri = service.metadata.get("xmlNamespace")
    return str(uri) if uri else None


def headers(request_id: str) -> Headers:
    """The headers of every reply."""
    return Headers([("content-type", "text/xml"), ("x-amzn-requestid", request_id)])


def _form(query: str, body: bytes) -> _Field:
    """The fields of the query and of the body. Raises `Unreadable`."""
    root = _Field()
    try:
        texts = (query, body.decode("utf-8"))
    except UnicodeDecodeError:
        raise Unreadable("The form must be text in UTF-8") from None
    for text in texts:
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict")
        except UnicodeDecodeError:
            raise Unreadable("The form must be text in UTF-8") from None
        except ValueError:
            raise Unreadable(f"The form has more than {MAX_FORM_FIELDS} fields") from None
        for name, value in pairs:
            parts = name.split(".", MAX_DEPTH + 1)
            if len(parts) > MAX_DEPTH:
                raise Unreadable(f"Values are nested more than {MAX_DEPTH} deep")
            place = root
            for part in parts:
                place = place.inner.setdefault(part, _Field())
            place.text = value
    return root


def _read_members(shape: Shape, place: _Field, names: FieldNames) -> Members:
    members: Members = {}
    for name, member in shape.members.items():
        wire_name = names.of_member(member, name)
        if not names.always_flattens and member.type_name == "list" and member.serialization.get("flattened"):
            # botocore names the fields of a flattened list after its member, where that has a name.
            inner_name = member.member.serialization.get("name", wire_name)
            found = place.inner.get(inner_name) or place.inner.get(wire_name)
        else:
            found = place.inner.get(wire_name)
        if found is not None:
            try:
                members[name] = _read(member, found, names)
            except Unreadable as error:
                raise error.within(name) from None
    return members


def _read(shape: Shape, place: _Field, names: FieldNames) -> Any:
    kind = shape.type_name
    if kind == "structure":
        return _read_members(shape, place, names)
    if kind == "list":
        if not names.always_flattens and not shape.serialization.get("flattened"):
            place = place.inner.get(shape.member.serialization.get("name", "member"), _Field())
        return [_read(shape.member, item, names) for item in place.numbered()]
    if kind == "map":
        if not shape.serialization.get("flattened"):
            place = place.inner.get("entry", _Field())
        return dict(_read_entry(shape, item, names) for item in place.numbered())
    return read_scalar(shape, place.text or "")


def _read_entry(shape: Shape, place: _Field, names: FieldNames) -> tuple[Any, Any]:
    key = place.inner.get(shape.key.serialization.get("name", "key"))
    value = place.inner.get(shape.value.serialization.get("name", "value"))
    if key is None or value is None:
        raise Unreadable("An entry of a map lacks its key or its value")
    return _read(shape.key, key, names), _read(shape.value, value, names)
