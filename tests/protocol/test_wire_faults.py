"""What a fault is called, service by service."""

from __future__ import annotations

import pytest

from clary.faults import (
    AccessDenied,
    Conflict,
    Fault,
    Internal,
    InUse,
    Invalid,
    LimitExceeded,
    NotFound,
    Unavailable,
    UnknownOperation,
)
from clary.protocol.faults import to_wire
from clary.protocol.models import SERVED, ServiceModels
from clary.protocol.validation import ConstraintViolation, validate

MODELS = ServiceModels()


@pytest.mark.parametrize(
    ("service", "operation", "fault", "code", "status"),
    [
        ("sagemaker", "DescribeTrainingJob", NotFound, "ResourceNotFound", 400),
        ("sagemaker", "DescribeModel", NotFound, "ValidationException", 400),
        ("sagemaker", "DescribeEndpoint", NotFound, "ValidationException", 400),
        ("sagemaker", "DescribeEndpointConfig", NotFound, "ValidationException", 400),
        ("sagemaker", "CreateTrainingJob", InUse, "ResourceInUse", 400),
        ("sagemaker", "CreateTrainingJob", LimitExceeded, "ResourceLimitExceeded", 400),
        ("sagemaker", "CreateTrainingJob", Invalid, "ValidationException", 400),
        ("sagemaker", "CreateModel", InUse, "ValidationException", 400),
        ("sagemaker", "DeleteModel", Conflict, "ValidationException", 400),
        ("sagemaker", "UpdateTrial", Conflict, "ConflictException", 400),
        ("sagemaker", "DescribeModel", AccessDenied, "AccessDeniedException", 400),
        ("sagemaker", "DescribeModel", Internal, "InternalFailure", 500),
        ("sagemaker", None, UnknownOperation, "UnknownOperationException", 400),
        ("sagemaker", None, Unavailable, "ServiceUnavailableException", 503),
        ("sagemaker-runtime", "InvokeEndpoint", NotFound, "ValidationError", 400),
        ("sagemaker-runtime", "InvokeEndpoint", Invalid, "ValidationError", 400),
        ("sagemaker-runtime", "InvokeEndpoint", Unavailable, "ServiceUnavailable", 503),
        ("sagemaker-runtime", "InvokeEndpoint", Internal, "InternalFailure", 500),
        ("sagemaker-runtime", None, UnknownOperation, "UnknownOperationException", 404),
        ("application-autoscaling", "DeregisterScalableTarget", NotFound, "ObjectNotFoundException", 400),
        ("application-autoscaling", "RegisterScalableTarget", NotFound, "ValidationException", 400),
        ("application-autoscaling", "PutScalingPolicy", LimitExceeded, "LimitExceededException", 400),
        ("application-autoscaling", "PutScalingPolicy", Conflict, "ConcurrentUpdateException", 400),
        ("logs", "GetLogEvents", NotFound, "ResourceNotFoundException", 400),
        ("logs", "CreateLogGroup", InUse, "ResourceAlreadyExistsException", 400),
        ("logs", "CreateLogGroup", Conflict, "OperationAbortedException", 400),
        ("logs", "CreateLogGroup", Invalid, "InvalidParameterException", 400),
        ("cloudwatch", "SetAlarmState", NotFound, "ResourceNotFound", 404),
        ("cloudwatch", "PutMetricData", Invalid, "InvalidParameterValue", 400),
        ("cloudwatch", "PutMetricAlarm", LimitExceeded, "LimitExceeded", 400),
        ("s3", "GetObject", NotFound, "NoSuchKey", 404),
        ("s3", "ListObjectsV2", NotFound, "NoSuchBucket", 404),
        ("s3", "CreateBucket", InUse, "BucketAlreadyExists", 409),
        ("s3", "PutObject", Invalid, "InvalidArgument", 400),
        ("s3", "PutObject", LimitExceeded, "EntityTooLarge", 400),
        ("s3", "PutObject", AccessDenied, "AccessDenied", 403),
        ("s3", None, UnknownOperation, "NotImplemented", 501),
        ("s3", None, Internal, "InternalError", 500),
        ("iam", "GetRole", NotFound, "NoSuchEntity", 404),
        ("iam", "CreateRole", InUse, "EntityAlreadyExists", 409),
        ("iam", "DeleteRole", Conflict, "DeleteConflict", 409),
        ("iam", "CreateRole", LimitExceeded, "LimitExceeded", 409),
        ("iam", "CreateRole", Invalid, "InvalidInput", 400),
        ("sts", "AssumeRole", Invalid, "ValidationError", 400),
        ("sts", "AssumeRole", AccessDenied, "AccessDenied", 403),
        ("sts", None, UnknownOperation, "InvalidAction", 400),
        ("ecr", "DescribeRepositories", NotFound, "RepositoryNotFoundException", 400),
        ("events", "DescribeRule", NotFound, "ResourceNotFoundException", 400),
        ("sqs", "GetQueueUrl", NotFound, "AWS.SimpleQueueService.NonExistentQueue", 400),
        ("sns", "Publish", NotFound, "NotFound", 404),
        ("kms", "DescribeKey", NotFound, "NotFoundException", 400),
    ],
)
def test_a_fault_is_called_what_the_service_calls_it(
    service: str, operation: str | None, fault: type[Fault], code: str, status: int
) -> None:
    model = MODELS[service]
    wire = to_wire(fault("words"), model, model.operation_model(operation) if operation else None)
    assert (wire.code, wire.status, wire.message) == (code, status, "words")


@pytest.mark.parametrize(
    ("service", "operation", "members", "code"),
    [
        ("sagemaker", "CreateModel", {}, "ValidationException"),
        ("sagemaker-runtime", "InvokeEndpoint", {}, "ValidationError"),
        ("logs", "CreateLogGroup", {"logGroupName": ""}, "InvalidParameterException"),
        ("cloudwatch", "PutMetricData", {"Namespace": ""}, "ValidationError"),
        ("iam", "GetRole", {}, "ValidationError"),
        ("sts", "AssumeRole", {}, "ValidationError"),
        ("sns", "CreateTopic", {}, "InvalidParameter"),
        ("s3", "GetObject", {"Bucket": "b"}, "InvalidArgument"),
        (
            "s3",
            "PutBucketVersioning",
            {"Bucket": "b", "VersioningConfiguration": {"Status": "On"}},
            "MalformedXML",
        ),
    ],
)
def test_a_broken_constraint_is_called_what_the_service_calls_it(
    service: str, operation: str, members: dict[str, object], code: str
) -> None:
    model = MODELS[service].operation_model(operation)
    with pytest.raises(ConstraintViolation) as caught:
        validate(model.input_shape, members)
    wire = to_wire(caught.value, MODELS[service], model)
    assert (wire.code, wire.status) == (code, 400)


def test_the_code_that_a_place_names_wins() -> None:
    model = MODELS["s3"]
    fault = NotFound("gone", code="NoSuchUpload")
    assert to_wire(fault, model, model.operation_model("GetObject")).code == "NoSuchUpload"
    unmodelled = Invalid("too late", code="PreconditionFailed", fields={"Condition": "If-Match"})
    wire = to_wire(unmodelled, model, model.operation_model("GetObject"))
    assert (wire.code, wire.status, wire.fields) == ("PreconditionFailed", 412, {"Condition": "If-Match"})


def test_the_status_that_a_place_names_wins() -> None:
    fault = NotFound("gone", code="NoSuchKey", status=410)
    assert to_wire(fault, MODELS["s3"], None).status == 410


@pytest.mark.parametrize("given", ["ResourceNotFound", "DashboardNotFoundError"])
def test_an_error_is_found_by_its_code_and_by_its_name(given: str) -> None:
    model = MODELS["cloudwatch"]
    wire = to_wire(NotFound("gone", code=given), model, model.operation_model("GetDashboard"))
    assert (wire.code, wire.shape_name, wire.status) == ("ResourceNotFound", "DashboardNotFoundError", 404)


def test_fields_that_are_texts_are_made_texts() -> None:
    fields = {"OriginalStatusCode": 500, "OriginalMessage": ValueError("boom"), "LogStreamArn": None}
    wire = to_wire(
        Invalid("bad", code="ModelError", fields=fields),
        MODELS["sagemaker-runtime"],
        MODELS["sagemaker-runtime"].operation_model("InvokeEndpoint"),
    )
    assert wire.fields == {"OriginalStatusCode": 500, "OriginalMessage": "boom"}
    assert (wire.status, wire.kind) == (424, "Sender")


@pytest.mark.parametrize("service", SERVED)
def test_every_fault_has_a_name_in_every_operation(service: str) -> None:
    model = MODELS[service]
    for name in model.operation_names:
        operation = model.operation_model(name)
        for fault in (NotFound, InUse, Invalid, LimitExceeded, Conflict, AccessDenied, Unavailable, Internal):
            wire = to_wire(fault("words"), model, operation)
            server = fault in (Unavailable, Internal)
            assert wire.code
            assert (wire.status >= 500) == server, (name, wire)
            assert wire.kind == ("Receiver" if server else "Sender")
