"""``clary status``: whether the server is ready, and what runs on it."""

from __future__ import annotations

import argparse
import sys

from clary.settings import Settings

HELP = "exit 0 when the server is ready; show what runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(settings: Settings, options: argparse.Namespace) -> int:
    from clary.clients.report import server_report

    ready, text = server_report(settings.data)
    print(text, file=sys.stdout if ready else sys.stderr)
    return 0 if ready else 1
