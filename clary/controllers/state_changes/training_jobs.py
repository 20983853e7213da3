"""A training job changes with each secondary status, and with its status."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from clary.controllers.state_change import StateChange, without_spec
from clary.resources.resource import Resource
from clary.resources.training_job import KIND, NOT_OF_THE_REQUEST, describe

__all__ = ["DESCRIBE", "DETAIL_TYPE", "KIND", "changes"]

DETAIL_TYPE = "SageMaker Training Job State Change"
DESCRIBE = "DescribeTrainingJob"
# What is known of a job only when it has ended.
_OF_THE_END = frozenset(
    {
        "TrainingEndTime",
        "TrainingTimeInSeconds",
        "BillableTimeInSeconds",
        "FailureReason",
        "FinalMetricDataList",
        "ModelArtifacts",
    }
)


def changes(resource: Resource, mark: str | None) -> tuple[Sequence[StateChange], str]:
    """One for each secondary status that was not told of, as the job was then."""
    moves: Any = resource.status["SecondaryStatusTransitions"]
    if mark is not None:
        told, _, phase = mark.partition(" ")
        first = int(told)
        if first == len(moves) and phase != resource.phase:
            first -= 1
    else:
        # Of one that was there before anybody told, what it is now.
        first = 0 if resource.phase == "InProgress" and len(moves) == 1 else len(moves) - 1
    made = [_change(resource, moves, place) for place in range(first, len(moves))]
    return made, f"{len(moves)} {resource.phase}"


def _change(resource: Resource, moves: Sequence[dict[str, Any]], place: int) -> StateChange:
    last = place == len(moves) - 1
    move = moves[place]
    status: dict[str, Any] = {**resource.status, "SecondaryStatusTransitions": list(moves[: place + 1])}
    phase = resource.phase
    if not last:
        then = {name: value for name, value in move.items() if name != "EndTime"}
        status["SecondaryStatusTransitions"] = [*moves[:place], then]
        status = {name: value for name, value in status.items() if name not in _OF_THE_END}
        phase = "Stopping" if move["Status"] == "Stopping" else "InProgress"
    at = float(move.get("StartTime", resource.modified_at))
    # Wishes that came later, and that describe() would show, are not of this moment.
    spec = {
        name: value
        for name, value in resource.spec.items()
        if name == "Tags" or name not in NOT_OF_THE_REQUEST
    }
    shown = dataclasses.replace(
        resource,
        spec=spec,
        status={**status, "TrainingJobStatus": phase, "SecondaryStatus": move["Status"]},
        phase=phase,
        modified_at=resource.modified_at if last else at,
    )
    members = describe(shown) if spec else without_spec(shown)
    return StateChange(resource.modified_at if last else at, members)
