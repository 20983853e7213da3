"""``clary logs``: what a training job or an endpoint says, of all its hosts."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clary.clients.log_reader import Line, LogReader
    from clary.settings import Settings

HELP = "what a training job or an endpoint says: clary logs JOB --follow"
PAUSE_SECONDS = 0.5
AWAY_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0
_STREAM = re.compile(r"(?P<host>.+)-(?P<created>\d+)\Z")
_ENDED = ("Completed", "Failed", "Stopped")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the name of a training job, or of an endpoint")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it has ended")
    parser.add_argument("--host", help="only this host's lines (algo-1), or this variant's of an endpoint")
    parser.add_argument("--times", action="store_true", help="begin each line with its time")
    parser.add_argument("--region", help="the region it is in (default: the server's)")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Exit 1 if the job failed, 0 if it did not or has not ended."""
    try:
        return _Telling(settings, options).run()
    except BrokenPipeError:  # whoever read us (head) has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Telling:
    def __init__(self, settings: Settings, options: argparse.Namespace) -> None:
        self._settings = settings
        self._options = options
        self._said: list[str] = []  # of the statuses

    def run(self) -> int:
        sagemaker = self._client("sagemaker")
        describe, reader = self._subject(sagemaker)
        while True:
            try:
                subject = describe()
                for line in reader.lines():
                    self._print(line, reader)
            except Exception as error:
                if not self._options.follow or not _may_come_back(error):
                    raise
                self._note("the server is away; waiting for it")
                time.sleep(AWAY_SECONDS)
                describe, reader = self._reconnected(describe, reader)
                continue
            ended = subject["ended"]
            if ended is not None or not self._options.follow:
                sys.stdout.flush()
                self._note(subject["last_word"])
                return 1 if ended == "Failed" else 0
            self._note(subject["now"])
            sys.stdout.flush()
            time.sleep(PAUSE_SECONDS)

    def _client(self, service: str) -> Any:
        from clary.clients.connect import connect
        from clary.running_server import running_server

        server = running_server(self._settings.data)
        return connect(
            self._settings.data,
            server,
            service,
            timeout_seconds=TIMEOUT_SECONDS,
            region=self._options.region,
        )

    def _reconnected(
        self, describe: Callable[[], dict[str, Any]], reader: LogReader
    ) -> tuple[Callable[[], dict[str, Any]], LogReader]:
        """Both, of the server that runs now, if one does; the reader goes on where it was."""
        from clary.clients.environment import NotReady
        from clary.running_server import NotRunning

        try:
            describe = self._subject(self._client("sagemaker"))[0]
            reader.logs = self._client("logs")
        except (NotReady, NotRunning):
            pass
        except Exception as error:
            if not _may_come_back(error):
                raise
        return describe, reader

    def _subject(self, sagemaker: Any) -> tuple[Callable[[], dict[str, Any]], LogReader]:
        """How to ask what became of NAME, and the reader of its log."""
        from botocore.exceptions import ClientError

        from clary.clients.log_reader import LogReader

        name, host = self._options.name, self._options.host
        try:
            job = sagemaker.describe_training_job(TrainingJobName=name)
        except ClientError as error:
            if not _not_there(error):
                raise
        else:
            hosts = _hosts(job)
            if host and host not in hosts:
                raise SystemExit(f"clary logs: {name} has no host {host}: its hosts are {', '.join(hosts)}.")
            # A job of the same name that was deleted had streams too; they tell when theirs was created.
            created = str(int(job["CreationTime"].timestamp()))
            reader = LogReader(
                self._client("logs"),
                "/aws/sagemaker/TrainingJobs",
                f"{name}/",
                lambda stream: _host_of(stream.partition("/")[2], created, host),
            )
            return lambda: _job(sagemaker, name), reader
        try:
            sagemaker.describe_endpoint(EndpointName=name)
        except ClientError as error:
            if not _not_there(error):
                raise
            raise SystemExit(f"clary logs: there is no training job and no endpoint '{name}'.") from None
        reader = LogReader(
            self._client("logs"),
            f"/aws/sagemaker/Endpoints/{name}",
            "",
            lambda stream: stream if not host or stream.startswith(f"{host}/") else None,
        )
        return lambda: _endpoint(sagemaker, name), reader

    def _print(self, line: Line, reader: LogReader) -> None:
        several = len(set(reader.speakers())) > 1
        prefix = f"{line.stream}  " if several else ""
        if self._options.times:
            at = datetime.fromtimestamp(line.at / 1000, timezone.utc)
            prefix = f"{at:%Y-%m-%dT%H:%M:%S}.{line.at % 1000:03d}Z  {prefix}"
        text = (prefix + line.text).encode(sys.stdout.encoding or "utf-8", errors="replace")
        sys.stdout.buffer.write(text + b"\n")

    def _note(self, text: str) -> None:
        """Say once, beside the log, what the log does not."""
        if text and self._said[-1:] != [text]:
            self._said.append(text)
            sys.stdout.flush()
            print(f"-- {text}", file=sys.stderr, flush=True)


def _job(sagemaker: Any, name: str) -> dict[str, Any]:
    job = sagemaker.describe_training_job(TrainingJobName=name)
    status, last = job["TrainingJobStatus"], job["SecondaryStatusTransitions"][-1]
    now = ": ".join(word for word in (last["Status"], last.get("StatusMessage", "")) if word)
    if status not in _ENDED:
        return {"ended": None, "now": now, "last_word": f"{name} has not ended. {now}"}
    reason = f": {job['FailureReason']}" if job.get("FailureReason") else ""
    seconds = job.get("BillableTimeInSeconds")
    billed = f" ({seconds} billable seconds)" if seconds else ""
    exceeded = ", out of time" if job["SecondaryStatus"].startswith("Max") else ""
    return {"ended": status, "now": now, "last_word": f"{name} {status}{exceeded}{billed}{reason}"}


def _endpoint(sagemaker: Any, name: str) -> dict[str, Any]:
    from botocore.exceptions import ClientError

    try:
        endpoint = sagemaker.describe_endpoint(EndpointName=name)
    except ClientError as error:
        if not _not_there(error):
            raise
        return {"ended": "Deleted", "now": "", "last_word": f"{name} was deleted"}
    status = endpoint["EndpointStatus"]
    reason = f": {endpoint['FailureReason']}" if endpoint.get("FailureReason") else ""
    ended = "Failed" if status == "Failed" else None
    return {"ended": ended, "now": status, "last_word": f"{name} is {status}{reason}"}


def _hosts(job: dict[str, Any]) -> list[str]:
    resources = job["ResourceConfig"]
    groups = resources.get("InstanceGroups") or [resources]
    count = sum(int(group["InstanceCount"]) for group in groups)
    return [f"algo-{number}" for number in range(1, count + 1)]


def _host_of(stream: str, created: str, wanted: str | None) -> str | None:
    match = _STREAM.match(stream)
    if not match or match["created"] != created or wanted not in (None, match["host"]):
        return None
    return match["host"]


def _not_there(error: Any) -> bool:
    return "Could not find" in str(error.response["Error"]["Message"])


def _may_come_back(error: Exception) -> bool:
    """Whether the server is away, rather than refusing."""
    if not type(error).__module__.startswith("botocore."):
        return False
    response = getattr(error, "response", None)
    return not response or int(response["ResponseMetadata"]["HTTPStatusCode"]) >= 500
