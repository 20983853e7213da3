"""What callers see of a download that is under way."""

from __future__ import annotations

from clary.resources.task import TaskPhase, TaskStatus, TaskTransition
from clary.resources.training_job import advance


def seen(*transitions: tuple[TaskPhase, str]) -> list[tuple[str, str]]:
    """Statuses and messages after a task went through ``transitions``."""
    task = TaskStatus(
        "task",
        "owner",
        transitions[-1][0],
        tuple(TaskTransition(phase, float(at + 1), text) for at, (phase, text) in enumerate(transitions)),
    )
    started = {"Status": "Starting", "StartTime": 0.0, "StatusMessage": "Starting the training job"}
    return [(each["Status"], each["StatusMessage"]) for each in advance([started], task)]


def test_the_status_message_says_how_far_the_download_is() -> None:
    message = "Downloading input data: 1.2 GiB of 4 GiB"
    assert seen((TaskPhase.PREPARING, message))[-1] == ("Downloading", message)


def test_what_came_of_the_download_stays_when_training_begins() -> None:
    message = "Downloading input data: 5 GiB linked from the object store"
    shown = seen((TaskPhase.PREPARING, message), (TaskPhase.RUNNING, "Training in progress"))
    assert shown[1:] == [
        ("Downloading", message),
        ("Training", "Training image download completed. Training in progress."),
    ]
