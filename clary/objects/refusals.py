"""What object stores refuse, in S3's words: every implementation raises the same faults."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from clary.faults import Conflict, InUse, Invalid, NotFound
from clary.objects.object_store import MAX_PARTS


def no_such_bucket(name: str) -> NotFound:
    return NotFound(
        "The specified bucket does not exist", code="NoSuchBucket", status=404, fields={"BucketName": name}
    )


def no_such_key(key: str) -> NotFound:
    return NotFound("The specified key does not exist.", code="NoSuchKey", status=404, fields={"Key": key})


def no_such_upload(upload_id: str) -> NotFound:
    return NotFound(
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been "
        "aborted or completed.",
        code="NoSuchUpload",
        status=404,
        fields={"UploadId": upload_id},
    )


def bucket_exists(name: str, *, is_callers: bool) -> InUse:
    if is_callers:
        return InUse(
            "Your previous request to create the named bucket succeeded and you already own it.",
            code="BucketAlreadyOwnedByYou",
            status=409,
            fields={"BucketName": name},
        )
    return InUse(
        "The requested bucket name is not available. The bucket namespace is shared by all users of the "
        "system. Please select a different name and try again.",
        code="BucketAlreadyExists",
        status=409,
        fields={"BucketName": name},
    )


def precondition_failed(condition: str) -> Conflict:
    """``condition`` is the header that asked for it (``If-Match``)."""
    return Conflict(
        "At least one of the pre-conditions you specified did not hold",
        code="PreconditionFailed",
        status=412,
        fields={"Condition": condition},
    )


def bad_checksum(algorithm: str) -> Invalid:
    return Invalid(
        f"The {algorithm} you specified did not match the calculated checksum.", code="BadDigest", status=400
    )


def no_such_part(number: int) -> Invalid:
    """Of a completed object: a part that it does not have."""
    return Invalid(
        "The requested partnumber is not satisfiable",
        code="InvalidPartNumber",
        status=416,
        fields={"PartNumberRequested": number},
    )


def invalid_part(number: int) -> Invalid:
    """Of a completion: a part that was not uploaded so."""
    return Invalid(
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the "
        "specified entity tag may not match the part's entity tag.",
        code="InvalidPart",
        status=400,
        fields={"PartNumber": number},
    )


def check_promises(
    promised: Mapping[str, str], computed: Mapping[str, str], content_md5: str | None, md5: str
) -> None:
    """Raises `Invalid` (``BadDigest``) if bytes are not what was said of them.

    ``promised`` and ``computed`` map algorithms to base64; ``content_md5`` is base64, ``md5`` hexadecimal.
    """
    for algorithm, value in promised.items():
        if computed[algorithm] != value:
            raise bad_checksum(algorithm)
    if content_md5 is None:
        return
    try:
        digest = base64.b64decode(content_md5, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 16:
        raise Invalid("The Content-MD5 you specified was invalid.", code="InvalidDigest", status=400)
    if digest.hex() != md5:
        raise Invalid(
            "The Content-MD5 you specified did not match what we received.", code="BadDigest", status=400
        )


def check_part_number(number: int) -> None:
    """Raises `Invalid` unless an upload may have a part of this number."""
    if not 1 <= number <= MAX_PARTS:
        raise Invalid(
            f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive",
            code="InvalidArgument",
            status=400,
            fields={"ArgumentName": "partNumber", "ArgumentValue": number},
        )
