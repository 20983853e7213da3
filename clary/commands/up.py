"""``clary up``: the server."""

from __future__ import annotations

import argparse

from clary.settings import Settings

HELP = "run the server until Ctrl-C"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, help="port to listen on (default 8750; 0 picks a free one and keeps it)"
    )
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"])


def run(settings: Settings, options: argparse.Namespace) -> int:
    from clary.assembly import run_server

    return run_server(settings)
