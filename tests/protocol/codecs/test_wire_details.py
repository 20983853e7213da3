"""What the round trips with botocore do not show: bytes as they stand, and bytes that are wrong."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

import cbor2
import pytest
from botocore.handlers import parse_get_bucket_location

from clary.faults import Fault, Invalid, NotFound
from clary.protocol.codecs import codec_for, event_stream
from clary.protocol.codecs.codec import MAX_DEPTH, Unreadable
from clary.protocol.faults import to_wire
from clary.protocol.models import SERVED, ServiceModels
from clary.protocol.wire import Headers, HttpRequest, HttpResponse

MODELS = ServiceModels()
REQUEST_ID = "3f2f9e0a-0000-4000-8000-000000000001"


async def nothing() -> AsyncIterator[bytes]:
    yield b""


def parse(
    service: str,
    operation: str,
    body: bytes = b"",
    *,
    protocol: str | None = None,
    query: str = "",
    headers: dict[str, str] | None = None,
    path: dict[str, str] | None = None,
) -> dict[str, Any]:
    codec = codec_for(protocol or MODELS.protocols(service)[0])
    request = HttpRequest("POST", "/", query, Headers(list((headers or {}).items())), nothing())
    return codec.parse_request(MODELS[service].operation_model(operation), request, body, path or {})


def refused(*arguments: Any, **named: Any) -> Fault:
    with pytest.raises(Invalid) as caught:
        parse(*arguments, **named)
    assert caught.value.status == 400
    return caught.value


def reply(
    service: str, operation: str, members: dict[str, Any], *, protocol: str | None = None
) -> HttpResponse:
    codec = codec_for(protocol or MODELS.protocols(service)[0])
    return codec.serialize_reply(MODELS[service].operation_model(operation), members, REQUEST_ID)


def fault_reply(
    service: str, operation: str | None, fault: Fault, *, protocol: str | None = None
) -> HttpResponse:
    codec = codec_for(protocol or MODELS.protocols(service)[0])
    model = MODELS[service].operation_model(operation) if operation else None
    wire = to_wire(fault, MODELS[service], model)
    return codec.serialize_fault(MODELS[service], model, wire, REQUEST_ID)


def text(response: HttpResponse) -> str:
    assert isinstance(response.body, bytes)
    return response.body.decode()


# JSON


def test_an_operation_without_input_takes_any_object_and_no_body() -> None:
    for body in (b"", b"  \r\n", b"{}", b'{"Unknown": [1]}'):
        assert parse("events", "ListEventBuses", body) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe{}",
        b'{"TrainingJobName": NaN}',
        b'{"TrainingJobName": "\\ud800"}',
        b"{'TrainingJobName': 'x'}",
        b'{"a":' * 5000,
        b"[" * 100_000,
        b'{"MaxResults": 1' + b"0" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert refused("sagemaker", "ListTrainingJobs", body).code == "SerializationException"


@pytest.mark.parametrize(
    ("operation", "document", "words"),
    [
        (
            "CreateTrainingJob",
            {"TrainingJobName": 7},
            "NUMBER_VALUE can not be converted to a String (at 'TrainingJobName')",
        ),
        (
            "CreateTrainingJob",
            {"EnableNetworkIsolation": "true"},
            "STRING_VALUE can not be converted to a Boolean (at 'EnableNetworkIsolation')",
        ),
        (
            "CreateTrainingJob",
            {"StoppingCondition": {"MaxRuntimeInSeconds": "60"}},
            "STRING_VALUE can not be converted to an Integer (at 'StoppingCondition.MaxRuntimeInSeconds')",
        ),
        (
            "CreateTrainingJob",
            {"StoppingCondition": {"MaxRuntimeInSeconds": True}},
            "BOOLEAN_VALUE can not be converted to an Integer (at 'StoppingCondition.MaxRuntimeInSeconds')",
        ),
        (
            "CreateTrainingJob",
            {"StoppingCondition": {"MaxRuntimeInSeconds": 2**31}},
            "2147483648 is out of the range of type integer (at 'StoppingCondition.MaxRuntimeInSeconds')",
        ),
        ("CreateTrainingJob", {"InputDataConfig": {}}, "Start of structure or map found where not expected"),
        ("CreateTrainingJob", {"InputDataConfig": "x"}, "Expected list or null (at 'InputDataConfig')"),
        ("CreateTrainingJob", {"ResourceConfig": []}, "Start of list found where not expected"),
        (
            "CreateTrainingJob",
            {"InputDataConfig": [{}, {"ChannelName": 1}]},
            "(at 'InputDataConfig.2.ChannelName')",
        ),
        ("CreateTrainingJob", {"HyperParameters": {"eta": 0.1}}, "(at 'HyperParameters.eta')"),
        ("ListTrainingJobs", {"CreationTimeAfter": "yesterday"}, "'yesterday' is not a timestamp"),
        ("ListTrainingJobs", {"CreationTimeAfter": 1e300}, "is not a timestamp"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(operation: str, document: dict[str, Any], words: str) -> None:
    fault = refused("sagemaker", operation, json.dumps(document).encode())
    assert fault.code == "SerializationException"
    assert words in fault.message


def test_values_nested_too_deep_are_refused() -> None:
    search: dict[str, Any] = {}
    for _ in range(MAX_DEPTH):
        search = {"SubExpressions": [search]}
    body = json.dumps({"Resource": "TrainingJob", "SearchExpression": search}).encode()
    assert f"more than {MAX_DEPTH} deep" in refused("sagemaker", "Search", body).message


def test_nulls_are_dropped_but_for_those_in_lists() -> None:
    document = {
        "TrainingJobName": None,
        "HyperParameters": {"a": None, "b": "1"},
        "Tags": [None, {"Key": "k", "Value": None}],
    }
    assert parse("sagemaker", "CreateTrainingJob", json.dumps(document).encode()) == {
        "HyperParameters": {"b": "1"},
        "Tags": [None, {"Key": "k"}],
    }


def test_whole_numbers_may_have_a_fraction_of_zero() -> None:
    assert parse("sagemaker", "ListTrainingJobs", b'{"MaxResults": 5.0}') == {"MaxResults": 5}


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("1700000000.25", 1_700_000_000.25),
        ('"2023-11-14T22:13:20Z"', 1_700_000_000.0),
        ('"2023-11-14T23:13:20.250+01:00"', 1_700_000_000.25),
        ('"2023-11-14"', 1_699_920_000.0),
        ('"Tue, 14 Nov 2023 22:13:20 GMT"', 1_700_000_000.0),
        ('"1700000000"', 1_700_000_000.0),
    ],
)
def test_a_time_is_read_in_every_form(given: str, seconds: float) -> None:
    body = f'{{"CreationTimeAfter": {given}}}'.encode()
    assert parse("sagemaker", "ListTrainingJobs", body) == {"CreationTimeAfter": seconds}


@pytest.mark.parametrize(
    "given", ["2023-13-01T00:00:00Z", "2023-02-30", "Tue, 99 Nov 2023", "", "9" * 70, "NaN", "٣"]
)
def test_what_is_no_time_is_refused(given: str) -> None:
    body = json.dumps({"CreationTimeAfter": given}).encode()
    assert "is not a timestamp" in refused("sagemaker", "ListTrainingJobs", body).message


def test_a_json_reply_leaves_out_what_is_none_or_unknown() -> None:
    response = reply(
        "sagemaker",
        "DescribeModel",
        {"ModelName": "m", "ExecutionRoleArn": None, "Tags": [1], "CreationTime": 1_700_000_000.1234},
    )
    assert text(response) == '{"ModelName":"m","CreationTime":1700000000.123}'
    assert response.headers.items() == [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amzn-requestid", REQUEST_ID),
    ]


def test_json_without_output_has_no_body() -> None:
    assert reply("sagemaker", "DeleteModel", {}).body == b""


def test_numbers_that_json_has_not_are_words() -> None:
    values = {"MetricDataResults": [{"Values": [float("nan"), float("inf"), 1.5]}]}
    response = reply("cloudwatch", "GetMetricData", values, protocol="json")
    assert text(response) == '{"MetricDataResults":[{"Values":["NaN","Infinity",1.5]}]}'
    body = b'{"MetricData": [{"MetricName": "m", "Values": ["NaN", "-Infinity", 1]}], "Namespace": "n"}'
    metrics = parse("cloudwatch", "PutMetricData", body, protocol="json")
    assert repr(metrics["MetricData"][0]["Values"]) == "[nan, -inf, 1.0]"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"ModelName": 5}, "ModelName is a string, not int"),
        ({"CreationTime": "now"}, "a timestamp is a number of seconds or an aware datetime, not str"),
        ({"CreationTime": datetime(2024, 1, 1)}, "must be an aware datetime"),
        ({"EnableNetworkIsolation": "no"}, "is a boolean, not str"),
        ({"Containers": {}}, "is a list, not dict"),
        ({"PrimaryContainer": []}, "is a structure, not list"),
    ],
)
def test_a_handlers_value_of_the_wrong_type_is_a_bug(members: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        reply("sagemaker", "DescribeModel", members)


def test_an_error_in_json() -> None:
    response = fault_reply("sagemaker", "DescribeModel", NotFound('Could not find model "m".'))
    assert response.status == 400
    assert json.loads(text(response)) == {
        "__type": "ValidationException",
        "message": 'Could not find model "m".',
    }
    assert response.headers.get("x-amzn-errortype") == "ValidationException"
    assert response.headers.get("x-amzn-requestid") == REQUEST_ID


def test_a_service_that_spoke_query_tells_that_code_too() -> None:
    for protocol in ("json", "smithy-rpc-v2-cbor"):
        response = fault_reply("cloudwatch", "GetDashboard", NotFound("gone"), protocol=protocol)
        assert response.headers.get("x-amzn-query-error") == "ResourceNotFound;Sender"
        assert response.headers.get("x-amzn-errortype") == "DashboardNotFoundError"
        assert response.status == 404


# REST-JSON


def test_an_invocation_is_its_body_and_headers() -> None:
    members = parse(
        "sagemaker-runtime",
        "InvokeEndpoint",
        b"\xff\x00",
        headers={"Content-Type": "text/csv", "X-Amzn-SageMaker-Target-Variant": "blue"},
        path={"EndpointName": "e"},
    )
    assert members == {
        "EndpointName": "e",
        "ContentType": "text/csv",
        "TargetVariant": "blue",
        "Body": b"\xff\x00",
    }


def test_an_empty_invocation_has_an_empty_body() -> None:
    assert parse("sagemaker-runtime", "InvokeEndpoint", path={"EndpointName": "e"})["Body"] == b""


def test_an_error_of_the_model_carries_what_the_model_said() -> None:
    fields = {"OriginalStatusCode": 500, "OriginalMessage": "boom", "LogStreamArn": "arn"}
    response = fault_reply(
        "sagemaker-runtime", "InvokeEndpoint", Invalid("Received 500", code="ModelError", fields=fields)
    )
    assert response.status == 424
    assert json.loads(text(response)) == {"__type": "ModelError", "Message": "Received 500", **fields}
    assert response.headers.get("content-type") == "application/json"


def test_a_header_cannot_begin_another() -> None:
    response = reply(
        "sagemaker-runtime", "InvokeEndpoint", {"Body": b"x", "CustomAttributes": "a\r\nSet-Cookie: b"}
    )
    assert response.headers.get("x-amzn-sagemaker-custom-attributes") == "a  Set-Cookie: b"
    assert "set-cookie" not in response.headers


def test_rest_json_that_is_broken_is_refused() -> None:
    assert refused("sagemaker-metrics", "BatchPutMetrics", b"<xml/>").code == "SerializationException"


# REST-XML


def test_only_uploads_stream() -> None:
    streaming = {
        (service, name)
        for service in SERVED
        for name in MODELS[service].operation_names
        if codec_for(MODELS.protocols(service)[0]).has_streaming_payload(
            MODELS[service].operation_model(name)
        )
    }
    assert streaming == {
        ("s3", "PutObject"),
        ("s3", "UploadPart"),
        ("s3", "PutObjectAnnotation"),
        ("s3", "WriteGetObjectResponse"),
    }


def test_an_upload_is_handed_on_unread() -> None:
    body = nothing()
    request = HttpRequest(
        "PUT", "/b/k", "", Headers([("x-amz-meta-Color", "red"), ("x-amz-meta-a", "1")]), body
    )
    members = codec_for("rest-xml").parse_request(
        MODELS["s3"].operation_model("PutObject"), request, b"", {"Bucket": "b", "Key": "k"}
    )
    assert members == {"Bucket": "b", "Key": "k", "Metadata": {"color": "red", "a": "1"}, "Body": body}
    assert members["Body"] is body


def test_a_streamed_reply_has_the_length_that_is_its_member() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"

    body = pieces()
    members = {"Body": body, "ContentLength": 3, "ETag": '"e"', "Metadata": {"a": "1"}, "LastModified": 0}
    response = reply("s3", "GetObject", members)
    assert response.body is body
    assert response.content_length == 3
    assert response.headers.get("etag") == '"e"'
    assert response.headers.get("x-amz-meta-a") == "1"
    assert response.headers.get("last-modified") == "Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize(
    "body",
    [
        b"<Delete>",
        b"not xml",
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><Delete><Object><Key>&a;</Key></Object></Delete>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><Delete/>',
        b"<Delete>" + b"<a>" * 200 + b"</a>" * 200 + b"</Delete>",
        b"<Delete><Object><Key>\xff</Key></Object></Delete>",
        b'<?xml version="1.0" encoding="no-such"?><Delete/>',
        b"<Delete><Quiet>perhaps</Quiet></Delete>",
        b"<Delete><Object><Key>k</Key><Size>many</Size></Object></Delete>",
    ],
)
def test_what_is_no_proper_xml_is_refused(body: bytes) -> None:
    fault = refused("s3", "DeleteObjects", body, path={"Bucket": "b"})
    assert fault.code == "MalformedXML"
    assert fault.message.startswith("The XML you provided was not well-formed or did not validate")


@pytest.mark.parametrize("prefix", ["", "s3:"])
def test_namespaces_of_requests_do_not_matter(prefix: str) -> None:
    xmlns = ' xmlns:s3="http://s3.amazonaws.com/doc/2006-03-01/"' if prefix else ""
    body = (
        f"<{prefix}Delete{xmlns}><{prefix}Object><{prefix}Key> a&amp;b </{prefix}Key></{prefix}Object>"
        f"<{prefix}Quiet> true </{prefix}Quiet></{prefix}Delete>"
    )
    assert parse("s3", "DeleteObjects", body.encode(), path={"Bucket": "b"}) == {
        "Bucket": "b",
        "Delete": {"Objects": [{"Key": " a&b "}], "Quiet": True},
    }


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("max-keys=ten", "InvalidArgument"),
        ("max-keys=99999999999", "InvalidArgument"),
        ("a=b&" * 2000, "InvalidArgument"),
    ],
)
def test_a_query_that_cannot_be_read_is_refused(query: str, code: str) -> None:
    assert refused("s3", "ListObjectsV2", query=query, path={"Bucket": "b"}).code == code


def test_an_empty_number_in_a_query_is_none() -> None:
    assert parse("s3", "ListObjectsV2", query="max-keys=&prefix=", path={"Bucket": "b"}) == {
        "Bucket": "b",
        "Prefix": "",
    }


def test_items_of_a_header_may_be_quoted() -> None:
    members = parse(
        "s3",
        "GetObjectAttributes",
        headers={"x-amz-object-attributes": 'ETag, "Object,Size" ,, "a\\"b"'},
        path={"Bucket": "b", "Key": "k"},
    )
    assert members["ObjectAttributes"] == ["ETag", "Object,Size", 'a"b']


@pytest.mark.parametrize(
    ("operation", "members", "root"),
    [
        ("ListBuckets", {"Buckets": []}, "ListAllMyBucketsResult"),
        ("ListObjectsV2", {"Name": "b"}, "ListBucketResult"),
        ("CreateMultipartUpload", {"UploadId": "u"}, "InitiateMultipartUploadResult"),
        ("GetBucketVersioning", {}, "VersioningConfiguration"),
        ("GetBucketCors", {}, "CORSConfiguration"),
        ("CopyObject", {"CopyObjectResult": {"ETag": "e"}}, "CopyObjectResult"),
        ("GetBucketLocation", {"LocationConstraint": "eu-west-1"}, "LocationConstraint"),
        ("GetObjectTagging", {"TagSet": []}, "Tagging"),
    ],
)
def test_replies_of_s3_have_its_root_elements(operation: str, members: dict[str, Any], root: str) -> None:
    document = text(reply("s3", operation, members))
    assert document.startswith(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    )
    assert document.endswith(f"</{root}>")


@pytest.mark.parametrize(("location", "read"), [("eu-west-1", "eu-west-1"), (None, None)])
def test_botocore_reads_the_location_of_a_bucket(location: str | None, read: str | None) -> None:
    class Raw:
        raw = True
        content = reply("s3", "GetBucketLocation", {"LocationConstraint": location}).body

    parsed: dict[str, Any] = {}
    parse_get_bucket_location(parsed, Raw)
    assert parsed["LocationConstraint"] == read


def test_keys_with_any_character_can_be_listed() -> None:
    document = text(reply("s3", "ListObjectsV2", {"Contents": [{"Key": "a\x01\r\n<&>\ud800\uffff"}]}))
    assert "<Key>a&#1;&#13;\n&lt;&amp;&gt;&#55296;&#65535;</Key>" in document


def test_times_of_s3_have_milliseconds() -> None:
    document = text(reply("s3", "ListObjectsV2", {"Contents": [{"LastModified": 1_700_000_000}]}))
    assert "<LastModified>2023-11-14T22:13:20.000Z</LastModified>" in document


def test_an_error_of_s3() -> None:
    response = fault_reply(
        "s3",
        "GetObject",
        NotFound("The specified key does not exist.", code="NoSuchKey", fields={"Key": "a<b"}),
    )
    assert response.status == 404
    host_id = response.headers.get("x-amz-id-2")
    assert host_id
    assert text(response) == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Key>a&lt;b</Key>"
        f"<RequestId>{REQUEST_ID}</RequestId><HostId>{host_id}</HostId></Error>"
    )
    assert response.headers.get("x-amz-request-id") == REQUEST_ID


@pytest.mark.parametrize(
    ("operation", "fault", "status"),
    [
        ("HeadBucket", NotFound("gone"), 404),
        ("HeadObject", NotFound("gone", code="NoSuchKey"), 404),
        ("GetObject", Invalid("Not Modified", code="NotModified"), 304),
    ],
)
def test_some_errors_of_s3_have_no_body(operation: str, fault: Fault, status: int) -> None:
    response = fault_reply("s3", operation, fault)
    assert (response.status, response.body) == (status, b"")


# Query


def form(**fields: str) -> bytes:
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in fields.items()).encode()


def test_a_form_may_stand_in_the_query() -> None:
    assert parse("iam", "GetRole", query="Action=GetRole&RoleName=r&Version=2010-05-08") == {"RoleName": "r"}


def test_lists_of_a_form_are_sorted_by_number_and_their_gaps_closed() -> None:
    fields = {
        "Tags.member.10.Key": "b",
        "Tags.member.10.Value": "2",
        "Tags.member.2.Key": "a",
        "Tags.member.2.Value": "1",
    }
    assert parse("iam", "TagRole", form(RoleName="r", **fields)) == {
        "RoleName": "r",
        "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}],
    }


@pytest.mark.parametrize(
    "body",
    [
        form(MaxItems="many"),
        form(MaxItems="1_000"),
        b"PathPrefix=%ff",
        b"PathPrefix=\xff",
        b"a=b&" * 10_001,
        ("Tags" + ".member.1" * 200 + "=x").encode(),
    ],
)
def test_a_form_that_cannot_be_read_is_refused(body: bytes) -> None:
    assert refused("iam", "ListRoles", body).code == "MalformedInput"


def test_a_query_reply_wraps_its_result() -> None:
    response = reply("sts", "GetCallerIdentity", {"Account": "1", "Arn": "a"})
    assert text(response) == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        "<Account>1</Account><Arn>a</Arn></GetCallerIdentityResult>"
        f"<ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    )
    assert response.headers.get("content-type") == "text/xml"


def test_times_of_query_have_milliseconds_only_if_they_are_there() -> None:
    for moment, shown in ((1_700_000_000, "20Z"), (1_700_000_000.5, "20.500Z")):
        role = {"Role": {"CreateDate": datetime.fromtimestamp(moment, timezone.utc)}}
        assert f"<CreateDate>2023-11-14T22:13:{shown}</CreateDate>" in text(reply("iam", "GetRole", role))


def test_a_query_error() -> None:
    response = fault_reply("iam", "GetRole", NotFound("The role with name r cannot be found."))
    assert response.status == 404
    assert (
        "<Error><Type>Sender</Type><Code>NoSuchEntity</Code>"
        "<Message>The role with name r cannot be found.</Message></Error>"
        f"<RequestId>{REQUEST_ID}</RequestId></ErrorResponse>"
    ) in text(response)


# CBOR


def cbor(document: Any) -> bytes:
    return bytes(cbor2.dumps(document))


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"\xa1\x61a",
        cbor([]),
        cbor({"Namespace": 1}),
        cbor({"Namespace": b"bytes"}),
        cbor({"Namespace": cbor2.CBORTag(35, "(a+)+")}),
        cbor({"MetricData": cbor2.CBORTag(28, [])}),
        cbor({"MetricData": cbor2.CBORTag(999, [])}),
        cbor({1: "x"}),
        b"\x81" * 500,
        b"\x9b" + b"\xff" * 8,
        b"\x5b" + b"\xff" * 8,
        b"\xa1\x61a\xc1\x1b" + b"\xff" * 8,
        cbor({"MetricData": [{"Value": "1"}]}),
        cbor({"MetricData": [{"Timestamp": float("nan")}]}),
    ],
)
def test_what_is_no_proper_cbor_is_refused(body: bytes) -> None:
    fault = refused("cloudwatch", "PutMetricData", body, protocol="smithy-rpc-v2-cbor")
    assert fault.code == "SerializationException"


def test_cbor_takes_times_with_and_without_a_tag() -> None:
    for moment in (1_700_000_000, 1_700_000_000.0, cbor2.CBORTag(1, 1_700_000_000)):
        body = cbor({"Namespace": "n", "StartTime": moment})
        members = parse("cloudwatch", "GetMetricStatistics", body, protocol="smithy-rpc-v2-cbor")
        assert members["StartTime"] == 1_700_000_000.0


# Streams of events


def test_a_message_is_framed_as_its_form_says() -> None:
    framed = event_stream.message({":event-type": "e"}, b"payload")
    headers = b"\x0b:event-type\x07\x00\x01e"
    prelude = struct.pack("!II", 16 + len(headers) + 7, len(headers))
    frame = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + b"payload"
    assert framed == frame + struct.pack("!I", zlib.crc32(frame))


def test_messages_are_read_back() -> None:
    headers: dict[str, event_stream.HeaderValue] = {"a": "text", "b": b"\x00", "c": True, "d": False, "e": -5}
    data = event_stream.message(headers, b"one") + event_stream.message({}, b"")
    assert list(event_stream.messages(data)) == [(headers, b"one"), ({}, b"")]


@pytest.mark.parametrize("at", range(0, 40, 3))
def test_a_broken_message_is_noticed(at: int) -> None:
    data = bytearray(event_stream.message({":event-type": "part"}, b"some payload"))
    data[at] ^= 0x55
    with pytest.raises(Unreadable):
        list(event_stream.messages(bytes(data)))
    with pytest.raises(Unreadable):
        list(event_stream.messages(event_stream.message({}, b"abc")[:-1]))


def test_a_stream_closes_what_it_reads_from() -> None:
    closed = []

    async def events() -> Any:
        try:
            yield "PayloadPart", {"Bytes": b"1"}
            yield "PayloadPart", {"Bytes": b"2"}
        finally:
            closed.append(True)

    async def run() -> None:
        body = reply("sagemaker-runtime", "InvokeEndpointWithResponseStream", {"Body": events()}).body
        assert not isinstance(body, bytes)
        await body.__anext__()
        await body.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())
    assert closed == [True]
