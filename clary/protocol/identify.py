"""Which service a request is for, and which of its operations.

One port serves every service, so the answer is pieced together from what each protocol says: the target
header, the CBOR path, the credential scope, the Host header, the path, the ``Action`` of a form. Finding the
service needs no model (they load when first used); finding the operation needs the service's own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, unquote_to_bytes

from botocore.model import OperationModel, ServiceModel

from clary.faults import Invalid, UnknownOperation
from clary.protocol.refusals import Dialect, dialect_of
from clary.protocol.signature import glimpse_scope
from clary.protocol.wire import HttpRequest

MAX_FORM_FIELDS = 10_000
MAX_QUERY_FIELDS = 1_000


@dataclass(frozen=True)
class ServiceFacts:
    """What tells a service's requests from others'. ``protocol`` is its native one, in botocore's words."""

    protocol: str
    scope: str
    target: str = ""  # before the dot in X-Amz-Target, and in the path of CBOR requests
    version: str = ""  # the Version of a form, where forms are spoken
    hosts: tuple[str, ...] = ()  # how AWS's host names begin, where that is not the scope


SERVICES: Mapping[str, ServiceFacts] = {
    "sagemaker": ServiceFacts("json", "sagemaker", "SageMaker", hosts=("api.sagemaker",)),
    "sagemaker-runtime": ServiceFacts("rest-json", "sagemaker", hosts=("runtime.sagemaker",)),
    "sagemaker-metrics": ServiceFacts("rest-json", "sagemaker", hosts=("metrics.sagemaker",)),
    "sagemaker-featurestore-runtime": ServiceFacts(
        "rest-json", "sagemaker", hosts=("featurestore-runtime.sagemaker",)
    ),
    "application-autoscaling": ServiceFacts("json", "application-autoscaling", "AnyScaleFrontendService"),
    "cloudwatch": ServiceFacts("json", "monitoring", "GraniteServiceVersion20100801", "2010-08-01"),
    "logs": ServiceFacts("json", "logs", "Logs_20140328"),
    "s3": ServiceFacts("rest-xml", "s3"),
    "sts": ServiceFacts("query", "sts", version="2011-06-15"),
    "iam": ServiceFacts("query", "iam", version="2010-05-08"),
    "ecr": ServiceFacts("json", "ecr", "AmazonEC2ContainerRegistry_V20150921", hosts=("api.ecr",)),
    "events": ServiceFacts("json", "events", "AWSEvents"),
    "sqs": ServiceFacts("json", "sqs", "AmazonSQS", "2012-11-05"),
    "sns": ServiceFacts("query", "sns", version="2010-03-31"),
    "kms": ServiceFacts("json", "kms", "TrentService"),
    "ec2": ServiceFacts("ec2", "ec2", version="2016-11-15"),
    "clary": ServiceFacts("json", "clary", "Clary"),
}

# Services that share a scope and speak by path, by how their paths begin.
_SAGEMAKER_PATHS = (
    ("/endpoints/", "sagemaker-runtime"),
    ("/BatchPutMetrics", "sagemaker-metrics"),
    ("/BatchGetMetrics", "sagemaker-metrics"),
    ("/BatchGetRecord", "sagemaker-featurestore-runtime"),
    ("/BatchWriteRecord", "sagemaker-featurestore-runtime"),
    ("/FeatureGroup/", "sagemaker-featurestore-runtime"),
)
_BY_TARGET = {facts.target: name for name, facts in SERVICES.items() if facts.target}
_BY_VERSION = {facts.version: name for name, facts in SERVICES.items() if facts.version}
_BY_SCOPE = {facts.scope: name for name, facts in reversed(list(SERVICES.items()))}
_BY_HOST = {host: name for name, facts in SERVICES.items() for host in facts.hosts or (facts.scope,)}

_CBOR_PATH = re.compile(r"/service/([^/]+)/operation/([^/]+)\Z")
_AWS_HOST = re.compile(r"(?P<labels>.+?)\.amazonaws\.com(?:\.cn)?\Z")
_S3_HOST = re.compile(
    r"(?:(?P<bucket>.+)\.)?s3(?:-website|-fips|-external-1|-accelerate)?"
    r"(?:[.-](?:dualstack\.)?[a-z]{2}(?:-[a-z]+)+-\d)?\.amazonaws\.com(?:\.cn)?\Z"
)
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")
_VERSION_IN_QUERY = re.compile(r"(?:^|&)Version=(\d{4}-\d\d-\d\d)(?:&|\Z)")
_OPERATION_NAME = re.compile(r"[A-Za-z0-9_]{1,128}\Z")


@dataclass(frozen=True)
class Destination:
    """The service a request is for and how it is spoken to.

    ``named`` is the operation's name where the head of the request gives it. ``bucket`` is the bucket that
    the Host header names. ``known`` is false where only the manner of the refusal could be guessed.
    """

    service: str
    protocol: str
    named: str | None = None
    bucket: str | None = None
    known: bool = True

    @property
    def dialect(self) -> Dialect:
        return dialect_of(self.protocol)

    @property
    def scope(self) -> str:
        """The service name that signatures are made for."""
        return SERVICES[self.service].scope

    @property
    def form(self) -> bool:
        """Whether the operation is named inside the body."""
        return self.protocol in ("query", "ec2")


def find_service(request: HttpRequest, own_names: Collection[str]) -> Destination:
    """The service that ``request`` is for. ``own_names`` are the host names of this server, without port."""
    target = request.headers.get("x-amz-target")
    if target is not None:
        prefix, _, named = target.rpartition(".")
        service = _BY_TARGET.get(prefix.rpartition(".")[2] or prefix)
        if service is None:
            return Destination("sagemaker", "json", target, known=False)
        return Destination(service, "json", named)
    if request.headers.get("smithy-protocol") == "rpc-v2-cbor":
        found = _CBOR_PATH.search(request.raw_path)
        service = _BY_TARGET.get(found[1]) if found else None
        if found is None or service is None:
            return Destination("cloudwatch", "smithy-rpc-v2-cbor", request.raw_path, known=False)
        return Destination(service, "smithy-rpc-v2-cbor", found[2])
    host = host_name(request)
    scope = glimpse_scope(request)
    if scope is not None:
        service = _BY_SCOPE.get(scope.service)
        if service is None:
            return _guess_refusal(request, scope.service)
    else:
        service = _unsigned_service(request, host)
    if service == "s3":
        return Destination("s3", "rest-xml", bucket=bucket_of_host(host, own_names))
    if service == "sagemaker":
        for start, name in _SAGEMAKER_PATHS:
            if request.raw_path.startswith(start):
                return Destination(name, "rest-json")
    facts = SERVICES[service]
    if facts.version and facts.protocol == "json" and _speaks_form(request):
        return Destination(service, "query")
    return Destination(service, facts.protocol)


def host_name(request: HttpRequest) -> str:
    """The Host header in lower case, without the port."""
    host = (request.headers.get("host") or "").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def bucket_of_host(host: str, own_names: Collection[str]) -> str | None:
    """The bucket that ``host`` names in front of a name of this server or of S3 itself; else ``None``."""
    if not host or host in own_names or _is_address(host):
        return None
    found = _S3_HOST.match(host)
    if found:
        bucket = found["bucket"]
        return bucket if bucket and _BUCKET_NAME.match(bucket) else None
    for name in own_names:
        bucket = host.removesuffix(f".{name}")
        if bucket != host and _BUCKET_NAME.match(bucket) and not _is_address(name):
            return bucket
    return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _speaks_form(request: HttpRequest) -> bool:
    content_type = request.headers.get("content-type") or ""
    return content_type.startswith("application/x-www-form-urlencoded") or "Action=" in request.query


def _unsigned_service(request: HttpRequest, host: str) -> str:
    found = _AWS_HOST.match(host)
    if found:
        labels = found["labels"].split(".")
        for count in (2, 1):
            name = _BY_HOST.get(".".join(labels[:count]))
            if name:
                return name
    if request.method == "POST" and request.raw_path.startswith("/endpoints/"):
        return "sagemaker"
    if _speaks_form(request):
        found = _VERSION_IN_QUERY.search(request.query)
        return _BY_VERSION.get(found[1], "sts") if found else "sts"
    content_type = request.headers.get("content-type") or ""
    return "sagemaker" if content_type.startswith("application/x-amz-json") else "s3"


def _guess_refusal(request: HttpRequest, scope: str) -> Destination:
    """How to refuse a request for a service that Clary has not heard of, in words its client understands."""
    named = f"{scope}:{request.method} {request.raw_path}"
    if _speaks_form(request):
        return Destination("sts", "query", named, known=False)
    return Destination("sagemaker", "json", named, known=False)


def _fields(text: str) -> dict[str, str]:
    """The first value of each field of a query or form, decoded. Raises `Invalid` if there are too many."""
    try:
        parsed = parse_qs(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        raise Invalid(f"The request has more than {MAX_FORM_FIELDS} fields.") from None
    return {name: values[0] for name, values in parsed.items()}


def unknown_operation(destination: Destination, named: str) -> UnknownOperation:
    """The refusal of an operation that does not exist or is not offered."""
    shown = named if len(named) <= 200 else named[:200] + "..."
    service = destination.service if destination.known else "any service here"
    return UnknownOperation(f"The operation {shown} of {service} does not exist or is not offered by Clary.")


def find_operation(
    destination: Destination, request: HttpRequest, model: ServiceModel, form: bytes
) -> tuple[OperationModel, dict[str, str]]:
    """The operation and its path parameters, percent-decoded.

    ``form`` is the body where the destination says that the operation is named there. Raises
    `UnknownOperation`, or `Invalid` for a path that is no UTF-8.
    """
    if not destination.known:
        raise unknown_operation(destination, destination.named or request.raw_path)
    named = destination.named
    if destination.form:
        fields = _fields(request.query) | _fields(form.decode("utf-8", "replace"))
        named = fields.get("Action")
        if not named:
            raise unknown_operation(destination, "(the request has no Action)")
    if named is None and destination.protocol in ("rest-json", "rest-xml"):
        return _router(model).find(destination, request)
    if named is None or not _OPERATION_NAME.match(named) or named not in model.operation_names:
        raise unknown_operation(destination, named or f"{request.method} {request.raw_path}")
    return model.operation_model(named), {}


@dataclass(frozen=True)
class _Route:
    """One operation that a path may mean, and what the request must have besides."""

    operation: str
    literals: tuple[tuple[str, str | None], ...]  # query parameters the template spells out
    query: tuple[str, ...]  # required members in the query
    headers: tuple[str, ...]  # required members in headers
    deprecated: bool

    @property
    def rank(self) -> tuple[int, bool, str]:
        weight = len(self.literals) + len(self.query) + len(self.headers)
        return -weight, self.deprecated, self.operation

    def spelled_out(self, fields: Mapping[str, str]) -> bool:
        return all(
            name in fields and (value is None or fields[name] == value) for name, value in self.literals
        )

    def complete(self, fields: Mapping[str, str], request: HttpRequest) -> bool:
        return all(name in fields for name in self.query) and all(
            name in request.headers for name in self.headers
        )


class _Router:
    """The paths of one REST service, the most literal first."""

    def __init__(self, model: ServiceModel) -> None:
        self._model = model
        routes: dict[tuple[str, str], list[_Route]] = {}
        for name in model.operation_names:
            operation = model.operation_model(name)
            path, _, query = operation.http["requestUri"].partition("?")
            key = (operation.http["method"], path)
            routes.setdefault(key, []).append(_route(operation, query))
        self._paths = [
            (method, _path_pattern(path), _parameter_names(path), sorted(found, key=lambda r: r.rank))
            for (method, path), found in sorted(routes.items(), key=lambda item: _literal_rank(item[0][1]))
        ]

    def find(self, destination: Destination, request: HttpRequest) -> tuple[OperationModel, dict[str, str]]:
        path = request.raw_path or "/"
        if destination.bucket is not None:
            path = f"/{destination.bucket}{path}"
        fields = _fields(request.query)
        for method, pattern, names, routes in self._paths:
            if method != request.method:
                continue
            found = pattern.match(path)
            if found is None:
                continue
            possible = [route for route in routes if route.spelled_out(fields)]
            asked = fields.get("x-id")
            chosen = (
                next((route for route in possible if route.operation == asked), None)
                or next((route for route in possible if route.complete(fields, request)), None)
                or next(iter(possible), None)
            )
            if chosen is not None:
                parameters = dict(zip(names, map(_decode, found.groups()), strict=True))
                return self._model.operation_model(chosen.operation), parameters
        raise unknown_operation(destination, f"{request.method} {unquote(path)}")


def _route(operation: OperationModel, query: str) -> _Route:
    literals = []
    for piece in query.split("&") if query else ():
        name, mark, value = piece.partition("=")
        if name != "x-id":  # newer clients send it, older ones do not
            literals.append((name, value if mark else None))
    required: dict[str, list[str]] = {"querystring": [], "header": []}
    shape = operation.input_shape
    for name in shape.required_members if shape else ():
        serialization = shape.members[name].serialization
        if serialization.get("location") in required:
            required[serialization["location"]].append(serialization.get("name", name))
    return _Route(
        operation.name,
        tuple(literals),
        tuple(required["querystring"]),
        tuple(required["header"]),
        bool(operation.deprecated),
    )


_PARAMETER = re.compile(r"\{([^}+]+)(\+?)\}")


def _literal_rank(path: str) -> tuple[int, int, str]:
    """Sorts paths that spell more out before those that leave more open."""
    greedy = sum(mark == "+" for _, mark in _PARAMETER.findall(path))
    return greedy, len(_PARAMETER.findall(path)), path


def _parameter_names(path: str) -> list[str]:
    return [name for name, _ in _PARAMETER.findall(path)]


def _path_pattern(path: str) -> re.Pattern[str]:
    pattern = ""
    position = 0
    for found in _PARAMETER.finditer(path):
        pattern += re.escape(path[position : found.start()])
        pattern += "(.+)" if found[2] else "([^/]+)"
        position = found.end()
    pattern += re.escape(path[position:])
    return re.compile(
        pattern.rstrip("/") + r"/?\Z" if not path.endswith("+}") else pattern + r"\Z", re.DOTALL
    )


def _decode(text: str) -> str:
    try:
        return unquote_to_bytes(text.encode("latin-1", "replace")).decode("utf-8")
    except UnicodeDecodeError:
        raise Invalid("Couldn't parse the specified URI.", code="InvalidURI", status=400) from None


_routers: dict[str, _Router] = {}


def _router(model: ServiceModel) -> _Router:
    """The router of ``model``, made at its first use."""
    name = str(model.service_name)
    if name not in _routers:
        _routers[name] = _Router(model)
    return _routers[name]
