"""From a `Fault` to the error that a client of the service knows.

The wire name is one that the operation's model lists, where it lists one for this class of fault; a place
that raises may name a sharper code itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from botocore.model import OperationModel, ServiceModel, StructureShape

from clary import faults
from clary.faults import Fault

# For each class, codes in the order of preference, the code where the operation lists none, and the status.
_WORDS: tuple[tuple[type[Fault], tuple[str, ...], str, int], ...] = (
    (
        faults.NotFound,
        (
            "ResourceNotFound",
            "ResourceNotFoundException",
            "ResourceNotFoundFault",
            "NoSuchEntity",
            "NotFoundException",
            "NotFound",
            "ObjectNotFoundException",
            "QueueDoesNotExist",
            "RepositoryNotFoundException",
        ),
        "ValidationException",
        400,
    ),
    (
        faults.InUse,
        (
            "ResourceInUse",
            "ResourceInUseException",
            "ResourceAlreadyExistsException",
            "EntityAlreadyExists",
            "AlreadyExistsException",
            "RepositoryAlreadyExistsException",
        ),
        "ValidationException",
        400,
    ),
    (
        faults.Invalid,
        (
            "ValidationException",
            "ValidationError",
            "InvalidParameterException",
            "InvalidParameterValue",
            "InvalidInput",
        ),
        "ValidationException",
        400,
    ),
    (
        faults.LimitExceeded,
        ("ResourceLimitExceeded", "LimitExceededException", "LimitExceededFault", "LimitExceeded"),
        "LimitExceededException",
        400,
    ),
    (
        faults.Conflict,
        (
            "ConflictException",
            "ConcurrentUpdateException",
            "ConcurrentModificationException",
            "OperationAbortedException",
            "DeleteConflict",
        ),
        "ConflictException",
        409,
    ),
    (faults.AccessDenied, ("AccessDeniedException",), "AccessDeniedException", 403),
    (faults.UnknownOperation, (), "UnknownOperationException", 400),
    (
        faults.Unavailable,
        ("ServiceUnavailable", "ServiceUnavailableException", "InternalDependencyException"),
        "ServiceUnavailable",
        503,
    ),
    (
        faults.Internal,
        ("InternalFailure", "InternalServiceError", "InternalServiceFault", "InternalServiceException"),
        "InternalFailure",
        500,
    ),
)
# What services that speak other dialects say where nothing is listed.
_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "s3": {
        "ValidationException": "InvalidArgument",
        "AccessDeniedException": "AccessDenied",
        "UnknownOperationException": "NotImplemented",
        "InternalFailure": "InternalError",
        "LimitExceededException": "InvalidRequest",
        "ConflictException": "OperationAborted",
    },
    "query": {
        "ValidationException": "ValidationError",
        "AccessDeniedException": "AccessDenied",
        "UnknownOperationException": "InvalidAction",
    },
}
_STATUSES = {"NotImplemented": 501}


@dataclass(frozen=True)
class WireFault:
    """An error as it goes out.

    ``code`` is what clients compare; ``shape_name`` is the modelled shape's name, which differs in a few
    Query services. ``shape`` is the modelled shape, if there is one. ``kind`` is ``Sender`` or ``Receiver``.
    """

    code: str
    message: str
    status: int
    fields: Mapping[str, object] = field(default_factory=dict)
    shape: StructureShape | None = None

    @property
    def shape_name(self) -> str:
        return str(self.shape.name) if self.shape is not None else self.code

    @property
    def kind(self) -> str:
        return "Sender" if self.status < 500 else "Receiver"


def to_wire(fault: Fault, service: ServiceModel, operation: OperationModel | None) -> WireFault:
    """The error that clients of ``service`` get for ``fault``."""
    modelled = {_code(shape): shape for shape in operation.error_shapes} if operation is not None else {}
    _, preferred, default, status = next(row for row in _WORDS if isinstance(fault, row[0]))
    code = fault.code
    if code is None:
        named = {shape.name: code for code, shape in modelled.items()}
        code = next(
            (
                wanted if wanted in modelled else named[wanted]
                for wanted in preferred
                if wanted in modelled or wanted in named
            ),
            None,
        )
    if code is None:
        protocol = service.metadata.get("protocol")
        dialect = "s3" if protocol == "rest-xml" else "query" if protocol in ("query", "ec2") else ""
        code = _DEFAULTS.get(dialect, {}).get(default, default)
        status = _STATUSES.get(code, status)
    shape = modelled.get(code) or _service_shape(service, code)
    if shape is not None:
        status = shape.metadata.get("error", {}).get("httpStatusCode", status)
    return WireFault(code, fault.message, fault.status or status, fault.fields, shape)


def _code(shape: StructureShape) -> str:
    return str(shape.metadata.get("error", {}).get("code", shape.name))


def _service_shape(service: ServiceModel, code: str) -> StructureShape | None:
    return next((shape for shape in service.error_shapes if _code(shape) == code), None)
