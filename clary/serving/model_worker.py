"""The model server of what Clary runs itself: one model, in the sandbox, behind a unix socket.

    --socket PATH --handler algorithm:NAME|framework:NAME [--model-directory DIR]

It keeps the serving contract (GET /ping, POST /invocations) and listens once the model is loaded; a model
that cannot be loaded leaves its cause in ``output/failure`` below ``SAGEMAKER_BASE_DIR``. Built-in algorithms
answer small requests on the event loop, where a call costs less than handing it to a thread. User code runs
in threads, one unless ``SAGEMAKER_MODEL_SERVER_WORKERS`` says more (AWS's containers run it in processes, so
it need not bear threads); pings are answered meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import uvloop

from clary.serving.http_server import Reply, Request, Server

MAX_BODY_BYTES = 25 * 1024**2
BODY_SECONDS = 60.0
MAX_CONNECTIONS = 1024
MAX_WORKERS = 64
ON_LOOP_BYTES = 16 * 1024  # larger requests to built-in algorithms run in a thread
DRAIN_SECONDS = 25.0
LONGEST_FAILURE = 1024
LONGEST_COMPLAINT = 64 * 1024

# (body, content type, accept) to (status, body, content type)
Predictor = Callable[[bytes, str, str], tuple[int, bytes, str]]


def main(arguments: Sequence[str]) -> int:
    """See the module; returns the exit code."""
    parser = argparse.ArgumentParser(prog="model_worker")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--handler", required=True)
    parser.add_argument("--model-directory", type=Path)
    options = parser.parse_args(list(arguments))
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
    kind, _, name = options.handler.partition(":")
    try:
        predictor = load_predictor(kind, name, options.model_directory or base / "model")
    except BaseException as error:  # noqa: BLE001 - a user's module may also exit: whatever it is, it is told
        traceback.print_exc()
        _write_failure(base, error)
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    uvloop.run(
        _serve(options.socket, ModelApplication(predictor, _threads(kind), on_loop=kind == "algorithm"))
    )
    return 0


def load_predictor(kind: str, name: str, model_directory: Path) -> Predictor:
    """The predictor of ``algorithm:name`` or ``framework:name``. Raises what loading raises."""
    if kind == "algorithm":
        from clary.algorithms import entrypoint as algorithms

        return algorithms.load_predictor(name, model_directory)
    if kind == "framework":
        from clary.frameworks import entrypoint as frameworks

        return frameworks.load_predictor(name, model_directory)
    raise ValueError(f"the handler must be algorithm:NAME or framework:NAME, not '{kind}:{name}'")


class ModelApplication:
    """Answers with one predictor."""

    max_body_bytes = MAX_BODY_BYTES
    body_seconds = BODY_SECONDS

    def __init__(self, predictor: Predictor, threads: int, *, on_loop: bool) -> None:
        self._predictor = predictor
        self._on_loop = on_loop
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")
        self._running: dict[Request, Future[Reply]] = {}

    def head(self, request: Request) -> Reply | None:
        known = {
            b"/ping": (b"GET", b"HEAD"),
            b"/invocations": (b"POST",),
        }.get(request.target.partition(b"?")[0])
        if known is None:
            return self.refusal(404, "A model server answers GET /ping and POST /invocations.")
        if request.method not in known:
            return self.refusal(405, f"This path takes {known[0].decode()} only.")
        return None

    def answer(self, request: Request) -> None:
        if request.target.startswith(b"/ping"):
            request.connection.reply(request, Reply(200))
        elif self._on_loop and len(request.body) <= ON_LOOP_BYTES:
            request.connection.reply(request, self._predict(request))
        else:
            future = self._pool.submit(self._predict, request)
            self._running[request] = future
            loop = asyncio.get_running_loop()
            future.add_done_callback(lambda done: _tell(loop, self._predicted, request, done))

    def gone(self, request: Request) -> None:
        """Nobody waits for the answer: what has not begun never will."""
        future = self._running.pop(request, None)
        if future is not None:
            future.cancel()

    def refusal(self, status: int, message: str) -> Reply:
        return Reply(status, b"content-type: text/plain\r\n", message.encode())

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _predicted(self, request: Request, future: Future[Reply]) -> None:
        if self._running.pop(request, None) is not None and not future.cancelled():
            request.connection.reply(request, future.result())

    def _predict(self, request: Request) -> Reply:
        content_type = accept = ""
        for name, value in request.headers:
            if name == b"content-type":
                content_type = value.decode("latin-1")
            elif name == b"accept":
                accept = value.decode("latin-1")
        try:
            status, body, answered_type = self._predictor(request.body, content_type, accept)
            kind = answered_type.encode("latin-1").replace(b"\r", b" ").replace(b"\n", b" ")
            return Reply(status, b"content-type: " + kind + b"\r\n", bytes(body))
        except Exception as error:  # noqa: BLE001 - the caller is told, the server lives on
            traceback.print_exc()
            sys.stderr.flush()
            text = "".join(traceback.format_exception(error))[-LONGEST_COMPLAINT:]
            return Reply(500, b"content-type: text/plain\r\n", text.encode("utf-8", "replace"))


def _tell(
    loop: asyncio.AbstractEventLoop,
    callback: Callable[[Request, Future[Reply]], None],
    request: Request,
    future: Future[Reply],
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
        loop.call_soon_threadsafe(callback, request, future)


async def _serve(path: Path, application: ModelApplication) -> None:
    """Serve until SIGTERM, then let what was begun end."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(application, max_connections=MAX_CONNECTIONS)
    await server.listen(bind(path))
    print("The model is loaded; the model server is ready.", flush=True)
    await stop.wait()
    await server.close(DRAIN_SECONDS)
    application.close()


def bind(path: Path) -> socket.socket:
    """A unix socket at ``path``, for our user only; what is there already is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def _threads(kind: str) -> int:
    if kind == "algorithm":
        return 1
    asked = os.environ.get("SAGEMAKER_MODEL_SERVER_WORKERS", "")
    return min(max(1, int(asked)), MAX_WORKERS) if asked.isdecimal() else 1


def _write_failure(base: Path, error: BaseException) -> None:
    folder = base / "output"
    folder.mkdir(parents=True, exist_ok=True)
    failure = folder / "failure"
    if not failure.exists():
        failure.write_text(explain(error, base)[:LONGEST_FAILURE], encoding="utf-8")


def explain(error: BaseException, base: Path) -> str:
    """``ValueError: no model (/opt/ml/code/inference.py:7)``: the last place in the user's own code."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(str(base))]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
