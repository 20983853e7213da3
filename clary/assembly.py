"""The only place that picks implementations and wires the roles together."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import logging.handlers
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path

import uvloop

from clary import __version__
from clary.agent.runtimes.mounts import parse_file_systems
from clary.clock import Clock, SystemClock
from clary.compute.driver import Driver
from clary.compute.local.driver import LocalDriver
from clary.compute.local.fencing import SandboxUnavailable
from clary.controllers.algorithms import AlgorithmController
from clary.controllers.endpoints import EndpointController
from clary.controllers.event_delivery import EventDelivery
from clary.controllers.event_router import EventRouter
from clary.controllers.event_targets import EventTargets
from clary.controllers.state_change_feed import StateChangeFeed
from clary.controllers.training_jobs import TrainingJobController, owner_key
from clary.controllers.work_loop import WorkLoop
from clary.event_bus.sqlite_events import SqliteEventStore
from clary.faults import InUse
from clary.objects.filesystem.store import FilesystemObjectStore
from clary.objects.object_store import ObjectStore
from clary.objects.s3.store import S3ObjectStore
from clary.pricing.price_book import OWN_NAME, PriceBook
from clary.protocol.certificate_authority import ensure_certificates
from clary.protocol.front_door import FrontDoor
from clary.protocol.listeners import serve
from clary.protocol.models import ServiceModels
from clary.protocol.signature import Authenticator
from clary.protocol.wire import Call, ReplyMembers
from clary.queues.sqlite_queues import SqliteQueueStore
from clary.running_server import (
    AlreadyRunning,
    RunningServer,
    announce,
    bracketed,
    hold_data_folder,
    reachable_host,
)
from clary.services.iam.documents import ACCESS_KEY, USER, role_key
from clary.services.operation import Backends, Handler, RequestContext, load_operations
from clary.services.s3.task_objects import PATH as TASK_OBJECTS_PATH
from clary.services.s3.task_objects import task_objects
from clary.services.sagemaker.quotas import parse_quotas
from clary.services.sts.key_ring import ServerKeyRing, active_users
from clary.services.sts.secret_files import load_root_credentials, load_server_secret
from clary.services.sts.task_credentials import PATH as CREDENTIALS_PATH
from clary.services.sts.task_credentials import task_credentials
from clary.serving.gateway_client import Gateway, GatewayFailed
from clary.serving.keys import GatewayKeys
from clary.serving.metric_collector import MetricCollector
from clary.settings import Settings
from clary.store.memory import MemoryStore
from clary.store.sqlite import SqliteStore
from clary.store.store import Store
from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.sqlite_logs import SqliteLogStore
from clary.telemetry.sqlite_metrics import SqliteMetricStore

EXECUTION_ROLE = "ClaryExecutionRole"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": ["sagemaker.amazonaws.com"]}, "Action": "sts:AssumeRole"}
    ],
}
LOG_FILE_BYTES = 20 * 1024**2
LOG_FILES = 5
USERS_CHECK_SECONDS = 30.0
USERS_EVENTS = 1000
log = logging.getLogger("clary")


def run_server(settings: Settings) -> int:
    """Run until SIGINT or SIGTERM; the exit code. Says on standard error why it cannot start."""
    try:
        with hold_data_folder(settings.data):
            _set_up_logging(settings.data, settings.log_level)
            uvloop.run(_serve(settings))
        return 0
    except (AlreadyRunning, GatewayFailed, SandboxUnavailable, ValueError, RuntimeError) as error:
        print(f"clary: {error}", file=sys.stderr)
    except OSError as error:
        print(f"clary: {error.strerror or error}", file=sys.stderr)
    return 1


async def _serve(settings: Settings) -> None:
    started = time.monotonic()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    settings = _with_ports(settings)
    async with _roles(settings) as server:
        announce(settings.data, server)
        print(_welcome(settings, server, time.monotonic() - started), flush=True)
        await ended.wait()
        print("\nStopping: jobs and endpoints end, and start again with the next `clary up`.", flush=True)


@contextlib.asynccontextmanager
async def _roles(settings: Settings) -> AsyncIterator[RunningServer]:
    """Everything the server consists of, in the order in which one thing needs another."""
    clock = SystemClock()
    data = settings.data
    root = load_root_credentials(data, settings.account)
    secret = load_server_secret(data)
    host = reachable_host(settings.host)
    endpoint_url = f"http://{bracketed(host)}:{settings.port}"
    certificates = ensure_certificates(data / "tls", [settings.host, host, socket.gethostname()], clock.now())
    async with contextlib.AsyncExitStack() as stack:
        store = _store(settings, clock)
        stack.push_async_callback(store.close)
        await store.forget_leases()
        objects = await _objects(settings, root.account, clock)
        stack.push_async_callback(objects.close)
        telemetry = TelemetryDatabase(data / "telemetry.sqlite")
        logs, metrics = SqliteLogStore(telemetry, clock), SqliteMetricStore(telemetry)
        stack.push_async_callback(logs.close)
        stack.push_async_callback(metrics.close)
        queues = SqliteQueueStore(data / "queues.sqlite", clock)
        stack.push_async_callback(queues.close)
        events = SqliteEventStore(data / "events.sqlite", clock)
        stack.push_async_callback(events.close)
        driver = LocalDriver(
            data,
            sandbox=settings.sandbox,
            cpu_count=settings.cpu_count,
            memory_bytes=settings.memory_bytes,
            task_processes=settings.task_processes,
            cgroups=settings.control_groups,
            file_systems=parse_file_systems(settings.file_systems, data),
            docker_host=settings.docker_host,
            docker_pull=settings.docker_pull,
        )
        stack.push_async_exit(_ending(driver))
        await driver.open()
        await _ensure_execution_role(store, root.account)
        quotas = parse_quotas(settings.quotas)
        backends = Backends(
            store=store,
            objects=objects,
            logs=logs,
            metrics=metrics,
            driver=driver,
            clock=clock,
            secret=secret,
            endpoint_url=endpoint_url,
            queues=queues,
            events=events,
            quotas=quotas,
            prices=PriceBook(data / OWN_NAME),
        )
        key_ring = ServerKeyRing(
            root,
            secret,
            store,
            execution_role=EXECUTION_ROLE,
            account_from_access_key=settings.account_from_access_key,
        )
        gateway = await Gateway.start_or_find(
            data,
            host=settings.host,
            port=settings.gateway_port,
            keys=GatewayKeys(
                account=root.account,
                access_key_id=root.access_key_id,
                secret_access_key=root.secret_access_key,
                secret=secret,
                region=settings.region,
                verify=settings.verify_signatures,
                account_from_access_key=settings.account_from_access_key,
            ),
        )
        stack.push_async_callback(gateway.stop)
        models = ServiceModels()
        feed = StateChangeFeed(store, events, models)
        await feed.catch_up()  # before anybody can delete what it tells of
        door = FrontDoor(
            models=models,
            authenticator=Authenticator(
                key_ring,
                clock,
                default_account=root.account,
                default_region=settings.region,
                verify=settings.verify_signatures,
            ),
            handlers=_handlers(backends),
            mounts={
                CREDENTIALS_PATH: task_credentials(secret, driver, clock),
                TASK_OBJECTS_PATH: task_objects(secret, driver, objects),
            },
            forward=gateway.forward,
            own_names=[host, settings.host],
        )
        await stack.enter_async_context(
            serve(
                door,
                settings.host,
                settings.port,
                tls_port=settings.tls_port,
                certificate=certificates.server,
            )
        )
        # Long polls end, and the listeners can close.
        stack.callback(queues.stop_waiting)
        stack.callback(events.stop_waiting)
        # Tasks end while the server still answers them: they have logs and checkpoints to deliver.
        stack.push_async_exit(_ending(driver))
        work_loop = WorkLoop(
            store,
            [
                AlgorithmController(store, clock),
                TrainingJobController(
                    store=store,
                    driver=driver,
                    metrics=metrics,
                    clock=clock,
                    secret=secret,
                    endpoint_url=endpoint_url,
                    spot_interruptions_per_hour=settings.spot_interruptions_per_hour,
                ),
                EndpointController(driver, gateway, clock, secret=secret, endpoint_url=endpoint_url),
            ],
            clock,
        )
        _nudge_on_change(driver, work_loop)
        await stack.enter_async_context(_in_background(_tell_users(store, gateway)))
        delivery = EventDelivery(events, EventTargets(store, queues, logs, clock), clock)
        router = EventRouter(store, events, delivery.wake)
        for role in (delivery.run(), router.run(), feed.run()):
            await stack.enter_async_context(_in_background(role))
        collector = MetricCollector(gateway, metrics, clock)
        stack.push_async_callback(collector.collect)
        await stack.enter_async_context(_in_background(collector.run()))
        await stack.enter_async_context(_running(work_loop))
        await driver.expect(endpoint_url, settings.region)
        yield RunningServer(
            process_id=os.getpid(),
            host=settings.host,
            port=settings.port,
            tls_port=settings.tls_port,
            gateway_port=gateway.port,
            region=settings.region,
            account=root.account,
            version=__version__,
            started_at=clock.now(),
        )


def _store(settings: Settings, clock: Clock) -> Store:
    if settings.store == "memory":
        return MemoryStore(clock)
    if settings.store == "sqlite":
        return SqliteStore(settings.data / "store.sqlite", clock)
    raise ValueError(f"The setting 'store' must be sqlite or memory, not '{settings.store}'.")


async def _objects(settings: Settings, account: str, clock: Clock) -> ObjectStore:
    if settings.objects == "s3":
        return S3ObjectStore(
            endpoint_url=settings.objects_s3_endpoint or None,
            region=settings.objects_s3_region,
            access_key_id=settings.objects_s3_access_key_id,
            secret_access_key=settings.objects_s3_secret_access_key,
            account=account,
        )
    if settings.objects != "filesystem":
        raise ValueError(f"The setting 'objects' must be filesystem or s3, not '{settings.objects}'.")
    objects = FilesystemObjectStore(settings.data / "objects", clock)
    swept = await objects.sweep()
    if swept:
        log.info("removed %d files that interrupted uploads had left", swept)
    return objects


def _handlers(
    backends: Backends,
) -> Mapping[tuple[str, str], Callable[[Call], Awaitable[ReplyMembers]]]:
    """Every operation, given what it needs besides its input."""

    def bound(handler: Handler) -> Callable[[Call], Awaitable[ReplyMembers]]:
        return lambda call: handler(RequestContext(backends, call), call.members)

    return {name: bound(handler) for name, handler in load_operations().items()}


async def _ensure_execution_role(store: Store, account: str) -> None:
    """The role whose session the default credentials are; SDKs look it up and check whom it trusts."""
    spec = {
        "RoleName": EXECUTION_ROLE,
        "Path": "/",
        "AssumeRolePolicyDocument": json.dumps(_TRUST),
        "Description": "The role that Clary's own credentials act as, and that jobs may run as.",
    }
    with contextlib.suppress(InUse):
        await store.create(role_key(account, EXECUTION_ROLE), spec, {}, phase="Active", due_at=None)


def _ending(driver: Driver) -> Callable[..., Awaitable[bool | None]]:
    """Ends the driver: with all tasks on the way down."""

    async def end(*_: object) -> None:
        await driver.close(stop_tasks=True)

    return end


def _nudge_on_change(driver: Driver, work_loop: WorkLoop) -> None:
    """A task that moved makes its owner due at once."""
    nudges: set[asyncio.Task[None]] = set()

    def moved(owner: str) -> None:
        task = asyncio.ensure_future(work_loop.nudge(owner_key(owner)))
        nudges.add(task)
        task.add_done_callback(nudges.discard)

    driver.on_change(moved)


async def _tell_users(store: Store, gateway: Gateway) -> None:
    """Keep the gateway told whose access keys count, for it cannot ask the store."""
    seen = 0
    while True:
        try:
            await gateway.set_users(await active_users(store))
            while True:
                newest = await store.wait(after=seen, timeout_seconds=USERS_CHECK_SECONDS)
                events = await store.events(after=seen, limit=USERS_EVENTS)
                seen = max([newest, *(event.sequence for event in events)])
                if len(events) == USERS_EVENTS or any(e.key.kind in (ACCESS_KEY, USER) for e in events):
                    break
        except GatewayFailed as error:
            log.warning("the gateway could not be told of access keys: %s", error)
            await asyncio.sleep(USERS_CHECK_SECONDS)
        except Exception:
            log.exception("the gateway could not be told of access keys")
            await asyncio.sleep(USERS_CHECK_SECONDS)


@contextlib.asynccontextmanager
async def _in_background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """``work`` runs while the context lasts and looks after its own errors; one that ended it is logged."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await task
            except Exception:
                log.exception("a background task ended")


@contextlib.asynccontextmanager
async def _running(work_loop: WorkLoop) -> AsyncIterator[None]:
    task = asyncio.create_task(work_loop.run())
    try:
        yield
    finally:
        await work_loop.stop()
        await task


def _with_ports(settings: Settings) -> Settings:
    """``settings`` with every port decided: one that is 0 is picked once and kept in the data folder."""
    path = settings.data / "ports.json"
    try:
        kept = {str(name): int(port) for name, port in json.loads(path.read_text()).items()}
    except (FileNotFoundError, ValueError, AttributeError):
        kept = {}
    chosen: dict[str, int] = {}
    for name in ("port", "tls_port", "gateway_port"):
        port = getattr(settings, name) or kept.get(name) or _free_port(settings.host)
        chosen[name] = port
    path.write_text(json.dumps(chosen), encoding="utf-8")
    return dataclasses.replace(
        settings, port=chosen["port"], tls_port=chosen["tls_port"], gateway_port=chosen["gateway_port"]
    )


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _welcome(settings: Settings, server: RunningServer, seconds: float) -> str:
    option = "" if settings.data == Path("~/.clary").expanduser() else f" --data {settings.data}"
    return (
        f"Clary {server.version} is ready at {server.endpoint_url} ({seconds:.1f} s).\n\n"
        f"  Data        {settings.data} (its log: server.log)\n"
        f'  This shell  eval "$(clary env{option})"\n'
        f"  One command clary run{option} -- python train.py\n\n"
        "Ctrl-C stops it."
    )


def _set_up_logging(data: Path, level: str) -> None:
    """Everything goes to ``server.log`` in the data folder; the terminal shows warnings and errors."""
    names = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
    if level not in names:
        raise ValueError(f"The setting 'log_level' must be one of {', '.join(names)}, not '{level}'.")
    form = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    path = data / "server.log"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    file = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILES)
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    for handler in (file, terminal):
        handler.setFormatter(form)
    logging.basicConfig(level=names[level], handlers=[file, terminal])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
