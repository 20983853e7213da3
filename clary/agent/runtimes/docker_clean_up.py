"""``python -m clary.agent.runtimes.docker_clean_up TASKS_FOLDER TASK_ID...``: after agents that were killed.

A process of its own, so that the server never loads the engine's SDK nor waits for an engine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from clary.agent.runtimes.docker import clean_up_records
from clary.resources.container_record import container_records


def main(arguments: list[str]) -> int:
    tasks, wanted = Path(arguments[0]), set(arguments[1:])
    records = (record for record in container_records(tasks) if record.task_id in wanted)
    return 0 if clean_up_records(records, tasks) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
