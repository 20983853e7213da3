"""``clary chaos``: do on purpose what happens to machines, to see a job live through it."""

from __future__ import annotations

import argparse

from clary.settings import Settings

HELP = "break something on purpose: clary chaos interrupt JOB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["interrupt"], help="take the job's machines away, as spot does")
    parser.add_argument("job", metavar="JOB", help="the name of a running training job")


def run(settings: Settings, options: argparse.Namespace) -> int:
    from clary.clients.connect import connect
    from clary.running_server import running_server

    client = connect(settings.data, running_server(settings.data), "clary")
    client.interrupt_training_job(TrainingJobName=options.job)
    print(f"{options.job} is being interrupted: it gets SIGTERM and its grace period, then starts again.")
    return 0
