"""The model server, as a process, with real models."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = """
import pickle, time
import numpy
def model_fn(folder):
    with open(folder + "/model.pkl", "rb") as file:
        return pickle.load(file)
def predict_fn(data, model):
    data = numpy.atleast_2d(data)
    if float(data[0][0]) < 0:
        raise ValueError("negative")
    time.sleep(float(data[0][1]))
    return model.predict(data)
"""


@contextlib.contextmanager
def _server(base: Path, handler: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with tempfile.TemporaryDirectory(prefix="clary-test-") as folder:
        path = f"{folder}/worker.sock"
        process = subprocess.Popen(
            [sys.executable, "-m", "clary.serving.model_worker", "--socket", path, "--handler", handler],
            env={**os.environ, "SAGEMAKER_BASE_DIR": str(base)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline and not _answers(path):
                time.sleep(0.02)
            yield process, path
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _connect(path: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(path)
    return connection


def _ask(path: str, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, str]:
    connection = _connect(path)
    try:
        connection.request(method, target, body, {n.replace("_", "-"): v for n, v in headers.items()})
        reply = connection.getresponse()
        return reply.status, reply.read(), reply.headers.get("content-type", "")
    finally:
        connection.close()


def _answers(path: str) -> bool:
    try:
        return _ask(path, "GET", "/ping")[0] == 200
    except OSError:
        return False


@pytest.mark.slow
def test_xgboost_answers(tmp_path: Path) -> None:
    import numpy
    import xgboost

    generator = numpy.random.default_rng(7)
    rows = generator.normal(size=(200, 3))
    booster = xgboost.train({}, xgboost.DMatrix(rows, label=rows[:, 0] > 0), 5)
    (tmp_path / "model").mkdir()
    booster.save_model(tmp_path / "model/model.ubj")
    (tmp_path / "model/model.ubj").rename(tmp_path / "model/xgboost-model")
    expected = booster.predict(xgboost.DMatrix(rows[:2]))
    with _server(tmp_path, "algorithm:xgboost") as (_, path):
        body = "\n".join(",".join(map(str, row)) for row in rows[:2]).encode()
        status, answer, _ = _ask(
            path, "POST", "/invocations", body, content_type="text/csv", accept="text/csv"
        )
        assert status == 200, answer
        found = [float(text) for text in answer.decode().replace("\n", ",").split(",") if text]
        assert found == pytest.approx(expected.tolist(), rel=1e-5)
        assert _ask(path, "POST", "/invocations", b"a,b,c", content_type="text/csv")[0] in (400, 415)
        assert _ask(path, "GET", "/invocations")[0] == 405
        assert _ask(path, "GET", "/other")[0] == 404


@pytest.mark.slow
def test_a_users_script_answers_and_pings_pass_meanwhile(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit([[0.0, 0.0], [1.0, 0.0]], [0.0, 2.0])
    (tmp_path / "model/code").mkdir(parents=True)
    (tmp_path / "model/code/inference.py").write_text(SCRIPT)
    (tmp_path / "model/model.pkl").write_bytes(pickle.dumps(model))
    with _server(tmp_path, "framework:sagemaker-scikit-learn") as (process, path):
        answers: list[tuple[int, bytes, str]] = []
        usual = {"content_type": "text/csv", "accept": "application/json"}
        slow = threading.Thread(
            target=lambda: answers.append(_ask(path, "POST", "/invocations", b"3.0,1.5", **usual))
        )
        slow.start()
        time.sleep(0.3)
        assert _ask(path, "GET", "/ping")[0] == 200
        assert not answers
        # One that waits behind it, and leaves, is never run.
        impatient = _connect(path)
        impatient.request("POST", "/invocations", b"-1.0,0.0", {"content-type": "text/csv"})
        time.sleep(0.1)
        impatient.close()
        # What was begun ends, though the server is told to end.
        process.send_signal(signal.SIGTERM)
        slow.join()
        assert [status for status, *_ in answers] == [200]
        assert json.loads(answers[0][1]) == pytest.approx([6.0])
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert "negative" not in process.stdout.read()


@pytest.mark.slow
def test_an_error_of_the_script_is_told(tmp_path: Path) -> None:
    (tmp_path / "model/code").mkdir(parents=True)
    broken = SCRIPT.replace("with open", "return None\n    with open")
    (tmp_path / "model/code/inference.py").write_text(broken)
    with _server(tmp_path, "framework:sagemaker-scikit-learn") as (_, path):
        status, answer, _ = _ask(path, "POST", "/invocations", b"-1.0,0.0", content_type="text/csv")
        assert status == 500
        assert b"ValueError: negative" in answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("def model_fn(folder):\n    raise ValueError('no model')\n", "ValueError: no model ({code}:2)"),
        ("import nowhere\n", "ModuleNotFoundError: No module named 'nowhere' ({code}:1)"),
        ("def model_fn(:\n", "SyntaxError: invalid syntax ({code}:1)"),
        (
            "def predict_fn(data, model):\n    return data\n",
            "NoModelFunction: inference.py defines no model_fn",
        ),
    ],
)
def test_a_model_that_cannot_be_loaded_leaves_its_cause(tmp_path: Path, script: str, cause: str) -> None:
    (tmp_path / "model/code").mkdir(parents=True)
    code = tmp_path / "model/code/inference.py"
    code.write_text(script)
    with _server(tmp_path, "framework:sagemaker-scikit-learn") as (process, _):
        assert process.wait(60) == 1
        assert process.stdout is not None
        assert "Traceback" in process.stdout.read()
    assert (tmp_path / "output/failure").read_text().startswith(cause.format(code=code))
