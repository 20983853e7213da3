"""The gateway process: takes invocations, from a table that the server pushes.

    python -m clary.serving.gateway --data DIR --host H --port N --version V

It outlives a server that is killed, and serves on with the last table it was given; the next server finds it
by its lock and control socket. There is one for each data folder.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from clary.clock import SystemClock
from clary.resources.route import EndpointRoute, route_from_json, route_to_json
from clary.serving.control import ControlBroken, GatewayPlaces, gateway_places, read_message, write_message
from clary.serving.http_server import Server
from clary.serving.invocations import InvocationApplication
from clary.serving.keys import keys_from_json
from clary.serving.model_worker import bind
from clary.serving.routing_table import build_table, retire
from clary.serving.upstream import Replica

MAX_CONNECTIONS = 4096
DRAIN_SECONDS = 5.0  # for what is in flight when the gateway is stopped
SWEEP_SECONDS = 1.0
_OPEN_FILES_BESIDE = 512  # besides clients' connections
ALREADY_RUNNING = 3  # exit code

log = logging.getLogger("clary.gateway")


def main(arguments: Sequence[str]) -> int:
    """See the module; returns the exit code."""
    parser = argparse.ArgumentParser(prog="clary-gateway")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--version", default="")
    options = parser.parse_args(list(arguments))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    places = gateway_places(options.data.absolute())
    places.make()
    lock = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"A gateway already serves {options.data}.", file=sys.stderr)
        return ALREADY_RUNNING
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS + _OPEN_FILES_BESIDE
    if limit < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, most), most))
    uvloop.run(Gateway(places, options.host, options.port, options.version).run())
    return 0


class Gateway:
    """One gateway's life."""

    def __init__(self, places: GatewayPlaces, host: str, port: int, version: str) -> None:
        self._places = places
        self._host = host
        self._port = port
        self._version = version
        self._application = InvocationApplication(SystemClock())
        self._server = Server(
            self._application, max_connections=MAX_CONNECTIONS, pause=self._application.pause
        )
        self._routes: dict[tuple[str, str, str], EndpointRoute] = {}
        self._retired: list[Replica] = []
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        listener = listen(self._host, self._port)
        self._port = listener.getsockname()[1]
        self._write_document()
        await self._server.listen(listener, bind(self._places.invocations))
        control = await asyncio.start_unix_server(self._converse, sock=bind(self._places.control))
        sweeping = loop.create_task(self._sweep())
        log.info("the gateway listens on %s port %d", self._host, self._port)
        await self._stop.wait()
        control.close()
        sweeping.cancel()
        await self._server.close(DRAIN_SECONDS)
        for path in (self._places.control, self._places.invocations):
            path.unlink(missing_ok=True)
        if self._places.sockets != self._places.folder:
            with contextlib.suppress(OSError):
                self._places.sockets.rmdir()
        log.info("the gateway has stopped")

    def _write_document(self) -> None:
        document = {"process_id": os.getpid(), "host": self._host, "port": self._port}
        temporary = self._places.document.with_suffix(".new")
        temporary.write_text(json.dumps(document), encoding="utf-8")
        temporary.replace(self._places.document)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Obey one server as long as it is there."""
        try:
            if _peer_user(writer) not in (None, os.getuid()):
                log.error("somebody else's process spoke to the control socket")
                return
            while True:
                order = await read_message(reader)
                try:
                    reply = self._obey(order)
                except (KeyError, TypeError, ValueError) as error:
                    log.exception("an order of the server cannot be read")
                    reply = {"error": f"{type(error).__name__}: {error}"}
                await write_message(writer, reply)
        except ControlBroken:
            pass
        finally:
            writer.close()

    def _obey(self, order: Mapping[str, Any]) -> dict[str, Any]:
        verb = order["do"]
        if verb == "hello":
            return {
                "version": self._version,
                "process_id": os.getpid(),
                "host": self._host,
                "port": self._port,
                "routes": [route_to_json(route) for route in self._routes.values()],
            }
        if verb == "keys":
            self._application.take_keys(keys_from_json(order["keys"]))
        elif verb == "routes":
            routes = [route_from_json(each) for each in order["routes"]]
            self._swap({(route.account, route.region, route.name): route for route in routes})
        elif verb == "route":
            route = route_from_json(order["route"])
            self._swap({**self._routes, (route.account, route.region, route.name): route})
        elif verb == "withdraw":
            gone = (order["account"], order["region"], order["name"])
            self._swap({key: route for key, route in self._routes.items() if key != gone})
        elif verb == "busy":
            replicas = [*self._application.table.replicas.values(), *self._retired]
            return {"busy": [replica.address for replica in replicas if replica.in_flight]}
        elif verb == "stats":
            return {"variants": self._take_counters()}
        elif verb == "stop":
            self._stop.set()
        else:
            raise ValueError(f"unknown order {verb!r}")
        return {}

    def _swap(self, routes: dict[tuple[str, str, str], EndpointRoute]) -> None:
        old = self._application.table
        table = build_table(old, routes.values())
        self._routes = routes
        self._application.table = table
        self._retired += retire(old, table)

    def _take_counters(self) -> list[dict[str, Any]]:
        taken = []
        for (account, region, name), record in self._application.table.endpoints.items():
            for variant in record.variants.values():
                counts = variant.counters.take()
                if counts is not None:
                    taken.append(
                        {
                            "account": account,
                            "region": region,
                            "endpoint": name,
                            "variant": variant.name,
                            "counts": counts,
                        }
                    )
        return taken

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            with contextlib.suppress(Exception):
                self._application.expire(time.monotonic())
            self._retired = [replica for replica in self._retired if replica.in_flight]


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket. Raises ``OSError`` naming the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"the gateway cannot listen on {host} port {port}: {error}") from error
    return listener


def _peer_user(writer: asyncio.StreamWriter) -> int | None:
    """The user of the process at the other end; ``None`` where the system does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    own = writer.get_extra_info("socket")
    if option is None or own is None:
        return None
    credentials = own.getsockopt(socket.SOL_SOCKET, option, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
