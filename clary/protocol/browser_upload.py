"""S3's uploads by HTML form: ``POST /BUCKET`` with ``multipart/form-data`` and a signed policy.

A form is an odd PutObject: its fields stand for headers, its policy says which fields may have which values,
and the policy is what is signed. The file is the last part and streams; whatever follows it is dropped.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hmac
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.message import Message as MimeHeaders
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode, urlsplit
from xml.sax.saxutils import escape

from clary.faults import AccessDenied, Invalid, LimitExceeded
from clary.protocol import refusals, signature_v2
from clary.protocol.identify import Destination
from clary.protocol.request_body import MAX_OBJECT_BYTES, BodyChecks
from clary.protocol.signature import ALGORITHM, Authenticator, parse_timestamp, read_scope, signing_key
from clary.protocol.wire import Caller, Headers, HttpRequest, HttpResponse, ReplyMembers

MAX_FORM_BYTES = 64 * 1024  # all that is not the file
MAX_FIELDS = 100
MAX_CONDITIONS = 200
MAX_BOUNDARY_CHARACTERS = 200

# Fields that no condition of the policy must cover.
_FREE_FIELDS = frozenset({"policy", "x-amz-signature", "signature", "awsaccesskeyid", "file"})
_PLAIN_HEADERS = frozenset(
    {"cache-control", "content-type", "content-disposition", "content-encoding", "content-md5", "expires"}
)
_CLAIM_FIELDS = frozenset(
    {"x-amz-signature", "x-amz-credential", "x-amz-date", "x-amz-algorithm", "x-amz-security-token"}
)
_CREATED = (200, 201, 204)


@dataclass(frozen=True)
class Form:
    """The fields before the file, names in lower case, and the file as it comes."""

    fields: Mapping[str, str]
    file: AsyncIterator[bytes]


@dataclass(frozen=True)
class Upload:
    """A form that was let in: who posts, and the PutObject that it stands for."""

    caller: Caller
    region: str
    request: HttpRequest
    path_parameters: dict[str, str]
    fields: Mapping[str, str]


def is_browser_upload(destination: Destination, request: HttpRequest) -> bool:
    """Whether the request is a form posted to a bucket."""
    content_type = request.headers.get("content-type") or ""
    segments = [part for part in request.raw_path.split("/") if part]
    return (
        destination.service == "s3"
        and request.method == "POST"
        and not request.query
        and len(segments) == (0 if destination.bucket else 1)
        and content_type.strip().lower().startswith("multipart/form-data")
    )


async def accept(request: HttpRequest, destination: Destination, authenticator: Authenticator) -> Upload:
    """Read the form up to its file and hold it against its policy. Raises a `Fault`."""
    bucket = destination.bucket or unquote_to_bytes(request.raw_path.strip("/")).decode("utf-8", "replace")
    form = await read_form(request)
    fields = dict(form.fields)
    caller, region = await _verify(fields, authenticator)
    smallest, largest = 0, MAX_OBJECT_BYTES
    if authenticator.verifies:
        smallest, largest = check_policy({**fields, "bucket": bucket}, authenticator.now())
    if not fields.get("key"):
        raise _invalid(
            "Bucket POST must contain a field named 'key'.  If it is specified, please check the "
            "order of the fields."
        )
    headers = Headers()
    for name, value in fields.items():
        if name in _PLAIN_HEADERS or (name.startswith("x-amz-") and name not in _CLAIM_FIELDS):
            headers.set(name, value)
        elif name == "acl":
            headers.set("x-amz-acl", value)
    checks = BodyChecks()
    checks.take_headers(headers)
    body = _within(checks.follow(form.file, MAX_OBJECT_BYTES), smallest, largest)
    put = HttpRequest("PUT", request.raw_path, "", headers, body, request.scheme, request.client)
    return Upload(caller, region, put, {"Bucket": bucket, "Key": fields["key"]}, fields)


def reply(upload: Upload, members: ReplyMembers, request_id: str, host: str) -> HttpResponse:
    """What the form asked to be told: nothing, a document, or to go elsewhere."""
    bucket, key, etag = (
        upload.path_parameters["Bucket"],
        upload.path_parameters["Key"],
        members.get("ETag", ""),
    )
    location = f"{upload.request.scheme}://{host}/{quote(bucket)}/{quote(key)}"
    headers = Headers([("x-amz-request-id", request_id), ("etag", str(etag)), ("location", location)])
    redirect = upload.fields.get("success_action_redirect") or upload.fields.get("redirect")
    if redirect and urlsplit(redirect).scheme in ("http", "https"):
        separator = "&" if urlsplit(redirect).query else "?"
        told = urlencode({"bucket": bucket, "key": key, "etag": etag})
        headers.set("location", f"{redirect}{separator}{told}")
        return HttpResponse(303, headers)
    status = upload.fields.get("success_action_status", "")
    if status == "201":
        headers.set("content-type", "application/xml")
        document = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<PostResponse><Location>{escape(location)}</Location><Bucket>{escape(bucket)}</Bucket>"
            f"<Key>{escape(key)}</Key><ETag>{escape(str(etag))}</ETag></PostResponse>"
        )
        return HttpResponse(201, headers, document.encode())
    return HttpResponse(200 if status == "200" else 204, headers)


async def _verify(fields: Mapping[str, str], authenticator: Authenticator) -> tuple[Caller, str]:
    """Who signed the policy, and for which region."""
    policy = fields.get("policy")
    token = fields.get("x-amz-security-token")
    if not authenticator.verifies:
        scope = read_scope(fields.get("x-amz-credential", ""))
        access_key_id = scope.access_key_id if scope else fields.get("awsaccesskeyid")
        return await authenticator.trusted(access_key_id, token), authenticator.region(scope)
    if policy is None:
        raise refusals.missing_token("s3")
    if "awsaccesskeyid" in fields:
        key = await authenticator.key(fields["awsaccesskeyid"], token, "s3")
        if key.secret is not None and not signature_v2.text_matches(
            policy, fields.get("signature", ""), key.secret
        ):
            raise refusals.signature_mismatch("s3")
        return key.caller, authenticator.region(None)
    scope = read_scope(fields.get("x-amz-credential", ""))
    timestamp = fields.get("x-amz-date", "")
    if (
        fields.get("x-amz-algorithm") != ALGORITHM
        or scope is None
        or scope.service != "s3"
        or parse_timestamp(timestamp) is None
        or timestamp[:8] != scope.date
    ):
        raise _invalid(
            "A POST policy is signed with the fields x-amz-algorithm (AWS4-HMAC-SHA256), x-amz-credential "
            "(for s3), x-amz-date and x-amz-signature."
        )
    key = await authenticator.key(scope.access_key_id, token, "s3")
    if key.secret is not None:
        signer = signing_key(key.secret, scope.date, scope.region, scope.service)
        expected = hmac.digest(signer, policy.encode("utf-8", "replace"), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), fields.get("x-amz-signature", "").encode()):
            raise refusals.signature_mismatch("s3")
    return key.caller, scope.region


def check_policy(fields: Mapping[str, str], now: float) -> tuple[int, int]:
    """Hold ``fields`` (``bucket`` among them) against the policy; the smallest and largest file it allows.

    Raises `AccessDenied` in S3's words if the policy is over or a condition fails, `Invalid` if it is broken.
    """
    policy = _read_policy(fields["policy"])
    if _expiration(policy) <= now:
        raise _against_policy("Policy expired.")
    covered = {"bucket"}
    smallest, largest = 0, MAX_OBJECT_BYTES
    for condition in policy["conditions"]:
        for kind, name, value in _tests(condition):
            if kind == "content-length-range":
                smallest, largest = _range(name, value)
                continue
            field = str(name).removeprefix("$").lower()
            covered.add(field)
            given = fields.get(field, "")
            wanted = str(value)
            if not (given == wanted if kind == "eq" else given.startswith(wanted)):
                raise _against_policy(f"Policy Condition failed: {json.dumps([kind, f'${field}', wanted])}")
    extra = [
        name for name in fields if name not in covered | _FREE_FIELDS and not name.startswith("x-ignore-")
    ]
    if extra:
        raise _against_policy(f"Extra input fields: {', '.join(sorted(extra))}")
    return smallest, largest


def _read_policy(text: str) -> dict[str, Any]:
    try:
        policy = json.loads(base64.b64decode(text, validate=True))
        if isinstance(policy, dict) and isinstance(policy.get("conditions"), list):
            if len(policy["conditions"]) <= MAX_CONDITIONS:
                return policy
            raise _bad_policy(f"it has more than {MAX_CONDITIONS} conditions")
    except (binascii.Error, ValueError, RecursionError):
        pass
    raise _bad_policy("it must be a JSON object with expiration and conditions, in base64")


def _expiration(policy: Mapping[str, Any]) -> float:
    text = str(policy.get("expiration", ""))
    try:
        at = datetime.datetime.fromisoformat(re.sub(r"Z\Z", "+00:00", text))
        return (at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        raise _bad_policy(f"its expiration {text[:60]!r} is no ISO 8601 time") from None


def _tests(condition: object) -> list[tuple[str, object, object]]:
    """A condition as (kind, field or lower bound, value or upper bound), in whichever form it is written."""
    if isinstance(condition, dict):
        return [("eq", name, value) for name, value in condition.items()]
    if isinstance(condition, list) and len(condition) == 3:
        kind = str(condition[0]).lower()
        if kind in ("eq", "starts-with", "content-length-range"):
            return [(kind, condition[1], condition[2])]
    raise _bad_policy(f"it has a condition that cannot be read: {json.dumps(condition)[:200]}")


def _range(low: object, high: object) -> tuple[int, int]:
    try:
        return int(str(low)), int(str(high))
    except ValueError:
        raise _bad_policy("its content-length-range must have two whole numbers") from None


async def _within(file: AsyncIterator[bytes], smallest: int, largest: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in file:
        size += len(piece)
        if size > largest:
            raise LimitExceeded(
                "Your proposed upload exceeds the maximum allowed size",
                code="EntityTooLarge",
                status=400,
                fields={"ProposedSize": str(size), "MaxSizeAllowed": str(largest)},
            )
        yield piece
    if size < smallest:
        raise Invalid(
            "Your proposed upload is smaller than the minimum allowed size",
            code="EntityTooSmall",
            status=400,
            fields={"ProposedSize": str(size), "MinSizeAllowed": str(smallest)},
        )


async def read_form(request: HttpRequest) -> Form:
    """The fields of a multipart form up to its file. Raises `Invalid` if it is no such form."""
    boundary = MimeHeaders()
    boundary["content-type"] = request.headers.get("content-type") or ""
    name = boundary.get_boundary()
    if not name or len(name) > MAX_BOUNDARY_CHARACTERS:
        raise _malformed("its content type has no boundary")
    reader = _FormReader(request.body, b"\r\n--" + name.encode("latin-1", "replace"))
    fields: dict[str, str] = {}
    await reader.skip_preamble()
    while True:
        headers = await reader.part_headers()
        if headers is None:
            raise _invalid("POST requires exactly one file upload per request.")
        field = str(headers.get_param("name", "", "content-disposition")).lower()
        file_name = headers.get_filename()
        if field == "file":
            leaf = re.split(r"[/\\]", file_name or "")[-1]
            if "key" in fields:
                fields["key"] = fields["key"].replace("${filename}", leaf)
            return Form(fields, reader.content())
        if len(fields) >= MAX_FIELDS:
            raise _malformed(f"it has more than {MAX_FIELDS} fields")
        value = b"".join([piece async for piece in reader.content(limit_bytes=MAX_FORM_BYTES)])
        if field in fields:
            raise _malformed(f"its field {field[:60]!r} is given twice")
        fields[field] = value.decode("utf-8", "replace")


class _FormReader:
    """Parts out of a stream of pieces."""

    def __init__(self, body: AsyncIterator[bytes], delimiter: bytes) -> None:
        self._body = body
        self._delimiter = delimiter
        self._buffer = b"\r\n"  # for the first delimiter, which has no line before it
        self._outside_bytes = 0

    async def _more(self) -> None:
        try:
            self._buffer += await self._body.__anext__()
        except StopAsyncIteration:
            raise _malformed("it ends too early") from None

    async def skip_preamble(self) -> None:
        async for _ in self.content(limit_bytes=MAX_FORM_BYTES):
            pass

    async def part_headers(self) -> MimeHeaders | None:
        """The headers of the next part; ``None`` after the last."""
        while len(self._buffer) < 2:
            await self._more()
        if self._buffer.startswith(b"--"):
            return None
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_FORM_BYTES:
                raise _malformed(f"its fields have more than {MAX_FORM_BYTES} bytes")
            await self._more()
        text, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        self._count(len(text))
        headers = MimeHeaders()
        for line in text.decode("utf-8", "replace").split("\r\n"):
            name, mark, value = line.partition(":")
            if mark:
                headers[name.strip()] = value.strip()
        return headers

    async def content(self, limit_bytes: int | None = None) -> AsyncIterator[bytes]:
        """What comes before the next delimiter, which is taken away."""
        while True:
            found = self._buffer.find(self._delimiter)
            # Without a delimiter in sight, what may be the beginning of one stays.
            end = found if found >= 0 else max(len(self._buffer) - len(self._delimiter), 0)
            piece = self._buffer[:end]
            self._buffer = self._buffer[end if found < 0 else end + len(self._delimiter) :]
            if piece:
                if limit_bytes is not None:
                    self._count(len(piece))
                yield piece
            if found >= 0:
                return
            await self._more()

    def _count(self, size: int) -> None:
        self._outside_bytes += size
        if self._outside_bytes > MAX_FORM_BYTES:
            raise Invalid(
                "Your POST request fields preceding the upload file were too large.",
                code="MaxPostPreDataLengthExceeded",
                status=400,
            )


def _against_policy(why: str) -> AccessDenied:
    return AccessDenied(f"Invalid according to Policy: {why}", code="AccessDenied", status=403)


def _bad_policy(why: str) -> Invalid:
    return Invalid(f"Invalid Policy: {why}.", code="InvalidPolicyDocument", status=400)


def _malformed(why: str) -> Invalid:
    return Invalid(
        f"The body of your POST request is not well-formed multipart/form-data: {why}.",
        code="MalformedPOSTRequest",
        status=400,
    )


def _invalid(message: str) -> Invalid:
    return Invalid(message, code="InvalidArgument", status=400)
