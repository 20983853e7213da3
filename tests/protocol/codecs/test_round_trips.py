"""Every operation of every service Clary lists, there and back, with botocore at the other end.

What botocore writes, Clary reads; what Clary writes, botocore reads; and what comes out is what went in.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlencode

import pytest
from botocore.awsrequest import HeadersDict
from botocore.exceptions import EventStreamError
from botocore.model import OperationModel, Shape, StructureShape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.faults import Invalid, UnknownOperation
from clary.protocol.codecs import codec_for
from clary.protocol.codecs.codec import payload_member
from clary.protocol.faults import to_wire
from clary.protocol.models import SERVED, ServiceModels
from clary.protocol.wire import Headers, HttpRequest, HttpResponse
from clary.testing.shape_values import REPLIES, REQUESTS, Wire, members_of, value_of, with_epochs

MODELS = ServiceModels()
CASES = [
    pytest.param(protocol, MODELS[service].operation_model(name), id=f"{service}-{protocol}-{name}")
    for service in SERVED
    for protocol in MODELS.protocols(service)
    for name in MODELS[service].operation_names
]
SERVICES = [
    pytest.param(service, protocol, id=f"{service}-{protocol}")
    for service in SERVED
    for protocol in MODELS.protocols(service)
]
REQUEST_ID = "3f2f9e0a-0000-4000-8000-000000000001"
FEW, MANY = 3, 60


def examples(count: int, values: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Run ``check`` on ``count`` of ``values``, the same ones each time."""
    run = settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run(given(values)(check))()


# Requests


def sent(protocol: str, operation: OperationModel, members: dict[str, Any]) -> tuple[HttpRequest, bytes]:
    """The request that botocore writes, as a server receives it."""
    written = create_serializer(protocol, include_validation=False).serialize_to_request(members, operation)
    body = written["body"]
    if isinstance(body, dict):
        body = urlencode(body).encode()
    path, _, literals = written["url_path"].partition("?")
    query = urlencode(written["query_string"], doseq=True) if written["query_string"] else ""
    headers = Headers([(name, str(value)) for name, value in written["headers"].items()])
    query = "&".join(part for part in (literals, query) if part)
    return HttpRequest(written["method"], path, query, headers, pieces(body)), body


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def gathered(body: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in body])


def path_parameters(operation: OperationModel, path: str) -> dict[str, str]:
    """What the path's template names, taken out of ``path``."""
    template = operation.http["requestUri"].partition("?")[0]
    names = re.findall(r"{(\w+)\+?}", template)
    greedy = re.sub(r"\\{\w+\\\+\\}", "(.+)", re.escape(template))
    found = re.fullmatch(re.sub(r"\\{\w+\\}", "([^/]+)", greedy), path, re.DOTALL)
    assert found is not None, (template, path)
    return {name: unquote(value) for name, value in zip(names, found.groups(), strict=True)}


def check_requests(protocol: str, operation: OperationModel, count: int) -> None:
    shape = operation.input_shape
    codec = codec_for(protocol)
    if shape is None:
        request, body = sent(protocol, operation, {})
        assert codec.parse_request(operation, request, body, {}) == {}
        return

    def check(members: dict[str, Any]) -> None:
        request, body = sent(protocol, operation, members)
        parameters = path_parameters(operation, request.raw_path) if "rest" in protocol else {}
        expected = with_epochs(members)
        payload = payload_member(shape)
        if codec.has_streaming_payload(operation):
            parsed = codec.parse_request(operation, request, b"", parameters)
            assert payload is not None
            assert parsed[payload] is request.body
            parsed[payload] = asyncio.run(gathered(parsed[payload]))
            expected.setdefault(payload, b"")
        else:
            parsed = codec.parse_request(operation, request, body, parameters)
            if payload is not None and expected.get(payload) in ("", b""):
                # An empty payload and none are one on the wire.
                expected.pop(payload)
                if parsed.get(payload) in ("", b""):
                    parsed.pop(payload)
        assert parsed == expected

    examples(count, members_of(shape, REQUESTS[protocol]), check)


@pytest.mark.parametrize(("protocol", "operation"), CASES)
def test_clary_reads_what_botocore_writes(protocol: str, operation: OperationModel) -> None:
    check_requests(protocol, operation, FEW)


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "operation"), CASES)
def test_clary_reads_much_that_botocore_writes(protocol: str, operation: OperationModel) -> None:
    check_requests(protocol, operation, MANY)


# Replies


def received(response: HttpResponse, operation: OperationModel | None) -> dict[str, Any]:
    """The reply as botocore's parsers take it."""
    body: Any = response.body
    assert isinstance(body, bytes)
    if operation is not None and operation.has_streaming_output and response.status < 300:
        body = io.BytesIO(body)
    return {
        "status_code": response.status,
        "headers": HeadersDict(response.headers.items()),
        "body": body,
        "context": {"operation_name": operation.name if operation else ""},
    }


def check_replies(protocol: str, operation: OperationModel, count: int) -> None:
    shape = operation.output_shape
    codec, parser = codec_for(protocol), create_parser(protocol)

    def check(members: dict[str, Any]) -> None:
        response = codec.serialize_reply(operation, {**members, "NoSuchMember": object()}, REQUEST_ID)
        assert response.status == operation.http.get("responseCode", 200)
        parsed = parser.parse(received(response, operation), shape)
        metadata = parsed.pop("ResponseMetadata")
        if shape is not None or protocol != "smithy-rpc-v2-cbor":
            assert metadata["RequestId"] == REQUEST_ID
        payload = payload_member(shape)
        if payload is not None and hasattr(parsed.get(payload), "read"):
            parsed[payload] = parsed[payload].read()
            members = {payload: b"", **members}
        elif payload is not None and not response.body:
            # botocore makes a structure, a text or a list of a body that is not there.
            parsed.pop(payload, None)
            members = {name: value for name, value in members.items() if name != payload or value}
        for name, member in shape.members.items() if shape is not None else ():
            if member.serialization.get("location") == "headers" and not parsed[name]:
                parsed.pop(name)
        assert with_epochs(parsed) == with_epochs(members)

    examples(count, members_of(shape, REPLIES[protocol]) if shape is not None else st.just({}), check)


# One is read by a hook of the client, the others are streams of events; both have tests of their own.
REPLY_CASES = [
    case
    for case in CASES
    for operation in [case.values[1]]
    if isinstance(operation, OperationModel)
    and operation.name != "GetBucketLocation"
    and operation.get_event_stream_output() is None
]


@pytest.mark.parametrize(("protocol", "operation"), REPLY_CASES)
def test_botocore_reads_what_clary_writes(protocol: str, operation: OperationModel) -> None:
    check_replies(protocol, operation, FEW)


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "operation"), REPLY_CASES)
def test_botocore_reads_much_that_clary_writes(protocol: str, operation: OperationModel) -> None:
    check_replies(protocol, operation, MANY)


def test_replies_with_epoch_seconds_and_with_datetimes_are_the_same() -> None:
    for case in REPLY_CASES:
        protocol, operation = case.values
        shape = operation.output_shape  # type: ignore[union-attr]
        if shape is None or "timestamp" not in {member.type_name for member in shape.members.values()}:
            continue
        codec = codec_for(str(protocol))
        moment = datetime.fromisoformat("2024-02-29T12:30:45.678+00:00")
        times = {name: moment for name, member in shape.members.items() if member.type_name == "timestamp"}
        one = codec.serialize_reply(operation, times, REQUEST_ID)  # type: ignore[arg-type]
        other = codec.serialize_reply(operation, with_epochs(times), REQUEST_ID)  # type: ignore[arg-type]
        assert (one.body, one.headers.items()) == (other.body, other.headers.items())


# Streams of events

STREAMS = [
    pytest.param(protocol, operation, id=f"{protocol}-{operation.name}")
    for case in CASES
    for protocol, operation in [case.values]
    if isinstance(operation, OperationModel) and operation.get_event_stream_output() is not None
]


class RawStream:
    """What botocore's event streams read from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self) -> list[bytes]:
        return [self._data[start : start + 7] for start in range(0, len(self._data), 7)]

    def close(self) -> None:
        pass


def read_stream(protocol: str, operation: OperationModel, response: HttpResponse) -> dict[str, Any]:
    """The output as botocore parses it, its event stream still to be iterated."""
    body = response.body
    assert not isinstance(body, bytes)
    raw = {
        "status_code": response.status,
        "headers": HeadersDict(response.headers.items()),
        "body": RawStream(asyncio.run(gathered(body))),
        "context": {"operation_name": operation.name},
    }
    return dict(create_parser(protocol).parse(raw, operation.output_shape))


async def happening(events: list[tuple[str, dict[str, Any]]], end: Exception | None = None) -> Any:
    for event in events:
        yield event
    if end is not None:
        raise end


def event_values(stream: Shape, wire: Wire) -> st.SearchStrategy[Any]:
    def nonempty(shape: Shape) -> st.SearchStrategy[Any]:
        required = {name: value_of(member, wire) for name, member in shape.members.items()}
        return st.fixed_dictionaries(
            {name: values for name, values in required.items() if values is not None}
        )

    events = {n: shape for n, shape in stream.members.items() if not shape.metadata.get("exception")}
    return st.lists(
        st.one_of([st.tuples(st.just(name), nonempty(shape)) for name, shape in events.items()]), max_size=3
    )


@pytest.mark.parametrize(("protocol", "operation"), STREAMS)
def test_botocore_reads_the_events_that_clary_writes(protocol: str, operation: OperationModel) -> None:
    stream = operation.get_event_stream_output()
    name = operation.output_shape.event_stream_name
    wire = REPLIES[protocol]

    def check(drawn: tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]) -> None:
        members, events = drawn
        output = {**members, name: happening(events)}
        response = codec_for(protocol).serialize_reply(operation, output, REQUEST_ID)
        assert response.headers.get("content-type") == "application/vnd.amazon.eventstream"
        parsed = read_stream(protocol, operation, response)
        parsed.pop("ResponseMetadata", None)
        assert [with_epochs(event) for event in parsed.pop(name)] == [
            {event_name: with_epochs(value)} for event_name, value in events
        ]
        assert with_epochs(parsed) == with_epochs(members)

    values = st.tuples(members_of(operation.output_shape, wire), event_values(stream, wire))
    examples(20, values, check)


@pytest.mark.parametrize(("protocol", "operation"), STREAMS)
@pytest.mark.parametrize("cause", ["a fault", "a bug"])
def test_a_stream_that_fails_ends_with_an_error(protocol: str, operation: OperationModel, cause: str) -> None:
    name = operation.output_shape.event_stream_name
    stream = operation.get_event_stream_output()
    modelled = [n for n, shape in stream.members.items() if shape.metadata.get("exception")]
    code = modelled[0] if modelled else "StreamBroken"
    end: Exception = Invalid("The model went away.", code=code) if cause == "a fault" else KeyError("secret")
    response = codec_for(protocol).serialize_reply(operation, {name: happening([], end)}, REQUEST_ID)
    with pytest.raises(EventStreamError) as caught:
        list(read_stream(protocol, operation, response)[name])
    error = caught.value.response["Error"]
    if cause == "a fault":
        assert error == {"Code": code, "Message": "The model went away."}
    else:
        assert error["Code"].startswith("Internal")
        assert "secret" not in str(error)


# EC2, which is not served but refused in its own words


@pytest.mark.parametrize(
    "name",
    ["CreateVpc", "DescribeVpcs", "CreateSubnet", "DescribeSecurityGroups", "RunInstances", "CreateTags"],
)
def test_the_dialect_of_ec2_goes_there_and_back(name: str) -> None:
    operation = MODELS["ec2"].operation_model(name)
    check_requests("ec2", operation, FEW)
    check_replies("ec2", operation, FEW)


def test_botocore_reads_an_error_of_ec2() -> None:
    model = MODELS["ec2"]
    wire = to_wire(UnknownOperation("not offered"), model, None)
    response = codec_for("ec2").serialize_fault(model, None, wire, REQUEST_ID)
    parsed = create_parser("ec2").parse(received(response, None), None)
    assert parsed["Error"] == {"Code": "InvalidAction", "Message": "not offered"}
    assert parsed["ResponseMetadata"]["RequestId"] == REQUEST_ID
    assert response.status == 400


# Errors


@pytest.mark.parametrize(("service", "protocol"), SERVICES)
def test_botocore_reads_every_modelled_error(service: str, protocol: str) -> None:
    for shape in MODELS[service].error_shapes:
        check_error(service, protocol, shape)


def check_error(service: str, protocol: str, shape: StructureShape) -> None:
    model, codec, parser = MODELS[service], codec_for(protocol), create_parser(protocol)
    operation = raiser(service, shape.name)

    def check(drawn: tuple[dict[str, Any], str]) -> None:
        members, text = drawn
        fields = without_message(members)
        wire = to_wire(Invalid(text, code=shape.error_code, fields=fields), model, operation)
        response = codec.serialize_fault(model, operation, wire, REQUEST_ID)
        parsed = parser.parse(received(response, None), operation.output_shape if operation else None)
        assert parsed["Error"]["Code"] == shape.error_code
        assert (parsed["Error"]["Message"] or "") == text
        assert parsed["ResponseMetadata"]["RequestId"] == REQUEST_ID
        assert parsed["ResponseMetadata"]["HTTPStatusCode"] == wire.status
        told = parser.parse(received(response, None), shape)
        assert with_epochs(without_message(told)) == with_epochs(fields)

    wire_of_errors = REPLIES[protocol]
    examples(10, st.tuples(members_of(shape, wire_of_errors), wire_of_errors.text), check)


def raiser(service: str, error: str) -> OperationModel | None:
    """An operation that models ``error`` and whose replies have a body."""
    model = MODELS[service]
    operations = (model.operation_model(name) for name in model.operation_names)
    return next(
        (
            operation
            for operation in operations
            if operation.http["method"] != "HEAD"
            and error in {found.name for found in operation.error_shapes}
        ),
        None,
    )


def without_message(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name.lower() != "message"}
