"""Billable seconds of jobs in every state."""

from __future__ import annotations

from typing import Any

from clary.resources.resource import Key, Resource
from clary.services.clary.costs import retained_seconds, seconds_of


def job(**status: Any) -> Resource:
    return Resource(
        key=Key("TrainingJob", "123456789012", "us-east-1", "job"),
        uid="u",
        spec={},
        generation=1,
        status=status,
        phase="InProgress",
        labels={},
        created_at=0.0,
        modified_at=0.0,
        due_at=None,
    )


def moves(*each: tuple[str, float, float | None]) -> list[dict[str, Any]]:
    return [
        {"Status": name, "StartTime": start, **({"EndTime": end} if end is not None else {})}
        for name, start, end in each
    ]


def test_waiting_costs_nothing() -> None:
    assert seconds_of(job(SecondaryStatusTransitions=moves(("Starting", 0, None))), 500.0) == (0, 0)


def test_a_running_job_is_counted_up_to_now_without_what_lay_between_its_attempts() -> None:
    found = moves(
        ("Starting", 0, 10),
        ("Downloading", 10, 20),
        ("Training", 20, 50),
        ("Interrupted", 50, 60),
        ("Restarting", 60, 100),
        ("Training", 100, None),
    )
    running = job(SecondaryStatusTransitions=found, TrainingStartTime=10.0)
    assert seconds_of(running, 130.0) == (70, 120)


def test_machines_that_are_kept_for_the_next_job_are_billed() -> None:
    assert retained_seconds(job(WarmPoolStatus={"Status": "InUse"})) == 0
    assert retained_seconds(job(WarmPoolStatus=None)) == 0
    kept = {"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 40}
    assert retained_seconds(job(WarmPoolStatus=kept)) == 40


def test_what_the_description_says_of_an_ended_job_counts() -> None:
    ended = job(
        SecondaryStatusTransitions=[],
        TrainingStartTime=10.0,
        TrainingEndTime=90.0,
        TrainingTimeInSeconds=80,
        BillableTimeInSeconds=60,
    )
    assert seconds_of(ended, 5000.0) == (60, 80)


def test_a_job_that_failed_before_it_began_costs_nothing() -> None:
    assert seconds_of(job(SecondaryStatusTransitions=[], TrainingEndTime=90.0), 5000.0) == (0, 0)
