"""``clary env``: the variables that point a shell at Clary."""

from __future__ import annotations

import argparse
import os
import sys

from clary.settings import Settings

HELP = 'set a shell up: eval "$(clary env)"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(settings: Settings, options: argparse.Namespace) -> int:
    from clary.clients.environment import client_environment, shell_script
    from clary.running_server import running_server

    sys.stdout.write(
        shell_script(*client_environment(settings.data, running_server(settings.data), os.environ))
    )
    return 0
