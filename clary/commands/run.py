"""``clary run -- COMMAND``: one command, pointed at Clary."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from clary.settings import Settings

HELP = "run one command against Clary: clary run -- COMMAND"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "The command stands behind --, with its own options."


def run(settings: Settings, options: argparse.Namespace) -> int:
    from clary.clients.environment import client_environment
    from clary.running_server import running_server

    command = options.command_line
    if not command:
        print("clary run: name a command: clary run -- python train.py", file=sys.stderr)
        return 2
    variables, unset = client_environment(settings.data, running_server(settings.data), os.environ)
    environment = {name: value for name, value in os.environ.items() if name not in unset} | variables
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except FileNotFoundError:
        print(f"clary run: there is no command '{command[0]}'.", file=sys.stderr)
        return 127
    except KeyboardInterrupt:
        return 130
