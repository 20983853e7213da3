"""What every built-in algorithm must do, by the container contract and its own spec. Subclass, give a
problem, and collect.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest

from clary.algorithms.algorithm import AlgorithmSpec, check_hyperparameters, find_algorithm, get_algorithm
from clary.algorithms.entrypoint import Predictor, load_predictor, main
from clary.algorithms.faults import ClientError
from clary.algorithms.formats.content_type import CSV, JSON, JSON_LINES, LIBSVM, RECORDIO
from clary.algorithms.formats.recordio import read_rows, write_uniform

PATIENCE_SECONDS = 120.0
_MOST_PASSES = 40  # over the data of a problem, in Pipe mode
_RUN = "import sys; from clary.algorithms.entrypoint import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Problem:
    """Rows to learn from, (n, columns) of 32 bits, and their labels (n,), ``None`` where none are taken."""

    features: Any
    labels: Any
    hyperparameters: Mapping[str, object]


class AlgorithmConformance:
    """The facts. ``algorithm`` is its name, and `problem` is small: it is trained many times.

    ``width_is_told`` is false where the algorithm finds out how many features there are.
    """

    algorithm: str
    width_is_told = True

    def problem(self) -> Problem:
        raise NotImplementedError

    @property
    def spec(self) -> AlgorithmSpec:
        return get_algorithm(self.algorithm)

    @property
    def training_types(self) -> Sequence[str]:
        """Of those with rows of numbers, what the train channel takes."""
        [channel] = [channel for channel in self.spec.channels if channel.name == "train"]
        return [media for media in (RECORDIO, CSV) if media in channel.content_types]

    def test_its_images_mean_it(self) -> None:
        for repository, tags in self.spec.tags.items():
            for tag in tags:
                assert find_algorithm(repository, tag) is self.spec

    def test_the_problems_hyperparameters_are_valid(self) -> None:
        given = _texts(self.problem().hyperparameters)
        assert check_hyperparameters(self.spec, given) == []
        assert check_hyperparameters(self.spec, {**given, "surely_unknown": "1"})

    def test_the_same_rows_give_the_same_model_however_they_come(self, folder: _Folder) -> None:
        """From either format and in either mode, and a second time."""
        models = []
        for media in self.training_types:
            for piped in (False, True):
                folder.give(self.content(media), self.labelled(media), piped=piped)
                code, _ = folder.train(self.algorithm, self.problem().hyperparameters)
                assert code == 0, folder.failure
                models.append(folder.files())
        assert models and models[0]
        assert all(model == models[0] for model in models)

    def test_its_log_tells_its_metrics(self, folder: _Folder) -> None:
        folder.give(self.content(self.training_types[0]), self.training_types[0])
        _, log = folder.train(self.algorithm, self.problem().hyperparameters)
        assert any(re.search(metric.regex, log) for metric in self.spec.metrics)

    def test_every_request_type_gives_the_same_answer(self, folder: _Folder) -> None:
        answer = self.trained(folder)
        rows = self.problem().features[:5]
        replies = []
        for media in self.spec.request_types:
            status, reply, kind = answer(_request(rows, media), media, self.spec.reply_types[0])
            assert (status, kind) == (200, self.spec.reply_types[0]), reply
            replies.append(reply)
        assert all(reply == replies[0] for reply in replies)

    def test_every_reply_type_has_an_answer_a_row(self, folder: _Folder) -> None:
        answer = self.trained(folder)
        request = _request(self.problem().features[:5], CSV) if CSV in self.spec.request_types else None
        media = CSV if request is not None else RECORDIO
        request = request or _request(self.problem().features[:5], RECORDIO)
        for wanted in self.spec.reply_types:
            status, reply, kind = answer(request, media, wanted)
            assert (status, kind) == (200, wanted), reply
            if wanted == JSON:
                [(_, rows)] = json.loads(reply).items()
                assert len(rows) == 5
            elif wanted == JSON_LINES:
                assert len([json.loads(line) for line in reply.splitlines()]) == 5
            elif wanted == RECORDIO:
                assert len(list(read_rows(reply, "reply"))) == 5

    def test_what_cannot_be_answered_is_refused(self, folder: _Folder) -> None:
        answer = self.trained(folder)
        rows = self.problem().features[:2]
        good = self.spec.request_types[-1]
        assert answer(b"x", "text/html", "")[0] == 415
        assert answer(_request(rows, good), good, "image/png")[0] == 406
        for media in self.spec.request_types:
            status, reply, _ = answer(b"\xff\x00 no such thing", media, "")
            assert status in (400, 415) and reply, media

    def test_a_loaded_model_may_be_forked(self, folder: _Folder) -> None:
        answer = self.trained(folder)
        media = self.spec.request_types[-1]
        request = _request(self.problem().features[:3], media)
        _, expected, _ = answer(request, media, "")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.write(write, answer(request, media, "")[1])
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as answered:
            found = answered.read()
        os.waitpid(child, 0)
        assert found == expected

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ("nothing", "train"),
            ("cut short", "the file ends within the record"),
            ("no RecordIO", "train/rows, record 1"),
            ("ragged", "train/rows, line 3"),
            ("no number", "train/rows, line 2, column 2: 'x' is not a number"),
            ("another type", "image/png"),
        ],
    )
    def test_bad_data_fails_the_job_and_is_told(self, folder: _Folder, wrong: str, words: str) -> None:
        media = CSV if wrong in ("ragged", "no number") else RECORDIO
        if media not in self.training_types:
            return  # not among what it reads
        lines = _csv(self.table()).splitlines(keepends=True)
        content = {
            "nothing": b"",
            "cut short": self.content(RECORDIO)[:-9],
            "no RecordIO": b"1,2,3\n",
            "ragged": b"".join([*lines[:2], b"1," + lines[2], *lines[3:]]),
            "no number": b"".join([lines[0], _with_cell(lines[1], 1, b"x"), *lines[2:]]),
            "another type": self.content(RECORDIO),
        }[wrong]
        folder.give(content, "image/png" if wrong == "another type" else self.labelled(media))
        code, _ = folder.train(self.algorithm, self.problem().hyperparameters)
        assert code == 1
        assert folder.failure.startswith("ClientError: ") and words in folder.failure, folder.failure
        assert not folder.files()

    def test_features_that_are_not_as_many_as_told_fail_the_job(self, folder: _Folder) -> None:
        if not self.width_is_told:
            return
        told = self.problem().features.shape[1] + 3
        folder.give(self.content(RECORDIO), RECORDIO)
        hyperparameters = {**self.problem().hyperparameters, "feature_dim": told}
        code, _ = folder.train(self.algorithm, hyperparameters)
        assert code == 1
        assert folder.failure.startswith("ClientError: train/rows, record 1: ")
        assert f"feature_dim is {told}" in folder.failure

    @pytest.mark.parametrize("value", [numpy.inf, -numpy.inf])
    def test_an_infinite_value_fails_the_job_and_is_told(self, folder: _Folder, value: float) -> None:
        problem = self.problem()
        rows = problem.features.copy()
        rows[3, 1] = value
        folder.give(_recordio(rows, problem.labels), RECORDIO)
        code, _ = folder.train(self.algorithm, problem.hyperparameters)
        assert code == 1 and folder.failure.startswith("ClientError: "), folder.failure
        assert "inf" in folder.failure.lower()

    def test_hyperparameters_are_checked_before_data_is_read(self, folder: _Folder) -> None:
        folder.give(b"", RECORDIO)
        code, _ = folder.train(self.algorithm, {**self.problem().hyperparameters, "surely_unknown": 1})
        assert code == 1
        assert folder.failure == (
            "ClientError: Additional properties are not allowed ('surely_unknown' was unexpected)"
        )

    def test_waiting_for_data_ends_when_it_is_told_to_stop(self, folder: _Folder) -> None:
        folder.give(b"", RECORDIO, piped=True, writer=False)
        program = folder.start(self.algorithm, self.problem().hyperparameters)
        assert program.stdout is not None
        program.stdout.readline()  # from then on SIGTERM is heeded
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=PATIENCE_SECONDS)
        assert program.returncode == 128 + signal.SIGTERM
        assert not folder.failure and not folder.files()

    def test_a_folder_without_a_model_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ClientError, match="holds no model file"):
            load_predictor(self.algorithm, tmp_path)

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Folder]:
        before = signal.getsignal(signal.SIGTERM)
        folder = _Folder(tmp_path / "ml", monkeypatch)
        yield folder
        folder.stop_writing()
        signal.signal(signal.SIGTERM, before)

    def trained(self, folder: _Folder) -> Predictor:
        folder.give(self.content(self.training_types[0]), self.training_types[0])
        code, _ = folder.train(self.algorithm, self.problem().hyperparameters)
        assert code == 0, folder.failure
        return load_predictor(self.algorithm, folder.base / "model")

    def content(self, media: str) -> bytes:
        problem = self.problem()
        return _csv(self.table()) if media == CSV else _recordio(problem.features, problem.labels)

    def table(self) -> Any:
        """Features, after the labels if there are any."""
        problem = self.problem()
        if problem.labels is None:
            return problem.features
        return numpy.column_stack([problem.labels, problem.features])

    def labelled(self, media: str) -> str:
        return f"{media};label_size=0" if media == CSV and self.problem().labels is None else media


class _Folder:
    """``/opt/ml`` of a job with one channel, whose only file is ``rows``."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = base
        self._config = base / "input/config"
        self._config.mkdir(parents=True)
        self._monkeypatch = monkeypatch
        self._writer: _Writer | None = None

    def give(self, content: bytes, content_type: str, *, piped: bool = False, writer: bool = True) -> None:
        self.stop_writing()
        data = self.base / "input/data"
        (data / "train").mkdir(parents=True, exist_ok=True)
        channel = {"ContentType": content_type, "TrainingInputMode": "Pipe" if piped else "File"}
        (self._config / "inputdataconfig.json").write_text(json.dumps({"train": channel}))
        if not piped:
            (data / "train/rows").write_bytes(content)
            return
        for epoch in range(_MOST_PASSES):
            (data / f"train_{epoch}").unlink(missing_ok=True)
            os.mkfifo(data / f"train_{epoch}")
        if writer:
            self._writer = _Writer(data, content)
            self._writer.start()

    def stop_writing(self) -> None:
        if self._writer is not None:
            self._writer.stopped.set()
            self._writer.join(PATIENCE_SECONDS)

    def train(self, algorithm: str, hyperparameters: Mapping[str, object]) -> tuple[int, str]:
        """The exit code, and what was printed."""
        self._prepare(hyperparameters)
        self._monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(self.base))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = main(["train", algorithm])
        return code, printed.getvalue()

    def start(self, algorithm: str, hyperparameters: Mapping[str, object]) -> subprocess.Popen[str]:
        self._prepare(hyperparameters)
        return subprocess.Popen(
            [sys.executable, "-c", _RUN, "train", algorithm],
            env={**os.environ, "SAGEMAKER_BASE_DIR": str(self.base)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _prepare(self, hyperparameters: Mapping[str, object]) -> None:
        for path in (self.base / "model").glob("*"):
            path.unlink()
        (self.base / "output/failure").unlink(missing_ok=True)
        (self._config / "hyperparameters.json").write_text(json.dumps(_texts(hyperparameters)))

    def files(self) -> Mapping[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.base / "model").glob("*")}

    @property
    def failure(self) -> str:
        path = self.base / "output/failure"
        return path.read_text() if path.exists() else ""


class _Writer(threading.Thread):
    """Writes the same content to each of a channel's pipes, once it is read."""

    def __init__(self, data: Path, content: bytes) -> None:
        super().__init__(daemon=True)
        self.stopped = threading.Event()
        self._data = data
        self._content = content

    def run(self) -> None:
        for number in range(_MOST_PASSES):
            descriptor = self._open(self._data / f"train_{number}")
            if descriptor is None:
                return
            os.set_blocking(descriptor, True)
            with os.fdopen(descriptor, "wb") as pipe, contextlib.suppress(BrokenPipeError):
                pipe.write(self._content)

    def _open(self, path: Path) -> int | None:
        while not self.stopped.wait(0.01):
            try:
                return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads yet
                    return None
        return None


def _texts(hyperparameters: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in hyperparameters.items()}


def _recordio(features: Any, labels: Any) -> bytes:
    return write_uniform({"values": features}, {} if labels is None else {"values": labels})


def _csv(rows: Any) -> bytes:
    """Reads back as the same numbers of 32 bits."""
    return "".join(",".join(f"{value:.9g}" for value in row) + "\n" for row in rows).encode()


def _with_cell(line: bytes, column: int, cell: bytes) -> bytes:
    cells = line.rstrip(b"\n").split(b",")
    cells[column] = cell
    return b",".join(cells) + b"\n"


def _request(rows: Any, media: str) -> bytes:
    if media == CSV:
        return _csv(rows)
    if media == RECORDIO:
        return _recordio(rows, None)
    if media == LIBSVM:
        lines = (" ".join(f"{at}:{value:.9g}" for at, value in enumerate(row)) for row in rows.tolist())
        return "".join(line + "\n" for line in lines).encode()
    instances = [{"features": row} for row in rows.tolist()]
    if media == JSON_LINES:
        return "".join(json.dumps(each) + "\n" for each in instances).encode()
    return json.dumps({"instances": instances}).encode()
