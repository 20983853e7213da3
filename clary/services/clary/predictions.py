"""Scores of labelled predictions: a file in S3, or text sent along."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from clary.evaluation.classification import Unusable
from clary.evaluation.predictions import Columns, evaluate
from clary.faults import Invalid
from clary.protocol.wire import Members, ReplyMembers
from clary.services.operation import RequestContext, operation
from clary.services.s3.owned_bucket import owned_bucket

LARGEST_FILE_BYTES = 32 << 20  # some seconds of one processor, which the server shares with it
_JSON_LINES = (".jsonl", ".jsonlines", ".ndjson", ".json")


@operation("clary")
async def evaluate_predictions(context: RequestContext, request: Members) -> ReplyMembers:
    """See `clary.evaluation.predictions`."""
    uri, content = request.get("S3Uri"), request.get("Content")
    if (uri is None) == (content is None):
        raise Invalid("You must specify exactly one of S3Uri and Content.")
    text = await _read(context, uri) if uri is not None else str(content)
    kind = request.get("ContentType")
    json_lines = kind == "application/jsonlines"
    if kind is None:
        json_lines = uri.lower().endswith(_JSON_LINES) if uri is not None else text.lstrip()[:1] == "{"
    given = request.get("Columns") or {}
    columns = Columns(
        label=given.get("Label", ""),
        prediction=given.get("Prediction", ""),
        score=given.get("Score", ""),
        weight=given.get("Weight", ""),
        has_header=request.get("HasHeader", True),
        positive_label=request.get("PositiveLabel", ""),
        threshold=request.get("Threshold"),
    )
    try:
        return await asyncio.to_thread(evaluate, text, columns, json_lines=json_lines)
    except Unusable as error:
        raise Invalid(str(error)) from error


async def _read(context: RequestContext, uri: str) -> str:
    """The text of an object. Raises `Invalid` for one too large or no text, `NotFound`, `AccessDenied`."""
    parts = urlsplit(uri)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    if parts.scheme != "s3" or not bucket or not key:
        raise Invalid(f"S3Uri: '{uri}' must have the form s3://BUCKET/KEY.")
    await owned_bucket(context, {}, name=bucket)
    info, body = await context.backends.objects.read(bucket, key)
    if info.size_bytes > LARGEST_FILE_BYTES:
        raise Invalid(f"{uri} has {info.size_bytes} bytes; {LARGEST_FILE_BYTES} are the most. Take a sample.")
    content = b"".join([piece async for piece in body])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Invalid(f"{uri} is no text in UTF-8: {error}") from error
