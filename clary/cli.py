"""The command line. A command is a module of `clary.commands`, found by its being there.

A command's module has ``HELP``, ``add_arguments(parser)`` and ``run(settings, options)``, which gives the
exit code; what it needs besides is imported when it runs, so that every command starts at once. ``options``
has, besides its arguments, ``command_line``: what the user wrote behind ``--``. Commands other than ``up``
talk to the server that runs on the data folder, or say that none does.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence

from clary import __version__, commands
from clary.settings import Settings, load_settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``clary`` command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # What follows a "--" is another program's command line, of which nothing is ours.
    end = given.index("--") if "--" in given else len(given)
    options = parser().parse_args(given[:end])
    options.command_line = given[end + 1 :]
    try:
        settings = load_settings(
            {name: getattr(options, name, None) for name in ("data", "host", "port", "log_level")}
        )
    except ValueError as error:
        raise SystemExit(f"clary: {error}") from None
    raise SystemExit(_run(settings, options))


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--data", metavar="DIR", help="the folder that holds everything (default ~/.clary)")
    whole = argparse.ArgumentParser(
        prog="clary",
        description="A self-hosted machine-learning platform that speaks Amazon SageMaker's API.",
    )
    whole.add_argument("--version", action="version", version=f"clary {__version__}")
    subparsers = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name in sorted(found.name for found in pkgutil.iter_modules(commands.__path__)):
        command = importlib.import_module(f"{commands.__name__}.{name}")
        subparser = subparsers.add_parser(name, parents=[shared], help=command.HELP, description=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return whole


def _run(settings: Settings, options: argparse.Namespace) -> int:
    """The exit code of the command; what it could not do for want of a server, or was refused, is said."""
    from clary.clients.environment import NotReady
    from clary.running_server import NotRunning

    try:
        return int(options.run(settings, options))
    except (NotReady, NotRunning) as error:
        print(f"clary {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        print(f"clary {options.command}: {refusal}", file=sys.stderr)
        return 1


def _refusal(error: Exception) -> str | None:
    """What the server, or the connection to it, said against a request."""
    if not type(error).__module__.startswith("botocore."):
        return None
    response = getattr(error, "response", None)
    return str(response["Error"]["Message"]) if response else str(error)


if __name__ == "__main__":
    main()
