"""Trains the built-in XGBoost: the library itself, with the container's manners, on one host or several."""

from __future__ import annotations

from typing import Any

import numpy
import xgboost

from clary.algorithms.cluster import Cluster, joined
from clary.algorithms.faults import ClientError, NothingTrained
from clary.algorithms.formats.streams import NoData
from clary.algorithms.job import Job
from clary.algorithms.xgboost.boosting import RoundWatch, boost
from clary.algorithms.xgboost.checkpoints import latest_checkpoint, save_model, write_model
from clary.algorithms.xgboost.data import Rows, read_channel, to_dmatrix
from clary.algorithms.xgboost.hosts import Agreement, agree, group, start_tracker
from clary.algorithms.xgboost.library import booster_from
from clary.algorithms.xgboost.plan import Plan, make_plan
from clary.algorithms.xgboost.spec import MODEL_NAME, SPEC

# Tree updaters that the library runs, or fails to run, on the rows of one host.
_OF_ONE_HOST = {"grow_colmaker", "distcol", "prune", "sync"}


def train(job: Job) -> None:
    """Train and write ``model/xgboost-model``, on the first host of several. Every host trains on the rows
    of its own channels; one that has none is left out.

    Raises `ClientError`, `HostLost` and `NothingTrained`.
    """
    plan = make_plan(SPEC.resolve(job.hyperparameters), keeps_checkpoints=job.checkpoints is not None)
    job.log(f"XGBoost {xgboost.__version__}, {plan.threads} thread(s)")
    if plan.without_effect:
        job.log(f"Without effect in this version: {', '.join(plan.without_effect)}")
    if len(job.hosts) > 1:
        _refuse_what_one_host_must_do(plan)
    with joined(job) as cluster:
        rows = {
            name: _read(job, name, plan.weighted, optional=len(job.hosts) > 1)
            for name in ("train", "validation")
            if job.channel(name) is not None
        }
        for each in rows.values():
            if each is not None:
                _check_labels(each, plan)
        agreement = agree(cluster, rows)
        del rows
        _log_shapes(job, agreement)
        if plan.folds is not None:
            from clary.algorithms.xgboost.cross_validation import cross_validate

            cross_validate(job, plan, agreement.rows)
        elif cluster.host in agreement.members:
            _train_together(job, plan, cluster, agreement)
        else:
            job.log(f"{cluster.host} has no rows to train on and is left out")
            cluster.gather({})
            _finish(job, cluster, agreement)


def _train_together(job: Job, plan: Plan, cluster: Cluster, agreement: Agreement) -> None:
    members = agreement.members
    leads = cluster.host == members[0]
    before, done = latest_checkpoint(job.checkpoints) if leads else (None, 0)
    tracker, found = start_tracker(cluster, members) if leads else (None, {})
    told = cluster.gather(
        {"tracker": found, "done": done},
        bytes(before.save_raw("ubj")) if before is not None and len(members) > 1 else b"",
    )[cluster.hosts.index(members[0])]
    if not leads and told.payload:
        before, done = booster_from(told.payload), int(told.document["done"])
    if done and leads:
        job.log(f"Resuming from the checkpoint of round {done - 1}")
    with group(job, cluster, members, told.document["tracker"]) as together:
        matrices = {name: to_dmatrix(each, plan.threads) for name, each in agreement.rows.items()}
        watch = RoundWatch(job, done=done, speaks=leads)
        booster, _ = boost(plan, matrices, watch, before, together)
        stopped = together.any(job.stop_requested)
    if stopped:
        if not watch.rounds:
            raise NothingTrained
        if leads:
            job.log(f"Told to stop: keeping the model of {watch.rounds} round(s)")
    if leads and cluster.is_first:
        save_model(booster, job.model / MODEL_NAME)
    _finish(job, cluster, agreement, booster if leads else None)
    del tracker  # now that every member has left


def _finish(job: Job, cluster: Cluster, agreement: Agreement, booster: Any = None) -> None:
    """Wait for all hosts. The first writes the model, though it may have had no rows to train it on."""
    lead = cluster.hosts.index(agreement.members[0])
    hands_over = booster is not None and not cluster.is_first
    told = cluster.gather({}, bytes(booster.save_raw("ubj")) if hands_over else b"", stops=False)
    if cluster.is_first and lead:
        write_model(told[lead].payload, job.model / MODEL_NAME)


def _refuse_what_one_host_must_do(plan: Plan) -> None:
    """What would fail on several hosts, or quietly train on the rows of one."""
    method, booster = plan.options.get("tree_method"), plan.options.get("booster")
    updaters = {name.strip() for name in plan.options.get("updater", "").split(",")} & _OF_ONE_HOST
    if booster == "gblinear":
        wrong = "booster 'gblinear' trains on one instance only: its updaters do not add up over hosts"
    elif method == "exact":
        wrong = "tree_method 'exact' trains on one instance only; use 'hist' or 'approx'"
    elif updaters:
        wrong = f"updater '{min(updaters)}' works on one instance only; leave it to tree_method"
    elif plan.objective == "survival:cox" or "cox-nloglik" in plan.metrics:
        wrong = "survival:cox and cox-nloglik compare each row with all others and need one instance"
    elif plan.folds is not None:
        wrong = "a cross validation (_kfold) runs on one instance only"
    else:
        return
    raise ClientError(f"{wrong}. Train with an InstanceCount of 1, or change the hyperparameter.")


def _read(job: Job, channel: str, weighted: bool, *, optional: bool) -> Rows | None:
    """The rows of a channel; ``None`` if it has none, where that may be."""
    try:
        return read_channel(job, channel, csv_weights=weighted)
    except NoData:
        if optional:
            return None
        raise


def _log_shapes(job: Job, agreement: Agreement) -> None:
    count, columns = agreement.rows["train"].features.shape
    job.log(f"Train matrix has {count} rows and {columns} columns")
    if "validation" in agreement.rows:
        job.log(f"Validation matrix has {agreement.rows['validation'].features.shape[0]} rows")
    if len(job.hosts) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in agreement.row_counts.items())
        job.log(f"Rows on all {len(agreement.members)} training hosts: {counts}")
        if job.input_config["train"].get("S3DistributionType") == "FullyReplicated":
            job.log(
                "Every host has a copy of the channel 'train': with ShardedByS3Key each would have a part"
            )


def _check_labels(rows: Rows, plan: Plan) -> None:
    """What the library would say without the place, or not at all."""
    labels = rows.labels
    if plan.objective in ("binary:logistic", "binary:logitraw", "binary:hinge", "reg:logistic"):
        _refuse_label((labels < 0) | (labels > 1), rows, "label must be in [0,1] for logistic regression")
    if plan.classes is not None:
        wrong = (labels < 0) | (labels >= plan.classes) | (labels != numpy.floor(labels))
        _refuse_label(wrong, rows, f"label must be in [0, num_class), num_class being {plan.classes}")


def _refuse_label(wrong: Any, rows: Rows, rule: str) -> None:
    found = numpy.flatnonzero(wrong)
    if found.size:
        row = int(found[0])
        raise ClientError(f"{rule}; {rows.place(row)} has {rows.labels[row]:g}")
