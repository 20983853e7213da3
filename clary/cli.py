"""The command line: up, status, env, run, doctor.

Commands other than ``up`` talk to the server that runs on the data folder, or say that none does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from clary import __version__
from clary.settings import Settings, load_settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``clary`` command."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(
            {name: getattr(options, name, None) for name in ("data", "host", "port", "log_level")}
        )
    except ValueError as error:
        raise SystemExit(f"clary: {error}") from None
    raise SystemExit(options.command(settings, options))


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--data", metavar="DIR", help="the folder that holds everything (default ~/.clary)")
    parser = argparse.ArgumentParser(
        prog="clary",
        description="A self-hosted machine-learning platform that speaks Amazon SageMaker's API.",
    )
    parser.add_argument("--version", action="version", version=f"clary {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", parents=[shared], help="run the server until Ctrl-C")
    up.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    up.add_argument(
        "--port", type=int, help="port to listen on (default 8750; 0 picks a free one and keeps it)"
    )
    up.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    up.set_defaults(command=_up)

    status = commands.add_parser(
        "status", parents=[shared], help="exit 0 when the server is ready; show what runs"
    )
    status.set_defaults(command=_status)

    env = commands.add_parser("env", parents=[shared], help='set a shell up: eval "$(clary env)"')
    env.set_defaults(command=_env)

    run = commands.add_parser(
        "run", parents=[shared], help="run one command against Clary: clary run -- COMMAND"
    )
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    run.set_defaults(command=_run)

    doctor = commands.add_parser(
        "doctor", parents=[shared], help="what this machine offers, and what is missing"
    )
    doctor.set_defaults(command=_doctor)
    return parser


def _up(settings: Settings, options: argparse.Namespace) -> int:
    from clary.assembly import run_server

    return run_server(settings)


def _status(settings: Settings, options: argparse.Namespace) -> int:
    from clary.clients.report import server_report

    ready, text = server_report(settings.data)
    print(text, file=sys.stdout if ready else sys.stderr)
    return 0 if ready else 1


def _env(settings: Settings, options: argparse.Namespace) -> int:
    from clary.clients.environment import shell_script

    found = _client_environment(settings.data)
    if isinstance(found, str):
        print(f"clary env: {found}", file=sys.stderr)
        return 1
    sys.stdout.write(shell_script(*found))
    return 0


def _run(settings: Settings, options: argparse.Namespace) -> int:
    command = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not command:
        print("clary run: name a command: clary run -- python train.py", file=sys.stderr)
        return 2
    found = _client_environment(settings.data)
    if isinstance(found, str):
        print(f"clary run: {found}", file=sys.stderr)
        return 1
    variables, unset = found
    environment = {name: value for name, value in os.environ.items() if name not in unset} | variables
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except FileNotFoundError:
        print(f"clary run: there is no command '{command[0]}'.", file=sys.stderr)
        return 127
    except KeyboardInterrupt:
        return 130


def _client_environment(data: Path) -> tuple[dict[str, str], Sequence[str]] | str:
    """The variables, or a sentence that says why there are none."""
    from clary.clients.environment import NotReady, client_environment
    from clary.running_server import find_running

    server = find_running(data)
    if server is None:
        return f"no server runs on {data}. Start one with: clary up --data {data}"
    try:
        return client_environment(data, server, os.environ)
    except NotReady as error:
        return str(error)


def _doctor(settings: Settings, options: argparse.Namespace) -> int:
    from clary.clients.doctor import examine

    findings = examine(settings)
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        print(f"{finding.verdict:>7}  {finding.subject:<{width}}  {finding.detail}")
        if finding.remedy:
            print(f"{'':>7}  {'':<{width}}  -> {finding.remedy}")
    return 1 if any(finding.verdict == "missing" for finding in findings) else 0


if __name__ == "__main__":
    main()
