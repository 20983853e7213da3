"""Every operation of every service Clary lists, there and back, with botocore at the other end."""

from __future__ import annotations

import asyncio
import datetime
import io
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from botocore.awsrequest import HeadersDict, prepare_request_dict
from botocore.model import OperationModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clary.faults import Invalid, NotFound
from clary.protocol.codecs import codec_for
from clary.protocol.codecs.codec import payload_member
from clary.protocol.faults import to_wire
from clary.protocol.identify import SERVICES, find_operation, find_service
from clary.protocol.models import SERVED, ServiceModels
from clary.protocol.wire import Headers, HttpRequest

MODELS = ServiceModels()
LEFT_OUT = {
    "WriteGetObjectResponse",  # for Lambda functions, at a host of its own
    "PutBucketNotification",  # deprecated, and two of its members share an element
    "GetBucketNotification",
}
# Beside its first protocol, what else clients speak to a service.
PROTOCOLS = {
    service: [SERVICES[service].protocol]
    + (["query", "smithy-rpc-v2-cbor"] if service == "cloudwatch" else [])
    for service in SERVED
}
CASES = [
    (service, protocol, name)
    for service in SERVED
    for protocol in PROTOCOLS[service]
    for name in MODELS[service].operation_names
    if name not in LEFT_OUT
]
EXAMPLES = 3
LEFT_OUT = {
    "WriteGetObjectResponse",  # for Lambda functions, at a host of its own
    "PutBucketNotification",  # deprecated, and two of its members share an element
    "GetBucketNotification",
}

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"),
    min_size=1,
    max_size=8,
)
NAME = st.text("abcdefgh-0123", min_size=1, max_size=6).filter(lambda text: text.strip("-") != "")
MOMENT = st.integers(1, 4_000_000_000)


def values(shape: Shape, depth: int = 0, *, header: bool = False) -> st.SearchStrategy[Any]:
    """What a handler would give or get for ``shape``."""
    kind = shape.type_name
    if kind == "structure":
        return structures(shape, depth)
    if kind == "list":
        flat_empty = 1 if shape.serialization.get("flattened") or header else 0
        if depth > 3:
            return st.lists(values(shape.member, depth + 1, header=header), min_size=1, max_size=1)
        return st.lists(values(shape.member, depth + 1, header=header), min_size=flat_empty or 1, max_size=2)
    if kind == "map":
        return st.dictionaries(
            values(shape.key, depth + 1, header=header),
            values(shape.value, depth + 1, header=header),
            min_size=1,
            max_size=2,
        )
    if kind in ("string", "character"):
        if shape.metadata.get("enum"):
            return st.sampled_from(shape.metadata["enum"])
        return (
            NAME
            if header or shape.serialization.get("location") or shape.serialization.get("xmlAttribute")
            else TEXT
        )
    if kind in ("integer", "long"):
        return st.integers(-(2**31), 2**31 - 1)
    if kind in ("float", "double"):
        return st.floats(-1e6, 1e6, width=32)
    if kind == "boolean":
        return st.booleans()
    if kind == "blob":
        return st.binary(min_size=1, max_size=8)
    assert kind == "timestamp", kind
    return MOMENT.map(float)


def structures(shape: Shape, depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    if getattr(shape, "is_document_type", False):
        return st.dictionaries(NAME, st.integers(0, 9), min_size=1, max_size=2)
    union = getattr(shape, "is_tagged_union", False)
    required, optional = {}, {}
    for name, member in shape.members.items():
        location = member.serialization.get("location")
        if member.serialization.get("eventstream") or location == "statusCode":
            continue
        needed = name in shape.required_members or location == "uri" or (union and not optional)
        if needed or depth < 3:
            chosen = values(member, depth + 1, header=location is not None)
            (required if needed and not union else optional)[name] = chosen
    if union:
        return st.one_of([st.fixed_dictionaries({name: chosen}) for name, chosen in optional.items()])
    return st.fixed_dictionaries(required, optional=optional)


def as_botocore(shape: Shape | None, value: Any) -> Any:
    """Our value in botocore's types: times are datetimes."""
    if shape is None or value is None:
        return value
    kind = shape.type_name
    if kind == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        return {name: as_botocore(shape.members[name], item) for name, item in value.items()}
    if kind == "list":
        return [as_botocore(shape.member, item) for item in value]
    if kind == "map":
        return {key: as_botocore(shape.value, item) for key, item in value.items()}
    if kind == "timestamp":
        return datetime.datetime.fromtimestamp(value, datetime.timezone.utc)
    return value


def same(one: Any, other: Any) -> bool:
    """Equal, floats by their nearness and integers of float members as floats."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return type(one) is type(other) and one == other


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


def received(written: dict[str, Any]) -> tuple[HttpRequest, bytes]:
    """What a server sees of a request that botocore wrote."""
    prepare_request_dict(written, "http://127.0.0.1:8750")
    head, _, query = written["url"].removeprefix("http://127.0.0.1:8750").partition("?")
    body = written["body"]
    if hasattr(body, "read"):
        body = body.read()
    if isinstance(body, dict):
        from urllib.parse import urlencode

        body = urlencode(body)
    if isinstance(body, str):
        body = body.encode()
    headers = Headers(
        [
            (name, str(value.decode() if isinstance(value, bytes) else value))
            for name, value in written["headers"].items()
        ]
    )
    headers.set("host", "127.0.0.1:8750")
    return HttpRequest(written["method"], head or "/", query, headers, _pieces(body or b"")), body or b""


@pytest.mark.parametrize(("service", "protocol", "name"), CASES)
def test_what_botocore_writes_is_read_back(service: str, protocol: str, name: str) -> None:
    operation = MODELS[service].operation_model(name)
    if operation.input_shape is None:
        return
    serializer = create_serializer(protocol, include_validation=False)
    codec = codec_for(protocol)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(structures(operation.input_shape))
    def there_and_back(members: dict[str, Any]) -> None:
        written = serializer.serialize_to_request(as_botocore(operation.input_shape, members), operation)
        written["context"] = {}
        request, body = received(written)
        parameters = path_parameters(service, protocol, operation, request, body)
        read = codec.parse_request(operation, request, body, parameters)
        if codec.has_streaming_payload(operation):
            payload = payload_member(operation.input_shape)
            stream = read.pop(payload)
            given_payload = members.pop(payload, b"")
            if isinstance(given_payload, str):
                given_payload = given_payload.encode()
            assert asyncio.run(collect(stream)) == given_payload
        assert same(without_empty(read), without_empty(members)), (read, members)

    there_and_back()


async def collect(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


def path_parameters(
    service: str, protocol: str, operation: OperationModel, request: HttpRequest, body: bytes
) -> dict[str, str]:
    if protocol not in ("rest-json", "rest-xml"):
        return {}
    request.headers.set(
        "authorization",
        f"AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/{SERVICES[service].scope}/aws4_request,"
        " SignedHeaders=host, Signature=0",
    )
    destination = find_service(request, ())
    assert destination.service == service
    _, parameters = find_operation(destination, request, MODELS[service], body)
    return parameters


@pytest.mark.parametrize(("service", "protocol", "name"), CASES)
def test_what_is_written_botocore_reads_back(service: str, protocol: str, name: str) -> None:
    operation = MODELS[service].operation_model(name)
    shape = operation.output_shape
    if shape is None or operation.get_event_stream_output() is not None:
        return
    parser = create_parser(protocol)
    codec = codec_for(protocol)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(structures(shape))
    def there_and_back(members: dict[str, Any]) -> None:
        response = codec.serialize_reply(operation, members, "request-1")
        body = io.BytesIO(response.body) if operation.has_streaming_output else response.body
        parsed = parser.parse(
            {"headers": HeadersDict(response.headers.items()), "status_code": response.status, "body": body},
            shape,
        )
        if operation.has_streaming_output:
            payload = payload_member(shape)
            parsed[payload] = parsed[payload].read()
            parsed = {name: value for name, value in parsed.items() if name in {*members, "ResponseMetadata"}}
        metadata = parsed.pop("ResponseMetadata")
        assert metadata["RequestId"] == "request-1"
        expected = as_botocore(shape, members)
        if service == "s3" and name == "GetBucketLocation":
            return  # its parser is a hook of the client; see the S3 tests
        assert same(without_empty(parsed), without_empty(expected)), (parsed, expected)

    there_and_back()


def without_empty(value: Any) -> Any:
    """``value`` without what some protocols cannot carry: empty structures, lists and texts."""
    if isinstance(value, dict):
        inside = {name: without_empty(item) for name, item in value.items()}
        return {name: item for name, item in inside.items() if item not in ({}, [], "", b"")}
    if isinstance(value, list):
        return [item for item in map(without_empty, value) if item not in ({}, [], "", b"")]
    return value


@pytest.mark.parametrize(
    ("service", "protocol", "name"),
    [case for case in CASES if MODELS[case[0]].operation_model(case[2]).error_shapes],
)
def test_modelled_errors_come_back_with_code_and_message(service: str, protocol: str, name: str) -> None:
    operation = MODELS[service].operation_model(name)
    codec, parser = codec_for(protocol), create_parser(protocol)
    for shape in operation.error_shapes:
        code = shape.metadata.get("error", {}).get("code", shape.name)
        wire = to_wire(Invalid('It\'s <wrong> & "odd"', code=code), MODELS[service], operation)
        response = codec.serialize_fault(MODELS[service], operation, wire, "request-1")
        parsed = parser.parse(
            {
                "headers": HeadersDict(response.headers.items()),
                "status_code": response.status,
                "body": response.body,
            },
            operation.output_shape,
        )
        if operation.http["method"] == "HEAD":
            assert response.body == b""
            assert parsed["Error"]["Code"] == str(response.status)
            continue
        assert parsed["Error"]["Code"] == code
        assert parsed["Error"]["Message"] == 'It\'s <wrong> & "odd"'
        assert parsed["ResponseMetadata"]["RequestId"] == "request-1"
        assert response.status == shape.metadata.get("error", {}).get("httpStatusCode", response.status)


@pytest.mark.parametrize(
    ("service", "operation", "code"),
    [
        ("sagemaker", "DescribeTrainingJob", "ResourceNotFound"),
        ("sagemaker", "DescribeModel", "ValidationException"),
        ("sagemaker", "DescribeEndpoint", "ValidationException"),
        ("logs", "GetLogEvents", "ResourceNotFoundException"),
        ("iam", "GetRole", "NoSuchEntity"),
        ("sts", "GetCallerIdentity", "ValidationError"),
        ("application-autoscaling", "DescribeScalingPolicies", "ValidationException"),
    ],
)
def test_a_missing_thing_is_named_as_the_operation_names_it(service: str, operation: str, code: str) -> None:
    assert to_wire(NotFound("gone"), MODELS[service], MODELS[service].operation_model(operation)).code == code
