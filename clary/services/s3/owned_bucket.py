"""The bucket of a request, checked: it is there, and it is the caller's."""

from __future__ import annotations

from clary.faults import AccessDenied, Invalid
from clary.objects.object_store import Bucket
from clary.objects.refusals import no_such_bucket
from clary.protocol.wire import Members
from clary.services.operation import RequestContext


async def owned_bucket(context: RequestContext, request: Members, *, name: str | None = None) -> Bucket:
    """Raises `NotFound`, or `AccessDenied` for a bucket that is not the caller's, or not as expected."""
    wanted = name if name is not None else request["Bucket"]
    bucket = await context.backends.objects.find_bucket(wanted)
    if bucket is None:
        raise no_such_bucket(wanted)
    expected = request.get("ExpectedBucketOwner")
    if bucket.account != context.account or (expected is not None and expected != bucket.account):
        raise AccessDenied("Access Denied", code="AccessDenied", status=403)
    return bucket


def check_expected_source(bucket: Bucket, expected: str | None) -> None:
    """Raises `AccessDenied` if the source of a copy is not the account's that the caller expects."""
    if expected is not None and expected != bucket.account:
        raise AccessDenied("Access Denied", code="AccessDenied", status=403)


def invalid_argument(message: str, name: str, value: object) -> Invalid:
    """S3's refusal of one argument."""
    return Invalid(
        message,
        code="InvalidArgument",
        status=400,
        fields={"ArgumentName": name, "ArgumentValue": value},
    )
