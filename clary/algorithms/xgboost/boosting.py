"""The rounds of boosting: scores over all hosts, the log line a round, checkpoints, patience, and the stop.

The loop is the library's own ``train`` but for three things: a round's number goes on where the checkpoint
ends, so does the patience of early stopping, and hosts that train together stop together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xgboost

from clary.algorithms.faults import ClientError
from clary.algorithms.job import Job
from clary.algorithms.xgboost.checkpoints import Checkpoints
from clary.algorithms.xgboost.custom_metrics import Scorer
from clary.algorithms.xgboost.hosts import Group
from clary.algorithms.xgboost.library import booster_from, is_callers_mistake, library_message
from clary.algorithms.xgboost.plan import Plan
from clary.algorithms.xgboost.spec import MAXIMIZED

Scores = Mapping[str, Mapping[str, float]]  # by data set and metric


class RoundWatch:
    """Prints a line a round as the container does, and keeps checkpoints; on one host of several only."""

    def __init__(self, job: Job, *, done: int = 0, checkpoints: bool = True, speaks: bool = True) -> None:
        self._job = job
        folder = job.checkpoints if checkpoints and speaks else None
        self._checkpoints = Checkpoints(folder) if folder is not None else None
        self._speaks = speaks
        self.rounds = done

    @property
    def stop_requested(self) -> bool:
        return self._job.stop_requested

    def after_round(self, booster: Any, number: int, scores: Scores, *, is_last: bool) -> None:
        self.rounds = number + 1
        if self._speaks:
            self._job.log(
                f"[{number}]"
                + "".join(
                    shown_score(data, metric, score)
                    for data, metrics in scores.items()
                    for metric, score in metrics.items()
                )
            )
        if self._checkpoints is not None:
            self._checkpoints.after_round(booster, number, is_last=is_last)


def shown_score(data: str, metric: str, score: float) -> str:
    """A score as log lines have it, under the name the metric is asked for by."""
    name = "tweedie-nloglik" if metric.startswith("tweedie-nloglik") else metric
    return f"\t{data}-{name}:{score:.5f}"


def boost(
    plan: Plan,
    matrices: Mapping[str, Any],
    watch: RoundWatch,
    before: Any = None,
    together: Group | None = None,
) -> tuple[Any, Scores]:
    """The booster after the plan's rounds on ``matrices["train"]``, and its last scores.

    ``before`` is the booster that has had the first ``watch.rounds`` of them. Raises `ClientError` where the
    caller is to blame.
    """
    together = together or Group()
    scores: Scores = {}
    try:
        scorer = Scorer(plan, matrices, together)
        booster = xgboost.Booster(scorer.options, list(matrices.values()), model_file=before)
        patience = _Patience(plan, booster) if plan.patience and "validation" in matrices else None
        stops = together.any(watch.stop_requested)
        number = watch.rounds
        while number < plan.rounds and not stops and not (patience and patience.is_over(number)):
            if plan.renews:
                _renew_updater(booster, plan)
            booster.update(matrices["train"], iteration=number)
            scores = scorer.scores(booster, number)
            if patience:
                patience.look(booster, number, scores["validation"])
            stops = together.any(watch.stop_requested)
            number += 1
            ends = stops or number == plan.rounds or bool(patience and patience.is_over(number))
            watch.after_round(booster, number - 1, scores, is_last=ends)
        return (patience.best(booster) if patience else booster.reset()), scores
    except (xgboost.core.XGBoostError, ValueError) as error:
        if is_callers_mistake(error):
            raise ClientError(library_message(error)) from error
        raise


def _renew_updater(booster: Any, plan: Plan) -> None:
    """Make the library build a new tree updater for the next round.

    An updater draws columns from a generator of its own, which no model file keeps: one that lives as long as
    its program would draw other columns after an interruption.
    """
    if "updater" in plan.options or plan.options.get("booster") == "gblinear":
        return
    method = plan.options.get("tree_method", "auto")
    booster.set_param({"tree_method": "approx" if method in ("auto", "hist") else "hist"})
    booster.num_boosted_rounds()  # puts the change into effect
    booster.set_param({"tree_method": method})


class _Patience:
    """Early stopping by the last metric that was asked for; where none was, by the objective's.

    The best round so far is noted in the booster, where a later run finds it in the checkpoint.
    """

    def __init__(self, plan: Plan, booster: Any) -> None:
        assert plan.patience is not None
        self._rounds = plan.patience
        self._metric = plan.metrics[-1] if plan.metrics else None
        self._linear = plan.options.get("booster") == "gblinear"
        self._best: bytes | None = None
        round_, score = booster.attr("best_iteration"), booster.attr("best_score")
        self._found = (int(round_), float(score)) if round_ is not None and score is not None else None

    def is_over(self, number: int) -> bool:
        """Whether round ``number`` is one too many."""
        return self._found is not None and number - 1 - self._found[0] >= self._rounds

    def look(self, booster: Any, number: int, scores: Mapping[str, float]) -> None:
        name = next((name for name in scores if self._metric and _is_named(name, self._metric)), None)
        name = name or list(scores)[-1]
        score = scores[name]
        if self._found is not None:
            best = self._found[1]
            if not (score > best if name.partition("@")[0] in MAXIMIZED else score < best):
                return
        self._found = (number, score)
        booster.set_attr(best_score=str(score), best_iteration=str(number))
        if self._linear:
            self._best = bytes(booster.save_raw("ubj"))

    def best(self, booster: Any) -> Any:
        """The booster as it was after the best round."""
        if self._found is None:
            return booster.reset()
        if self._linear:  # a linear model has no rounds to cut off
            return booster_from(self._best) if self._best else booster.reset()
        number, score = self._found
        best = booster[: number + 1]
        best.set_attr(best_score=str(score), best_iteration=str(number))
        return best


def _is_named(printed: str, asked: str) -> bool:
    return printed == asked or (asked == "tweedie-nloglik" and printed.startswith(asked))
