"""The command line: up, status, env, run, doctor."""


def main() -> None:
    """Entry point of the ``clary`` command."""
