"""The agent as an AWS client: its credentials, its clients, and its patience while the server is away.

A server that was killed comes back; until then every call is repeated, for a long but limited time. So what a
job made is not lost because the server was updated while it ran.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TypeVar

import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import (
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
)

from clary.agent.failure import TaskFailed, TaskStopped
from clary.protocol.models import OWN_SERVICES
from clary.resources.task import Connection

PATIENCE_SECONDS = 15 * 60.0  # how long the server may be away before the agent gives up
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 60.0
_CONNECTIONS = 16
_REFRESH_BEFORE_SECONDS = 10 * 60.0
_TRANSIENT_CODES = frozenset(
    ("InternalError", "InternalFailure", "InternalServerError", "ServiceUnavailable", "SlowDown",
     "Throttling", "ThrottlingException", "RequestTimeout", "ExpiredToken", "ExpiredTokenException")
)  # fmt: skip
_ABSENT = (
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
    TimeoutError,
    OSError,
)

_Answer = TypeVar("_Answer")


class TaskCredentials(Credentials):  # type: ignore[misc]
    """Temporary credentials of the task's role, fetched by the container-credentials protocol when needed.

    They are bound to a `Connection` only when a task is known, so that clients can be made ahead of time.
    """

    def __init__(self) -> None:
        super().__init__("unknown", "unknown", method="container-role")
        self._connection: Connection | None = None
        self._frozen: ReadOnlyCredentials | None = None
        self._expires_at = 0.0
        self._lock = threading.Lock()

    def bind(self, connection: Connection) -> None:
        """Act for the task that ``connection`` belongs to."""
        self._connection, self._frozen = connection, None

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Credentials that are good for a while. Raises ``OSError`` if the server is away."""
        with self._lock:
            if self._frozen is None or time.time() > self._expires_at - _REFRESH_BEFORE_SECONDS:
                self._fetch()
            return self._frozen

    def forget(self) -> None:
        """Fetch anew at the next use."""
        self._frozen = None

    def _fetch(self) -> None:
        if self._connection is None:
            raise OSError("no task's credentials are to be had yet")
        request = urllib.request.Request(
            self._connection.credentials_url, headers={"Authorization": self._connection.credentials_token}
        )
        try:
            with _direct.open(request, timeout=_CONNECT_SECONDS) as reply:
                document = json.loads(reply.read(1 << 16))
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (401, 403):
                    raise TaskFailed(
                        "InternalServerError: the credentials of the execution role were refused."
                    ) from None
            raise
        self._frozen = ReadOnlyCredentials(
            document["AccessKeyId"], document["SecretAccessKey"], document["Token"]
        )
        expiration = str(document["Expiration"]).replace("Z", "+00:00")
        moment = datetime.fromisoformat(expiration)
        self._expires_at = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Clients:
    """botocore's clients for one server. Slow to make, quick to use, shared by threads."""

    def __init__(self, endpoint_url: str, region: str) -> None:
        self.endpoint_url, self.region = endpoint_url, region
        self.credentials = TaskCredentials()
        session = botocore.session.Session()
        session.set_config_variable("region", region)
        session.set_config_variable("data_path", str(OWN_SERVICES))
        session.register_component("credential_provider", self)
        self.s3 = self._make(session, "s3")
        self.logs = self._make(session, "logs")
        self.metrics = self._make(session, "sagemaker-metrics")
        self.clary = self._make(session, "clary")

    def load_credentials(self) -> TaskCredentials:
        """What botocore asks its credential provider for."""
        return self.credentials

    def _make(self, session: Any, service: str) -> Any:
        config = Config(
            retries={"total_max_attempts": 1},  # `Patience` does that
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            max_pool_connections=_CONNECTIONS,
            proxies={},
            s3={"addressing_style": "path"},
            user_agent_extra="clary-agent",
        )
        return session.create_client(
            service, region_name=self.region, endpoint_url=self.endpoint_url, config=config
        )


class Patience:
    """Repeats calls that failed because the server is away or busy."""

    def __init__(
        self,
        credentials: TaskCredentials,
        seconds: float = PATIENCE_SECONDS,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        self._credentials = credentials
        self._seconds = seconds
        self._abandoned = abandoned

    def call(self, operation: Callable[[], _Answer]) -> _Answer:
        """What ``operation`` gives, at last.

        Raises botocore's ``ClientError`` for what will not get better, `TaskFailed` after the patience ends,
        and `TaskStopped` when there is no more reason to wait.
        """
        deadline = time.monotonic() + self._seconds
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            try:
                return operation()
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if code not in _TRANSIENT_CODES and not (status >= 500 and status != 501):
                    raise
                if code.startswith("ExpiredToken"):
                    self._credentials.forget()
                failure: Exception = error
            except _ABSENT as error:
                failure = error
            if self._abandoned():
                raise TaskStopped
            if time.monotonic() > deadline:
                raise TaskFailed(
                    f"InternalServerError: the server could not be reached for {self._seconds:.0f} seconds: "
                    f"{failure}"
                ) from failure
            time.sleep(pause)
            pause = min(pause * 1.6, _LONGEST_PAUSE_SECONDS)


_made: dict[tuple[str, str], Clients] = {}


def clients_for(endpoint_url: str, region: str) -> Clients:
    """Clients for a server, made once in a process: the fork server makes them for its agents."""
    key = (endpoint_url, region)
    if key not in _made:
        _made[key] = Clients(endpoint_url, region)
    return _made[key]


def warm_up() -> None:
    """Load what `Clients` will need, so that forked agents have it: botocore's models and parsers."""
    clients = Clients("http://127.0.0.1:1", "us-east-1")
    clients.credentials.bind(Connection("http://127.0.0.1:1", "us-east-1", "http://127.0.0.1:1", ""))
    attempts: tuple[Callable[[], object], ...] = (
        lambda: clients.s3.list_objects_v2(Bucket="bucket"),
        lambda: clients.s3.get_object(Bucket="bucket", Key="key"),
        lambda: clients.s3.put_object(Bucket="bucket", Key="key", Body=b""),
        lambda: clients.logs.put_log_events(logGroupName="g", logStreamName="s", logEvents=[]),
        lambda: clients.metrics.batch_put_metrics(TrialComponentName="t", MetricData=[]),
    )
    for attempt in attempts:
        with contextlib.suppress(Exception):
            attempt()
