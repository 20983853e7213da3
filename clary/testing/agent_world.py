"""The AWS that an agent talks to, in memory: enough of S3, Logs and metrics to test agents alone.

It speaks the real wire over a real socket, so agents use their real clients. It can be made to go away and
come back, as a server does that is restarted.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from clary.resources.task import Connection

TOKEN = "token-of-the-task"
REGION = "us-east-1"


class AgentWorld:
    """See the module. Use as a context manager; everything that arrived is in its attributes."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, bytes]] = {}  # bucket -> key -> content
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.events: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self.metrics: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.unauthorized: list[str] = []
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> AgentWorld:
        self.appear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vanish()

    def appear(self) -> None:
        """Be there, at the same port as before."""
        world = self

        class Handler(_Handler):
            pass

        Handler.world = world
        server = _Server(("127.0.0.1", self.port), Handler)
        self.port = server.server_address[1]
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def vanish(self) -> None:
        """Refuse connections; what was put stays."""
        if self._server and self._thread:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    @property
    def connection(self) -> Connection:
        """What a task needs to reach this world."""
        url = f"http://127.0.0.1:{self.port}"
        return Connection(url, REGION, f"{url}/.clary/credentials/task", TOKEN)

    def lines(self, group: str, stream: str) -> list[str]:
        """Messages of a log stream, in the order they came."""
        return [event["message"] for event in self.events[group, stream]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


class _Handler(BaseHTTPRequestHandler):
    world: AgentWorld
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: tests look at what arrived."""

    def do_GET(self) -> None:
        self._answer()

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def _answer(self) -> None:
        body = self._body()
        world = self.world
        parts = urlsplit(self.path)
        world.requests.append(f"{self.command} {self.path}")
        if parts.path.startswith("/.clary/credentials/"):
            if self.headers.get("Authorization") != TOKEN:
                self._reply(403, b"{}")
                return
            document = {
                "AccessKeyId": "ASIATESTTESTTESTTEST",
                "SecretAccessKey": "secret",
                "Token": "session",
                "Expiration": "2999-01-01T00:00:00Z",
            }
            self._reply(200, json.dumps(document).encode())
            return
        if "ASIATESTTESTTESTTEST" not in self.headers.get("Authorization", ""):
            world.unauthorized.append(self.path)
        target = self.headers.get("X-Amz-Target", "")
        if target.startswith("Logs_"):
            self._logs(target.partition(".")[2], json.loads(body))
        elif parts.path == "/BatchPutMetrics":
            world.metrics += json.loads(body)["MetricData"]
            self._reply(200, b"{}")
        else:
            self._s3(unquote(parts.path), parse_qs(parts.query, keep_blank_values=True), body)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            content = _unchunk(content)
        return content

    def _logs(self, operation: str, document: dict[str, Any]) -> None:
        if operation == "PutLogEvents":
            key = (document["logGroupName"], document["logStreamName"])
            self.world.events[key] += document["logEvents"]
        self._reply(200, b"{}")

    def _s3(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        bucket, _, key = path.lstrip("/").partition("/")
        objects = self.world.objects.get(bucket)
        if objects is None:
            self._fail(404, "NoSuchBucket", "The specified bucket does not exist")
        elif self.command == "GET" and "list-type" in query:
            self._list(objects, query)
        elif self.command == "POST" and "uploads" in query:
            upload = f"upload-{len(self.world.uploads)}"
            self.world.uploads[upload] = {}
            self._reply(200, _xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>"))
        elif self.command == "PUT" and "uploadId" in query:
            self.world.uploads[query["uploadId"][0]][int(query["partNumber"][0])] = body
            self._reply(200, b"", {"ETag": _etag(body)})
        elif self.command == "POST" and "uploadId" in query:
            parts = self.world.uploads.pop(query["uploadId"][0])
            objects[key] = b"".join(parts[number] for number in sorted(parts))
            self._reply(200, _xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key>"))
        elif self.command == "DELETE" and "uploadId" in query:
            self.world.uploads.pop(query["uploadId"][0], None)
            self._reply(204, b"")
        elif self.command == "PUT":
            objects[key] = body
            self._reply(200, b"", {"ETag": _etag(body)})
        elif key not in objects:
            self._fail(404, "NoSuchKey", "The specified key does not exist.")
        else:
            self._get(objects[key])

    def _get(self, content: bytes) -> None:
        etag = _etag(content)
        wanted = self.headers.get("If-Match")
        if wanted and wanted != etag:
            self._fail(412, "PreconditionFailed", "At least one of the preconditions did not hold")
            return
        headers = {"ETag": etag, "Last-Modified": formatdate(usegmt=True)}
        requested = self.headers.get("Range")
        if requested:
            first, _, last = requested.removeprefix("bytes=").partition("-")
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._reply(206, content[int(first) : int(last) + 1], headers)
        else:
            self._reply(200, content, headers)

    def _list(self, objects: dict[str, bytes], query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
            f"<ETag>{escape(_etag(content))}</ETag></Contents>"
            for key, content in sorted(objects.items())
            if key.startswith(prefix)
        )
        self._reply(200, _xml("ListBucketResult", f"<IsTruncated>false</IsTruncated>{found}"))

    def _fail(self, status: int, code: str, message: str) -> None:
        error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        self._reply(status, error.encode())

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _xml(name: str, inner: str) -> bytes:
    return f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{name}>'.encode()


def _unchunk(content: bytes) -> bytes:
    """The content of ``aws-chunked`` framing, trailers left out."""
    result = b""
    while content:
        line, _, content = content.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        result += content[:size]
        content = content[size + 2 :]
    return result
