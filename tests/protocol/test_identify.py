"""Every operation that botocore can send is told from every other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from botocore.awsrequest import prepare_request_dict
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from clary.faults import Invalid, UnknownOperation
from clary.protocol.identify import SERVICES, bucket_of_host, find_operation, find_service
from clary.protocol.models import OWN_SERVICES
from clary.protocol.wire import Headers, HttpRequest

OWN_NAMES = frozenset({"localhost", "clary.example"})


async def nothing() -> AsyncIterator[bytes]:
    for _ in ():
        yield b""


def request(
    method: str, url: str, headers: dict[str, str] | None = None, host: str = "127.0.0.1:8750"
) -> HttpRequest:
    path, _, query = url.partition("?")
    return HttpRequest(method, path, query, Headers([("Host", host), *(headers or {}).items()]), nothing())


def signed_for(scope: str) -> dict[str, str]:
    credential = f"AKIA0/20260101/eu-west-1/{scope}/aws4_request"
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=00"}


def model_of(service: str) -> ServiceModel:
    loader = Loader(extra_search_paths=[str(OWN_SERVICES)])
    return ServiceModel(loader.load_service_model(service, "service-2"), service)


def smallest(shape: Shape, depth: int = 0) -> Any:
    """A value with the required members only."""
    if shape.type_name == "structure":
        return {name: smallest(shape.members[name], depth + 1) for name in shape.required_members}
    if shape.type_name == "list":
        return [smallest(shape.member, depth + 1)] if depth < 6 else []
    if shape.type_name == "map":
        return {}
    if shape.type_name == "string":
        return shape.enum[0] if shape.enum else "some-text"
    return {"blob": b"x", "boolean": True, "timestamp": 0}.get(shape.type_name, 1)


def protocols_of(service: str) -> list[str]:
    native = SERVICES[service].protocol
    return ["json", "query", "smithy-rpc-v2-cbor"] if service == "cloudwatch" else [native]


@pytest.mark.parametrize(
    ("service", "protocol"),
    [(service, protocol) for service in SERVICES for protocol in protocols_of(service)],
)
def test_each_operation_that_botocore_sends_is_identified(service: str, protocol: str) -> None:
    model = model_of(service)
    serializer = create_serializer(protocol, include_validation=False)
    mistaken = []
    for name in model.operation_names:
        operation = model.operation_model(name)
        shape = operation.input_shape
        sent = serializer.serialize_to_request(smallest(shape) if shape else {}, operation)
        prepare_request_dict(sent, "http://127.0.0.1:8750")
        parts = urlsplit(sent["url"])
        form = sent["body"] if isinstance(sent["body"], bytes) else urlencode(sent["body"]).encode()
        headers = {**sent["headers"], **signed_for(SERVICES[service].scope)}
        received = request(
            sent["method"], f"{parts.path}?{parts.query}" if parts.query else parts.path, headers
        )
        destination = find_service(received, OWN_NAMES)
        found, _ = find_operation(destination, received, model, form)
        if (destination.service, destination.protocol) != (service, protocol):
            mistaken.append((name, destination))
        # What was renamed, and the two lists of buckets, are sent alike: one stands for both.
        elif found.name != name and not (
            found.http == operation.http and (operation.deprecated or name == "ListDirectoryBuckets")
        ):
            mistaken.append((name, found.name))
    assert mistaken == []


def test_the_table_of_services_says_what_the_models_say() -> None:
    for service, facts in SERVICES.items():
        metadata = model_of(service).metadata
        assert facts.target == metadata.get("targetPrefix", ""), service
        assert facts.scope == metadata.get("signingName", metadata["endpointPrefix"]), service
        assert not facts.version or facts.version == metadata["apiVersion"], service


@pytest.mark.parametrize(
    ("method", "url", "operation", "parameters"),
    [
        ("GET", "/", "ListBuckets", {}),
        ("GET", "/?x-id=ListDirectoryBuckets", "ListDirectoryBuckets", {}),
        ("GET", "/bkt", "ListObjects", {"Bucket": "bkt"}),
        ("GET", "/bkt/", "ListObjects", {"Bucket": "bkt"}),
        ("GET", "/bkt?list-type=2&prefix=a", "ListObjectsV2", {"Bucket": "bkt"}),
        ("GET", "/bkt?list-type=1", "ListObjects", {"Bucket": "bkt"}),
        ("GET", "/bkt?location", "GetBucketLocation", {"Bucket": "bkt"}),
        ("GET", "/bkt/?location=", "GetBucketLocation", {"Bucket": "bkt"}),
        ("HEAD", "/bkt", "HeadBucket", {"Bucket": "bkt"}),
        ("PUT", "/bkt/a/b%20c", "PutObject", {"Bucket": "bkt", "Key": "a/b c"}),
        ("PUT", "/bkt//a", "PutObject", {"Bucket": "bkt", "Key": "/a"}),
        ("PUT", "/bkt/a/", "PutObject", {"Bucket": "bkt", "Key": "a/"}),
        ("PUT", "/bkt/..%2Fx", "PutObject", {"Bucket": "bkt", "Key": "../x"}),
        ("PUT", "/bkt/../x", "PutObject", {"Bucket": "bkt", "Key": "../x"}),
        ("PUT", "/bkt/%C3%BC", "PutObject", {"Bucket": "bkt", "Key": "ü"}),
        ("PUT", "/bkt/k?partNumber=1&uploadId=u", "UploadPart", {"Bucket": "bkt", "Key": "k"}),
        (
            "PUT",
            "/bkt/k?partNumber=1&uploadId=u&x-id=UploadPart",
            "UploadPart",
            {"Bucket": "bkt", "Key": "k"},
        ),
        ("GET", "/bkt/k?uploadId=u", "ListParts", {"Bucket": "bkt", "Key": "k"}),
        ("GET", "/bkt/acl", "GetObject", {"Bucket": "bkt", "Key": "acl"}),
        ("POST", "/bkt/k?uploads", "CreateMultipartUpload", {"Bucket": "bkt", "Key": "k"}),
        ("POST", "/bkt/k?uploadId=u", "CompleteMultipartUpload", {"Bucket": "bkt", "Key": "k"}),
        ("DELETE", "/bkt/k?uploadId=u", "AbortMultipartUpload", {"Bucket": "bkt", "Key": "k"}),
        ("DELETE", "/bkt/k?tagging", "DeleteObjectTagging", {"Bucket": "bkt", "Key": "k"}),
    ],
)
def test_s3_is_told_by_method_path_and_query(
    method: str, url: str, operation: str, parameters: dict[str, str]
) -> None:
    received = request(method, url, signed_for("s3"))
    destination = find_service(received, OWN_NAMES)
    found, values = find_operation(destination, received, model_of("s3"), b"")
    assert (found.name, values) == (operation, parameters)


def test_a_copy_is_told_from_a_put_by_its_source() -> None:
    received = request("PUT", "/bkt/k", {**signed_for("s3"), "x-amz-copy-source": "/other/k"})
    found, _ = find_operation(find_service(received, OWN_NAMES), received, model_of("s3"), b"")
    assert found.name == "CopyObject"


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("127.0.0.1", None),
        ("::1", None),
        ("localhost", None),
        ("clary.example", None),
        ("bkt.localhost", "bkt"),
        ("my.dotted.bkt.clary.example", "my.dotted.bkt"),
        ("s3.amazonaws.com", None),
        ("s3.eu-west-1.amazonaws.com", None),
        ("s3-eu-west-1.amazonaws.com", None),
        ("bkt.s3.amazonaws.com", "bkt"),
        ("bkt.s3.eu-west-1.amazonaws.com", "bkt"),
        ("my.bkt.s3-us-gov-west-1.amazonaws.com", "my.bkt"),
        ("bkt.s3.dualstack.us-east-2.amazonaws.com", "bkt"),
        ("BAD_bucket!.localhost", None),
        ("unknown.host.example", None),
        ("", None),
    ],
)
def test_a_bucket_may_stand_in_front_of_the_host(host: str, bucket: str | None) -> None:
    assert bucket_of_host(host, OWN_NAMES) == bucket


def test_virtual_host_style_names_the_bucket_and_leaves_the_path_to_the_key() -> None:
    received = request("GET", "/k?tagging", signed_for("s3"), host="bkt.s3.us-west-2.amazonaws.com")
    destination = find_service(received, OWN_NAMES)
    found, values = find_operation(destination, received, model_of("s3"), b"")
    assert (found.name, values) == ("GetObjectTagging", {"Bucket": "bkt", "Key": "k"})
    received = request("GET", "/", signed_for("s3"), host="bkt.localhost:8750")
    found, values = find_operation(find_service(received, OWN_NAMES), received, model_of("s3"), b"")
    assert (found.name, values) == ("ListObjects", {"Bucket": "bkt"})


def test_the_services_that_share_the_scope_sagemaker_are_told_by_target_and_path() -> None:
    scope = signed_for("sagemaker")
    target = {"X-Amz-Target": "SageMaker.ListModels"}
    assert find_service(request("POST", "/", scope | target), OWN_NAMES).service == "sagemaker"
    for path, service in (
        ("/endpoints/e/invocations", "sagemaker-runtime"),
        ("/BatchPutMetrics", "sagemaker-metrics"),
        ("/FeatureGroup/f", "sagemaker-featurestore-runtime"),
        ("/BatchGetRecord", "sagemaker-featurestore-runtime"),
    ):
        assert find_service(request("POST", path, scope), OWN_NAMES).service == service


def test_unsigned_requests_are_told_by_host_form_and_content() -> None:
    sts = request("POST", "/", host="sts.us-east-1.amazonaws.com")
    assert find_service(sts, OWN_NAMES).service == "sts"
    runtime = request("POST", "/endpoints/e/invocations")
    assert find_service(runtime, OWN_NAMES).service == "sagemaker-runtime"
    form = request("GET", "/?Action=ListUsers&Version=2010-05-08")
    assert find_service(form, OWN_NAMES).service == "iam"
    assert find_service(request("GET", "/bkt/key"), OWN_NAMES).service == "s3"


def test_a_presigned_url_is_told_by_the_scope_in_its_query() -> None:
    for separator in ("%2F", "%2f", "/"):
        credential = separator.join(["AKIA0", "20260101", "eu-west-1", "sts", "aws4_request"])
        received = request("GET", f"/?Action=GetCallerIdentity&X-Amz-Credential={credential}")
        assert find_service(received, OWN_NAMES).service == "sts"


@pytest.mark.parametrize(
    ("received", "named"),
    [
        (request("POST", "/", {"X-Amz-Target": "SageMaker.MakeCoffee"}), "MakeCoffee"),
        (
            request("POST", "/", {"X-Amz-Target": "DynamoDB_20120810.ListTables"}),
            "DynamoDB_20120810.ListTables",
        ),
        (request("POST", "/", {"X-Amz-Target": "nonsense"}), "nonsense"),
        (request("POST", "/", {"X-Amz-Target": "SageMaker.Bad Name!"}), "Bad Name!"),
        (request("PATCH", "/bkt/k", signed_for("s3")), "PATCH /bkt/k"),
        (request("POST", "/bkt", signed_for("s3")), "POST /bkt"),
        (request("GET", "/x", signed_for("glacier")), "glacier:GET /x"),
        (request("POST", "/", signed_for("logs")), "POST /"),
        (request("POST", "/x", {"smithy-protocol": "rpc-v2-cbor"}), "/x"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(received: HttpRequest, named: str) -> None:
    destination = find_service(received, OWN_NAMES)
    with pytest.raises(UnknownOperation) as caught:
        find_operation(destination, received, model_of(destination.service), b"")
    assert named in caught.value.message


def test_a_form_without_an_action_is_refused() -> None:
    received = request("POST", "/", signed_for("sts"))
    destination = find_service(received, OWN_NAMES)
    for body in (b"", b"Action=", b"Action=Nope&Version=2011-06-15", b"\xff\xfe"):
        with pytest.raises(UnknownOperation):
            find_operation(destination, received, model_of("sts"), body)


def test_a_path_that_is_no_utf8_is_refused() -> None:
    received = request("GET", "/bkt/%ff%fe", signed_for("s3"))
    with pytest.raises(Invalid) as caught:
        find_operation(find_service(received, OWN_NAMES), received, model_of("s3"), b"")
    assert caught.value.code == "InvalidURI"


S3 = model_of("s3")


@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"]),
    st.text(st.characters(max_codepoint=255), max_size=40),
    st.text(st.characters(max_codepoint=255), max_size=40),
    st.text(st.characters(max_codepoint=255), max_size=30),
)
def test_any_request_finds_an_operation_or_a_refusal(method: str, path: str, query: str, host: str) -> None:
    received = HttpRequest(method, "/" + path, query, Headers([("Host", host)]), nothing())
    destination = find_service(received, OWN_NAMES)
    if destination.service == "s3":
        try:
            operation, parameters = find_operation(destination, received, S3, b"")
            assert operation.name in S3.operation_names
            assert all(isinstance(value, str) for value in parameters.values())
        except (Invalid, UnknownOperation):
            pass
