"""The AWS that an agent talks to, in memory: enough of S3, Logs and metrics to test agents alone.

It speaks the real wire over a real socket, so agents use their real clients. It can be made to go away and
come back, as a server does that is restarted.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import socket
import tarfile
import threading
from collections import defaultdict
from collections.abc import Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from clary.resources.task import Connection, ServingWork, TaskSpec, TrainingWork

TOKEN = "token-of-the-task"
REGION = "us-east-1"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
SCRIPT_IMAGE = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"


class AgentWorld:
    """See the module. Use as a context manager; everything that arrived is in its attributes."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, bytes]] = {}  # bucket -> key -> content
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.events: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self.metrics: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.unauthorized: list[str] = []
        self.broken_reads = 0  # how many of the next objects break off halfway
        self.files: Path | None = None  # a folder: its files hold the objects, and tasks are told of them
        self.port = 0
        self._server: _Server | None = None
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
        server: _Server = _Server(("127.0.0.1", self.port), Handler)
        self.port = server.server_address[1]
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def vanish(self) -> None:
        """Refuse connections; what was put stays."""
        if self._server and self._thread:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut()
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


def training_spec(
    world: AgentWorld,
    task_id: str,
    script: str = "",
    *,
    files: Mapping[str, str | bytes] | None = None,
    hyperparameters: Mapping[str, str] | None = None,
    cpu_count: float = 0.5,
    grace_seconds: float = 120.0,
    **request: Any,
) -> TaskSpec:
    """A training task that runs ``script`` in script mode and saves to ``s3://bucket/out``.

    The bucket is there, with one object below ``data/``. ``files`` lie beside the script. Further members
    of the CreateTrainingJob request replace the usual ones.
    """
    bucket = world.objects.setdefault("bucket", {})
    bucket.setdefault("data/rows.csv", b"1,2\n")
    bucket[f"code/{task_id}.tar.gz"] = archive({"train.py": script, **(files or {})})
    document: dict[str, Any] = {
        "TrainingJobName": task_id,
        "HyperParameters": {
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": f'"s3://bucket/code/{task_id}.tar.gz"',
            **(hyperparameters or {}),
        },
        "AlgorithmSpecification": {"TrainingImage": SCRIPT_IMAGE, "TrainingInputMode": "File"},
        "InputDataConfig": [channel("training", "s3://bucket/data/")],
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        **request,
    }
    work = TrainingWork(
        job_name=task_id,
        job_arn=f"arn:aws:sagemaker:{REGION}:123456789012:training-job/{task_id}",
        request=document,
        host="algo-1",
        hosts=("algo-1",),
        instance_type="ml.m5.large",
        instance_group="homogeneousCluster",
        log_group=LOG_GROUP,
        log_stream=f"{task_id}/algo-1-1",
        max_runtime_seconds=float(document["StoppingCondition"]["MaxRuntimeInSeconds"]),
    )
    return TaskSpec(
        task_id, f"owner-of-{task_id}", work, world.connection, cpu_count, 1 << 30, 0, grace_seconds
    )


def serving_spec(
    world: AgentWorld, task_id: str, script: str, *, startup_timeout_seconds: float = 60.0
) -> TaskSpec:
    """A serving task whose model archive holds ``script`` as ``code/inference.py``."""
    bucket = world.objects.setdefault("bucket", {})
    bucket[f"models/{task_id}.tar.gz"] = archive({"weights.txt": "7", "code/inference.py": script})
    model: dict[str, Any] = {
        "ModelName": task_id,
        "PrimaryContainer": {
            "Image": SCRIPT_IMAGE,
            "ModelDataUrl": f"s3://bucket/models/{task_id}.tar.gz",
            "Environment": {
                "SAGEMAKER_PROGRAM": "inference.py",
                "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            },
        },
    }
    work = ServingWork(
        task_id,
        "AllTraffic",
        model,
        "ml.m5.large",
        LOG_GROUP,
        f"{task_id}/i-1",
        startup_timeout_seconds,
        60.0,
    )
    return TaskSpec(task_id, f"owner-of-{task_id}", work, world.connection, 0.5, 1 << 30, 0, 30.0)


def channel(name: str, uri: str, **source: Any) -> dict[str, Any]:
    """An InputDataConfig entry."""
    data = {"S3DataType": "S3Prefix", "S3Uri": uri, **source}
    return {"ChannelName": name, "DataSource": {"S3DataSource": data}}


def archive(files: Mapping[str, str | bytes]) -> bytes:
    """A ``.tar.gz`` of files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End the connections that are open, as the end of a process does."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that was cut is no error."""


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
        if parts.path.startswith("/.clary/objects/"):
            if self.headers.get("Authorization") != TOKEN or world.files is None:
                self._reply(403 if world.files else 404, b"{}")
            else:
                self._reply(200, json.dumps(_stored(world.objects, world.files, json.loads(body))).encode())
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
            if self.world.broken_reads and headers and "ETag" in headers and self.command == "GET":
                self.world.broken_reads -= 1
                body, self.close_connection = body[: len(body) // 2], True
            self.wfile.write(body)


def _stored(
    objects: Mapping[str, Mapping[str, bytes]], files: Path, question: Mapping[str, Any]
) -> dict[str, Any]:
    """What a server answers that keeps its objects in files, as `clary.services.s3.task_objects` does."""
    bucket = objects.get(question["bucket"], {})
    found = []
    for key, content in sorted(bucket.items()):
        if key in question.get("keys", ()) or ("prefix" in question and key.startswith(question["prefix"])):
            path = files / hashlib.sha256(content).hexdigest()
            if not path.exists():
                path.write_bytes(content)
                path.chmod(0o444)
            found.append([key, len(content), _etag(content), str(path)])
    return {"objects": found, "next": None}


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
