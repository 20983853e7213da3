"""A registry of images for tests: the part of the protocol that a pull needs, on loopback."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_BLOCK_BYTES = 1 << 20


class ImageRegistry:
    """Serves one image under every name. Engines trust registries on loopback without TLS.

    ``api`` is an engine's low-level client, which has ``image``. While ``silent``, requests get no answer.
    """

    def __init__(self, api: Any, image: str) -> None:
        self.silent = False
        self.requests: list[str] = []
        self._over = threading.Event()
        self._blobs: dict[str, bytes] = {}
        self._manifest = self._take(api, image)
        registry = self

        class Handler(_Handler):
            pass

        Handler.registry = registry
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> ImageRegistry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def lose_parts(self) -> None:
        """Keep the manifest and nothing that it names."""
        self._blobs.clear()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body for ``path``."""
        while self.silent and not self._over.is_set():
            time.sleep(0.05)
        if path.rstrip("/") == "/v2":
            return 200, "application/json", b"{}"
        if "/manifests/" in path:
            return 200, _MANIFEST, self._manifest
        blob = self._blobs.get(path.rpartition("/")[2])
        return (200, "application/octet-stream", blob) if blob is not None else (404, "text/plain", b"")

    def _take(self, api: Any, image: str) -> bytes:
        """Keep the image's parts; its manifest."""
        with tempfile.TemporaryFile() as file:
            for block in api.get_image(image, chunk_size=_BLOCK_BYTES):
                file.write(block)
            file.seek(0)
            with tarfile.open(fileobj=file) as archive:

                def content(name: str) -> bytes:
                    member = archive.extractfile(name)
                    assert member is not None
                    return member.read()

                listed = json.loads(content("manifest.json"))[0]
                config = self._keep(content(listed["Config"]), _CONFIG)
                layers = [self._keep(content(name), _LAYER) for name in listed["Layers"]]
        document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
        return json.dumps(document).encode()

    def _keep(self, blob: bytes, media_type: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        self._blobs[digest] = blob
        return {"mediaType": media_type, "size": len(blob), "digest": digest}


class _Handler(BaseHTTPRequestHandler):
    registry: ImageRegistry
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: tests look at `requests`."""

    def do_GET(self) -> None:
        self.registry.requests.append(self.path)
        status, kind, body = self.registry.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET
