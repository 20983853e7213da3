"""From a `Fault` to the error that clients of a service know.

The place that raises may name AWS's code itself. Where it does not, the name is one that the operation's
model lists for this class of fault; where the model lists none, it is what the service says all the same:
many errors, ``ValidationException`` of sagemaker first, stand in no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from botocore.model import OperationModel, ServiceModel, StructureShape

from clary import faults
from clary.faults import Fault
from clary.protocol.validation import ConstraintViolation

Dialect: TypeAlias = Literal["json", "rest-json", "query", "s3"]


@dataclass(frozen=True)
class WireFault:
    """An error as it goes out.

    ``code`` is what clients compare. ``shape`` is its shape, where a model has one: its name differs from the
    code in the services that speak, or once spoke, Query. ``fields`` are further members of the shape; S3
    sends those that it does not know as well.
    """

    code: str
    message: str
    status: int
    fields: Mapping[str, object] = field(default_factory=dict)
    shape: StructureShape | None = None

    @property
    def shape_name(self) -> str:
        """What JSON and CBOR call the error."""
        return self.code if self.shape is None else str(self.shape.name)

    @property
    def message_member(self) -> str | None:
        """The member of the shape that is the message, if it has one."""
        members = () if self.shape is None else self.shape.members
        return next((name for name in members if name.lower() == "message"), None)

    @property
    def kind(self) -> Literal["Sender", "Receiver"]:
        """Whose fault it is."""
        return "Sender" if self.status < 500 else "Receiver"


# What the models call each class of fault, by shape name or code, in the order of preference.
_INVALID = (
    "ValidationException",
    "ValidationError",
    "InvalidParameterException",
    "InvalidParameterValueException",
    "InvalidInputException",
    "InvalidAttributeValue",
)
_MODELLED: tuple[tuple[type[Fault], tuple[str, ...]], ...] = (
    (
        faults.NotFound,
        (
            "ResourceNotFound",
            "ResourceNotFoundException",
            "NoSuchEntityException",
            "ObjectNotFoundException",
            "NotFoundException",
            "RepositoryNotFoundException",
            "QueueDoesNotExist",
            "DashboardNotFoundError",
            "NoSuchKey",
            "NoSuchUpload",
            "NoSuchBucket",
            *_INVALID,
        ),
    ),
    (
        faults.InUse,
        (
            "ResourceInUse",
            "ResourceAlreadyExists",
            "ResourceAlreadyExistsException",
            "ResourceInUseException",
            "EntityAlreadyExistsException",
            "AlreadyExistsException",
            "RepositoryAlreadyExistsException",
            "RepositoryNotEmptyException",
            "QueueNameExists",
            "BucketAlreadyExists",
            "DeleteConflictException",
            "ConflictException",
            "ConcurrentUpdateException",
            "OperationAbortedException",
            *_INVALID,
        ),
    ),
    (
        faults.LimitExceeded,
        (
            "ResourceLimitExceeded",
            "LimitExceededException",
            "LimitExceededFault",
            "ServiceQuotaExceededException",
            "OverLimit",
            "TopicLimitExceededException",
            "SubscriptionLimitExceededException",
            "TooManyTagsException",
            "TagLimitExceededException",
            *_INVALID,
        ),
    ),
    (
        faults.Conflict,
        (
            "ConflictException",
            "ConcurrentUpdateException",
            "ConcurrentModificationException",
            "ConcurrentAccessException",
            "OperationAbortedException",
            "ResourceConflict",
            "ResourceInUse",
            "ResourceInUseException",
            "DeleteConflictException",
            "InvalidOperationException",
            "InvalidStateException",
            "KMSInvalidStateException",
            *_INVALID,
        ),
    ),
    (faults.Invalid, _INVALID),
    (faults.AccessDenied, ("AccessDeniedException", "AuthorizationErrorException", "AccessDenied")),
    (faults.UnknownOperation, ()),
    (faults.Unavailable, ("ServiceUnavailable", "ServiceUnavailableException", "ServiceFailureException")),
    (
        faults.Internal,
        (
            "InternalFailure",
            "InternalServerException",
            "InternalServiceException",
            "InternalServiceFault",
            "InternalErrorException",
            "InternalException",
            "KMSInternalException",
            "ServiceFailureException",
            "ServerException",
        ),
    ),
)

# What a service says where the operation models nothing of the kind, and what it prefers where it models
# several things. Services that are not here say what their dialect does.
_OF_SERVICE: Mapping[str, Mapping[type[Fault], str]] = {
    "sagemaker": {faults.LimitExceeded: "ResourceLimitExceeded"},
    "sagemaker-runtime": {
        faults.NotFound: "ValidationError",
        faults.InUse: "ValidationError",
        faults.Conflict: "ValidationError",
        faults.Invalid: "ValidationError",
    },
    "application-autoscaling": {
        faults.NotFound: "ObjectNotFoundException",
        faults.InUse: "ConcurrentUpdateException",
        faults.Conflict: "ConcurrentUpdateException",
        faults.LimitExceeded: "LimitExceededException",
    },
    "cloudwatch": {
        faults.NotFound: "ResourceNotFound",
        faults.InUse: "ResourceConflict",
        faults.Conflict: "ResourceConflict",
        faults.Invalid: "InvalidParameterValue",
        faults.LimitExceeded: "LimitExceeded",
    },
    "logs": {
        faults.NotFound: "ResourceNotFoundException",
        faults.InUse: "ResourceAlreadyExistsException",
        faults.Conflict: "OperationAbortedException",
        faults.Invalid: "InvalidParameterException",
        faults.LimitExceeded: "LimitExceededException",
    },
    "iam": {
        faults.NotFound: "NoSuchEntity",
        faults.InUse: "EntityAlreadyExists",
        faults.Conflict: "DeleteConflict",
        faults.Invalid: "InvalidInput",
        faults.LimitExceeded: "LimitExceeded",
    },
    "ecr": {
        faults.NotFound: "RepositoryNotFoundException",
        faults.InUse: "RepositoryAlreadyExistsException",
        faults.Invalid: "InvalidParameterException",
        faults.LimitExceeded: "LimitExceededException",
    },
    "events": {
        faults.NotFound: "ResourceNotFoundException",
        faults.InUse: "ResourceAlreadyExistsException",
        faults.Conflict: "ConcurrentModificationException",
        faults.LimitExceeded: "LimitExceededException",
    },
    "sqs": {
        faults.NotFound: "QueueDoesNotExist",
        faults.InUse: "QueueNameExists",
        faults.Invalid: "InvalidParameterValue",
        faults.LimitExceeded: "OverLimit",
    },
    "sns": {
        faults.NotFound: "NotFound",
        faults.Invalid: "InvalidParameter",
        faults.AccessDenied: "AuthorizationError",
    },
    "kms": {
        faults.NotFound: "NotFoundException",
        faults.InUse: "AlreadyExistsException",
        faults.Conflict: "KMSInvalidStateException",
        faults.LimitExceeded: "LimitExceededException",
    },
}
_OF_DIALECT: Mapping[Dialect, Mapping[type[Fault], str]] = {
    "json": {
        faults.AccessDenied: "AccessDeniedException",
        faults.UnknownOperation: "UnknownOperationException",
        faults.Unavailable: "ServiceUnavailableException",
        faults.Internal: "InternalFailure",
    },
    "query": {
        faults.NotFound: "ValidationError",
        faults.InUse: "ValidationError",
        faults.Conflict: "ValidationError",
        faults.Invalid: "ValidationError",
        faults.LimitExceeded: "LimitExceeded",
        faults.AccessDenied: "AccessDenied",
        faults.UnknownOperation: "InvalidAction",
        faults.Unavailable: "ServiceUnavailable",
        faults.Internal: "InternalFailure",
    },
    "s3": {
        faults.NotFound: "NoSuchKey",
        faults.InUse: "BucketAlreadyExists",
        faults.Conflict: "OperationAborted",
        faults.Invalid: "InvalidArgument",
        faults.LimitExceeded: "EntityTooLarge",
        faults.AccessDenied: "AccessDenied",
        faults.UnknownOperation: "NotImplemented",
        faults.Unavailable: "SlowDown",
        faults.Internal: "InternalError",
    },
}

# The HTTP status where neither the fault nor the model says one.
_STATUSES: Mapping[type[Fault], int] = {
    faults.NotFound: 404,
    faults.InUse: 409,
    faults.Conflict: 409,
    faults.Invalid: 400,
    faults.LimitExceeded: 400,
    faults.AccessDenied: 403,
    faults.UnknownOperation: 404,
    faults.Unavailable: 503,
    faults.Internal: 500,
}
_STATUSES_BY_CODE: Mapping[str, int] = {
    "InvalidAction": 400,
    "InvalidRange": 416,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "NotImplemented": 501,
    "NotModified": 304,
    "PreconditionFailed": 412,
    "ValidationError": 400,
    "ValidationException": 400,
}


def to_wire(fault: Fault, service: ServiceModel, operation: OperationModel | None) -> WireFault:
    """The error that a client of ``service`` gets for ``fault``; ``operation`` if it is known yet."""
    dialect = _dialect(service)
    kind = next(kind for kind, _ in _MODELLED if isinstance(fault, kind))
    modelled = list(operation.error_shapes) if operation is not None else []
    code = fault.code or _constraint_code(fault, dialect, service, operation)
    if code is not None:
        shape = _named(modelled, code) or _of_service(service, code)
    else:
        usual = _usual_code(kind, dialect, service.service_name)
        shape = next((found for name in _names(kind, usual) if (found := _named(modelled, name))), None)
        if shape is None:
            code, shape = usual, _of_service(service, usual)
    if shape is not None:
        code = _code(shape)
    assert code is not None
    status = fault.status or _modelled_status(shape) or _status(kind, dialect, code)
    return WireFault(code, fault.message, status, _fitting(fault.fields, shape), shape)


def _dialect(service: ServiceModel) -> Dialect:
    protocol = service.metadata["protocol"]
    if protocol == "rest-xml":
        return "s3"
    if "xmlNamespace" in service.metadata:
        return "query"  # cloudwatch too, whose codes are Query's in all its protocols
    return "rest-json" if protocol == "rest-json" else "json"


def _constraint_code(
    fault: Fault, dialect: Dialect, service: ServiceModel, operation: OperationModel | None
) -> str | None:
    """The code for members that break their shapes, where that is one of its own."""
    if not isinstance(fault, ConstraintViolation):
        return None
    if dialect == "query":
        return "ValidationError" if service.service_name != "sns" else None
    if dialect == "s3" and operation is not None and operation.input_shape is not None:
        payload = operation.input_shape.serialization.get("payload")
        if payload in fault.members:
            return "MalformedXML"
    return None


def _usual_code(kind: type[Fault], dialect: Dialect, service: str) -> str:
    """What the service calls this class of fault where the operation's model does not say."""
    own = _OF_SERVICE.get(service, {}).get(kind)
    return own or _OF_DIALECT["json" if dialect == "rest-json" else dialect].get(kind, "ValidationException")


def _names(kind: type[Fault], usual: str) -> Iterator[str]:
    yield usual
    yield from next(names for of_kind, names in _MODELLED if of_kind is kind)


def _code(shape: StructureShape) -> str:
    return str(shape.metadata.get("error", {}).get("code", shape.name))


def _named(shapes: list[StructureShape], name: str) -> StructureShape | None:
    return next((shape for shape in shapes if name in (shape.name, _code(shape))), None)


def _of_service(service: ServiceModel, name: str) -> StructureShape | None:
    """The error of another operation. Its code differs from its name in the Query services only."""
    if name in service.shape_names:
        shape = service.shape_for(name)
        return shape if shape.metadata.get("exception") else None
    return service.shape_for_error_code(name) if "xmlNamespace" in service.metadata else None


def _modelled_status(shape: StructureShape | None) -> int | None:
    if shape is None:
        return None
    status = shape.metadata.get("error", {}).get("httpStatusCode")
    return None if status is None else int(status)


def _status(kind: type[Fault], dialect: Dialect, code: str) -> int:
    status = _STATUSES_BY_CODE.get(code) or _STATUSES[kind]
    return 400 if dialect == "json" and status < 500 else status


def _fitting(fields: Mapping[str, object], shape: StructureShape | None) -> Mapping[str, object]:
    """The fields without ``None``, those that the shape has as text made text."""
    texts = (
        {name for name, member in shape.members.items() if member.type_name == "string"} if shape else set()
    )
    return {
        name: str(value) if name in texts else value for name, value in fields.items() if value is not None
    }
