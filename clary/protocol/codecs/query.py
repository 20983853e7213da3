"""Query: the operation and its members in a form, the reply in XML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from botocore.model import OperationModel, ServiceModel, Shape

from clary.protocol.codecs import xml
from clary.protocol.codecs.codec import MAX_DEPTH, has_streaming_payload, unreadable
from clary.protocol.faults import WireFault
from clary.protocol.wire import Headers, HttpRequest, HttpResponse, Members, ReplyMembers

MAX_FORM_FIELDS = 10_000


@dataclass
class _Node:
    """A form's fields as a tree: ``Tags.member.1.Key=k`` hangs below ``Tags``, ``member``, ``1``, ``Key``."""

    text: str | None = None
    children: dict[str, _Node] = field(default_factory=dict)

    def numbered(self) -> list[_Node]:
        """The children ``1``, ``2``, ... in the order of their numbers."""
        found = [(int(name), node) for name, node in self.children.items() if name.isdecimal()]
        return [node for _, node in sorted(found, key=lambda pair: pair[0])]


class QueryCodec:
    """`clary.protocol.codecs.codec.Codec` for ``query``."""

    def parse_request(
        self,
        operation: OperationModel,
        request: HttpRequest,
        body: bytes,
        path_parameters: Mapping[str, str],
    ) -> Members:
        if operation.input_shape is None:
            return {}
        root = _Node()
        for text in (request.query, body.decode("utf-8", "replace")):
            try:
                pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
            except ValueError:
                raise unreadable(f"The form has more than {MAX_FORM_FIELDS} fields.") from None
            for name, value in pairs:
                parts = name.split(".")
                if len(parts) > MAX_DEPTH:
                    raise unreadable(f"The request nests values more than {MAX_DEPTH} deep.")
                node = root
                for part in parts:
                    node = node.children.setdefault(part, _Node())
                node.text = value
        return dict(_read(operation.input_shape, root))

    def serialize_reply(
        self, operation: OperationModel, members: ReplyMembers, request_id: str
    ) -> HttpResponse:
        name, shape = operation.name, operation.output_shape
        result = ""
        if shape is not None:
            inner = xml.write_members(shape, members)
            wrapper = shape.serialization.get("resultWrapper")
            result = f"<{wrapper}>{inner}</{wrapper}>" if wrapper else inner
        text = (
            f'<{name}Response xmlns="{_namespace(operation.service_model)}">{result}'
            f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}Response>"
        )
        return HttpResponse(200, _headers(request_id), text.encode("utf-8", "replace"))

    def serialize_fault(
        self, service: ServiceModel, operation: OperationModel | None, fault: WireFault, request_id: str
    ) -> HttpResponse:
        fields = "".join(
            f"<{name}>{xml.escaped(str(value))}</{name}>" for name, value in fault.fields.items()
        )
        text = (
            f'<ErrorResponse xmlns="{_namespace(service)}"><Error><Type>{fault.kind}</Type>'
            f"<Code>{xml.escaped(fault.code)}</Code><Message>{xml.escaped(fault.message)}</Message>{fields}</Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        return HttpResponse(fault.status, _headers(request_id), text.encode("utf-8", "replace"))

    def has_streaming_payload(self, operation: OperationModel) -> bool:
        return has_streaming_payload(operation)


def _namespace(service: ServiceModel) -> str:
    return str(service.metadata.get("xmlNamespace", f"https://{service.endpoint_prefix}.amazonaws.com/doc/"))


def _headers(request_id: str) -> Headers:
    return Headers([("content-type", "text/xml"), ("x-amzn-requestid", request_id)])


def _read(shape: Shape, node: _Node) -> Any:
    kind = shape.type_name
    if kind == "structure":
        members = {}
        for name, member in shape.members.items():
            wire_name = member.serialization.get("name", name)
            if member.type_name == "list" and member.serialization.get("flattened"):
                # botocore names the fields of a flattened list after its member, where that has a name.
                wire_name = member.member.serialization.get("name", wire_name)
            child = node.children.get(wire_name)
            if child is not None:
                members[name] = _read(member, child)
        return members
    if kind == "list":
        holder = node
        if not shape.serialization.get("flattened"):
            inner = shape.member.serialization.get("name", "member")
            holder = node.children.get(inner, _Node())
        return [_read(shape.member, item) for item in holder.numbered()]
    if kind == "map":
        holder = node if shape.serialization.get("flattened") else node.children.get("entry", _Node())
        key_name = shape.key.serialization.get("name", "key")
        value_name = shape.value.serialization.get("name", "value")
        entries = {}
        for item in holder.numbered():
            if key_name in item.children and value_name in item.children:
                key = _read(shape.key, item.children[key_name])
                entries[key] = _read(shape.value, item.children[value_name])
        return entries
    return xml.read_text(shape, node.text or "")
