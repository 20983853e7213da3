"""The objects that a task reads, with the files that hold them, where those are on its own machine.

``POST /.clary/objects/<task id>`` with the task's token in the Authorization header. Agents link such files
into a channel instead of copying them. A task is told of what its account's buckets hold, as by S3, and the
file named is that of the very version listed. The paths open nothing: programs do not see the files' folder,
and their agents run as the owner of all of it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from clary.compute.driver import Driver
from clary.faults import AccessDenied, Fault, Invalid, NotFound
from clary.objects.object_store import ObjectInfo, ObjectStore
from clary.objects.refusals import no_such_bucket
from clary.protocol.request_body import read_all
from clary.protocol.wire import Headers, HttpRequest, HttpResponse
from clary.services.sts.task_credentials import calling_task

PATH = "/.clary/objects/"
PAGE_OBJECTS = 1000
MOST_KEYS = 1000
_LARGEST_QUESTION_BYTES = 8 * 1024 * 1024


def task_objects(
    secret: bytes, driver: Driver, objects: ObjectStore
) -> Callable[[HttpRequest], Awaitable[HttpResponse]]:
    """The handler to be mounted at `PATH`.

    Asked ``{"bucket", "prefix", "after"}`` it answers a page in key order, ``{"objects": [[key, size, etag,
    path], ...], "next"}``; asked ``{"bucket", "keys"}`` it answers the same of those that are there. ``path``
    is null for an object without a file.
    """

    async def answer(request: HttpRequest) -> HttpResponse:
        try:
            if request.method != "POST":
                raise AccessDenied("Objects are asked for with POST.", status=405)
            identity = await calling_task(request, PATH, secret, driver)
            question = _question(await read_all(request.body, _LARGEST_QUESTION_BYTES, _too_large))
            bucket = await objects.find_bucket(question["bucket"])
            if bucket is None:
                raise no_such_bucket(question["bucket"])
            if bucket.account != identity.account:
                raise AccessDenied("Access Denied", code="AccessDenied", status=403)
            return _json(200, await _find(objects, question))
        except Fault as fault:
            status = fault.status or (403 if isinstance(fault, AccessDenied) else 400)
            return _json(status, {"code": fault.code or type(fault).__name__, "message": fault.message})

    return answer


async def _find(objects: ObjectStore, question: dict[str, Any]) -> dict[str, Any]:
    bucket, following = question["bucket"], None
    found: Sequence[ObjectInfo]
    if "keys" in question:
        there = [await _look(objects, bucket, key) for key in question["keys"]]
        found = [info for info in there if info is not None]
    else:
        page = await objects.list(
            bucket, prefix=question["prefix"], after=question["after"], limit=PAGE_OBJECTS
        )
        found, following = page.objects, page.next_marker
    paths = await objects.local_paths(found)
    return {
        "objects": [
            [info.key, info.size_bytes, f'"{info.etag}"', path]
            for info, path in zip(found, paths, strict=True)
        ],
        "next": following,
    }


async def _look(objects: ObjectStore, bucket: str, key: str) -> ObjectInfo | None:
    try:
        return await objects.head(bucket, key)
    except NotFound:
        return None


def _question(body: bytes) -> dict[str, Any]:
    """Raises `Invalid` for a body of another form."""
    try:
        document = json.loads(body)
        question: dict[str, Any] = {"bucket": str(document["bucket"])}
        if "keys" in document:
            keys = [str(key) for key in document["keys"]]
            if len(keys) > MOST_KEYS:
                raise Invalid(f"At most {MOST_KEYS} keys can be asked for at once, not {len(keys)}.")
            return {**question, "keys": keys}
        return {**question, "prefix": str(document["prefix"]), "after": str(document.get("after") or "")}
    except (ValueError, TypeError, KeyError) as error:
        raise Invalid(
            f"The question must be a JSON object with bucket, and prefix or keys: {error}"
        ) from None


def _too_large() -> Fault:
    return Invalid(f"A question may have {_LARGEST_QUESTION_BYTES} bytes.", status=413)


def _json(status: int, document: dict[str, Any]) -> HttpResponse:
    headers = Headers([("content-type", "application/json"), ("cache-control", "no-store")])
    return HttpResponse(status, headers, json.dumps(document).encode())
