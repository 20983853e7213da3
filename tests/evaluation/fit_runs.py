"""Real training runs whose fit is known, because each was set up to come out so.

Every run trains a real model (XGBoost, a neural network, a linear model or boosted trees of scikit-learn) and
notes its error on the training rows, on the validation rows, and on rows that neither has seen. What is known
of a run is what was done to it: the model is too simple, too large, the step too long, the labels wrong, the
validation rows too few. The rows nobody has seen confirm it (`Run.confirmed`).

Runs on data of a seed above `LAST_SEED_OF_TUNING` are held out: the doctor's thresholds were chosen on the
others, without a look at these.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import xgboost
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_circles,
    make_classification,
    make_friedman1,
    make_moons,
)
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

LAST_SEED_OF_TUNING = 20
UNDERFITTING, OVERFITTING, DIVERGING = "underfitting", "overfitting", "diverging"
PLATEAU, APPROPRIATE, NONE = "plateau", "appropriate fit", "none"


@dataclass(frozen=True)
class Run:
    """One run.

    ``unseen`` is the error on rows of neither series, ``better`` the least one of a well-made counterpart.
    """

    family: str
    name: str
    truth: str
    metric: str
    train: Sequence[float]
    validation: Sequence[float]
    unseen: Sequence[float]
    algorithm: str = ""
    hyperparameters: dict[str, str] = field(default_factory=dict)
    better: float | None = None
    held_out: bool = False

    def confirmed(self) -> bool:
        """Whether the rows that neither series has seen agree with what is known of the run."""
        last, best = self.unseen[-1], min(self.unseen)
        if self.truth == OVERFITTING:
            return last > 1.03 * best or last > 3 * self.train[-1]
        if self.truth == UNDERFITTING:
            return self.better is not None and self.better < 0.75 * last
        if self.truth == DIVERGING:
            return not math.isfinite(last) or self.better is None or self.better < 0.75 * last
        if self.truth == PLATEAU:
            middle = self.unseen[len(self.unseen) * 2 // 5 : len(self.unseen) * 3 // 5]
            return abs(last - sum(middle) / len(middle)) < 0.1 * last
        if self.truth == APPROPRIATE:
            return last < 1.06 * best and (self.better is None or self.better > 0.85 * last)
        return True


@dataclass(frozen=True)
class Data:
    """Rows split three ways."""

    name: str
    train: tuple[Any, Any]
    validation: tuple[Any, Any]
    unseen: tuple[Any, Any]
    classes: int  # 0: numbers are predicted
    seed: int


def split(
    name: str,
    x: Any,
    y: Any,
    *,
    seed: int,
    classes: int,
    noise: float = 0.0,
    train_rows: int | None = None,
    validation_rows: int | None = None,
    scale: bool = True,
) -> Data:
    """60, 20 and 20 % of the rows; ``noise`` is the share of labels that are drawn anew."""
    random = numpy.random.RandomState(seed)
    y = numpy.array(y)
    if noise:
        wrong = random.rand(len(y)) < noise
        y[wrong] = random.randint(0, classes, wrong.sum())
    stratify = y if classes else None
    x1, x2, y1, y2 = train_test_split(x, y, train_size=0.6, random_state=seed, stratify=stratify)
    stratify = y2 if classes else None
    x2, x3, y2, y3 = train_test_split(x2, y2, train_size=0.5, random_state=seed, stratify=stratify)
    if scale:
        scaler = StandardScaler().fit(x1)
        x1, x2, x3 = scaler.transform(x1), scaler.transform(x2), scaler.transform(x3)
    x1, y1 = x1[:train_rows], y1[:train_rows]
    x2, y2 = x2[:validation_rows], y2[:validation_rows]
    return Data(name, (x1, y1), (x2, y2), (x3, y3), classes, seed)


Errors = tuple[list[float], list[float], list[float]]


def boost(data: Data, rounds: int, **options: Any) -> Errors:
    """XGBoost's errors after each round."""
    metric = options.pop("eval_metric", None) or ("logloss" if data.classes == 2 else "mlogloss")
    patience = options.pop("early_stopping_rounds", None)
    if not data.classes:
        options.setdefault("objective", "reg:squarederror")
        metric = "rmse" if metric.endswith("logloss") else metric
    elif data.classes == 2:
        options.setdefault("objective", "binary:logistic")
    else:
        options |= {"objective": "multi:softprob", "num_class": data.classes}
    parts = {"train": data.train, "unseen": data.unseen, "validation": data.validation}
    matrices = {name: xgboost.DMatrix(*rows) for name, rows in parts.items()}
    told: dict[str, dict[str, list[float]]] = {}
    xgboost.train(
        {"nthread": 1, "eval_metric": metric, "seed": 1, **options},
        matrices["train"],
        rounds,
        evals=[(matrix, name) for name, matrix in matrices.items()],
        evals_result=told,
        early_stopping_rounds=patience,
        verbose_eval=False,
    )
    return tuple(told[name][metric] for name in ("train", "validation", "unseen"))  # type: ignore[return-value]


def net(
    data: Data, epochs: int, hidden: Sequence[int], *, step: float, seed: int = 1, **options: Any
) -> Errors:
    """The log loss of a neural network after each epoch."""
    model = MLPClassifier(
        hidden, learning_rate_init=step, random_state=seed, batch_size=32, **{"solver": "sgd", **options}
    )
    return epochs_of(model, data, epochs)


def linear(data: Data, epochs: int, *, step: float, seed: int = 1, **options: Any) -> Errors:
    """The log loss of a linear classifier after each epoch of stochastic gradient descent."""
    model = SGDClassifier(
        "log_loss", eta0=step, random_state=seed, **{"learning_rate": "constant", "alpha": 1e-4, **options}
    )
    return epochs_of(model, data, epochs)


def epochs_of(model: Any, data: Data, epochs: int) -> Errors:
    errors: Errors = ([], [], [])
    classes = numpy.arange(data.classes)
    random = numpy.random.RandomState(7)
    for _ in range(epochs):
        order = random.permutation(len(data.train[1]))
        try:
            model.partial_fit(data.train[0][order], data.train[1][order], classes=classes)
        except ValueError:  # the weights are infinite
            for series in errors:
                series.append(math.nan)
            continue
        for series, (x, y) in zip(errors, (data.train, data.validation, data.unseen), strict=True):
            guesses = model.predict_proba(x)
            finite = bool(numpy.isfinite(guesses).all())
            series.append(float(log_loss(y, guesses, labels=classes)) if finite else math.nan)
    return errors


def trees(data: Data, rounds: int, *, step: float, depth: int = 3, **options: Any) -> Errors:
    """The squared error of scikit-learn's boosted trees after each round."""
    model = GradientBoostingRegressor(
        n_estimators=rounds, learning_rate=step, max_depth=depth, random_state=1, **options
    ).fit(*data.train)
    return tuple(  # type: ignore[return-value]
        [float(numpy.mean((guess - rows[1]) ** 2)) for guess in model.staged_predict(rows[0])]
        for rows in (data.train, data.validation, data.unseen)
    )


# The data.


def digits(seed: int, **how: Any) -> Data:
    return split("digits", *load_digits(return_X_y=True), seed=seed, classes=10, **how)


def cancer(seed: int, **how: Any) -> Data:
    return split("cancer", *load_breast_cancer(return_X_y=True), seed=seed, classes=2, **how)


def wine(seed: int, **how: Any) -> Data:
    return split("wine", *load_wine(return_X_y=True), seed=seed, classes=3, **how)


def iris(seed: int, **how: Any) -> Data:
    return split("iris", *load_iris(return_X_y=True), seed=seed, classes=3, **how)


def diabetes(seed: int, **how: Any) -> Data:
    x, y = load_diabetes(return_X_y=True)
    return split("diabetes", x, y / 100, seed=seed, classes=0, **how)


def friedman(seed: int, rows: int = 1500, **how: Any) -> Data:
    x, y = make_friedman1(rows, n_features=10, noise=1.0, random_state=seed)
    return split("friedman", x, y, seed=seed, classes=0, **how)


def moons(seed: int, rows: int = 1500, **how: Any) -> Data:
    return split("moons", *make_moons(rows, noise=0.2, random_state=seed), seed=seed, classes=2, **how)


def circles(seed: int, rows: int = 1500, **how: Any) -> Data:
    x, y = make_circles(rows, noise=0.1, factor=0.5, random_state=seed)
    return split("circles", x, y, seed=seed, classes=2, **how)


def mixture(seed: int, rows: int = 2000, **how: Any) -> Data:
    x, y = make_classification(
        rows,
        n_features=20,
        n_informative=8,
        n_clusters_per_class=4,
        class_sep=1.2,
        flip_y=0,
        random_state=seed,
    )
    return split("mixture", x, y, seed=seed, classes=2, **how)


# The families: what was done to their runs, and so what is known of them.


def _run(truth: str, data: Data, name: str, metric: str, errors: Errors, **more: Any) -> Run:
    return Run("", name, truth, metric, *errors, held_out=data.seed > LAST_SEED_OF_TUNING, **more)


def _boosted(truth: str, data: Data, rounds: int, *, better: Sequence[float] = (), **options: Any) -> Run:
    default = "rmse" if not data.classes else "logloss" if data.classes == 2 else "mlogloss"
    told = ", ".join(f"{key}={value}" for key, value in options.items())
    given = {key: str(value) for key, value in {"num_round": rounds, **options}.items()}
    if data.classes > 2:
        given["num_class"] = str(data.classes)
    return _run(
        truth,
        data,
        f"XGBoost on {data.name}, {rounds} rounds{', ' + told if told else ''}",
        options.get("eval_metric", default),
        boost(data, rounds, **options),
        algorithm="xgboost",
        hyperparameters=given,
        better=min(better) if better else None,
    )


def _network(
    truth: str, data: Data, epochs: int, hidden: Sequence[int], *, better: Sequence[float] = (), **how: Any
) -> Run:
    told = ", ".join(f"{key}={value}" for key, value in how.items())
    layers = "x".join(map(str, hidden))
    return _run(
        truth,
        data,
        f"network {layers} on {data.name}, {epochs} epochs, {told}",
        "loss",
        net(data, epochs, hidden, **how),
        hyperparameters={"epochs": str(epochs), "learning_rate": str(how["step"])},
        better=min(better) if better else None,
    )


def _line(truth: str, data: Data, epochs: int, *, better: Sequence[float] = (), **how: Any) -> Run:
    told = ", ".join(f"{key}={value}" for key, value in how.items())
    return _run(
        truth,
        data,
        f"linear on {data.name}, {epochs} epochs, {told}",
        "loss",
        linear(data, epochs, **how),
        better=min(better) if better else None,
    )


def too_simple() -> Iterator[Run]:
    """A model that cannot follow the data, trained until nothing changes."""
    for seed, rounds in ((1, 150), (2, 200), (3, 120), (21, 80), (22, 250)):
        data = circles(seed)
        yield _boosted(UNDERFITTING, data, rounds, booster="gblinear", better=boost(data, 60, max_depth=4)[2])
    for seed, step in ((1, 0.01), (2, 0.003), (3, 0.02), (23, 0.005), (24, 0.001)):
        data = circles(seed)
        yield _line(UNDERFITTING, data, 40, step=step, better=boost(data, 60)[2])
    for seed, hidden in ((1, 1), (2, 2), (3, 1), (25, 1)):
        data = digits(seed)
        yield _network(
            UNDERFITTING, data, 60, (hidden,), step=0.05, better=net(data, 20, (60,), step=0.05)[2]
        )
    for seed, weight in ((1, 800), (2, 500), (3, 900), (26, 700), (27, 600)):
        data = mixture(seed)
        yield _boosted(
            UNDERFITTING,
            data,
            120,
            min_child_weight=weight / 4,
            eta=0.3,
            better=boost(data, 120, max_depth=5)[2],
        )
    for seed, gamma in ((1, 60.0), (2, 40.0), (3, 80.0), (28, 50.0), (29, 100.0)):
        data = moons(seed)
        yield _boosted(UNDERFITTING, data, 100, gamma=gamma, max_depth=2, better=boost(data, 60)[2])


def too_short() -> Iterator[Run]:
    """Ended while both errors were falling."""
    for data, rounds, eta in (
        (digits(1), 12, 0.05),
        (friedman(2), 15, 0.04),
        (cancer(3), 20, 0.02),
        (wine(21), 12, 0.06),
        (moons(22), 25, 0.03),
    ):
        yield _boosted(UNDERFITTING, data, rounds, eta=eta, better=boost(data, 50, eta=0.2)[2])
    for data, epochs, step in (
        (digits(4), 10, 0.002),
        (mixture(5), 8, 0.002),
        (moons(6), 12, 0.001),
        (digits(23), 14, 0.001),
    ):
        yield _network(
            UNDERFITTING, data, epochs, (50,), step=step, better=net(data, 25, (50,), step=0.05)[2]
        )
    for data, rounds, step in (
        (friedman(7), 25, 0.02),
        (friedman(8), 40, 0.01),
        (friedman(9), 30, 0.015),
        (friedman(24), 35, 0.012),
    ):
        yield _run(
            UNDERFITTING,
            data,
            f"boosted trees on {data.name}, {rounds} rounds, step {step}",
            "mse",
            trees(data, rounds, step=step),
            better=min(trees(data, 60, step=0.2)[2]),
        )


def too_complex() -> Iterator[Run]:
    """A large model on few rows or on labels of which some are wrong, trained for long."""
    for seed, noise, depth in ((1, 0.3, 8), (2, 0.2, 10), (3, 0.4, 6), (21, 0.25, 7), (22, 0.35, 9)):
        yield _boosted(OVERFITTING, mixture(seed, noise=noise), 200, max_depth=depth, eta=0.3)
    for seed, depth, eta in ((4, 6, 0.3), (5, 8, 0.2), (6, 5, 0.3), (23, 7, 0.25), (24, 10, 0.15)):
        yield _boosted(OVERFITTING, diabetes(seed), 150, max_depth=depth, eta=eta)
    for data, epochs in (
        (mixture(7, noise=0.3, train_rows=300), 150),
        (cancer(8, noise=0.3), 200),
        (moons(9, noise=0.3, train_rows=200), 300),
        (mixture(25, noise=0.4, train_rows=200), 120),
    ):
        yield _network(OVERFITTING, data, epochs, (200,), step=0.01, solver="adam")
    for seed, noise in ((10, 0.5), (11, 0.4), (12, 0.3), (26, 0.45)):
        yield _boosted(OVERFITTING, digits(seed, noise=noise), 80, max_depth=8, eta=0.4)
    for seed, depth in ((13, 6), (14, 8), (15, 7), (27, 9), (28, 5)):
        data = friedman(seed, rows=400)
        yield _run(
            OVERFITTING,
            data,
            f"boosted trees on {data.name} of 240 rows, 200 rounds, depth {depth}",
            "mse",
            trees(data, 200, step=0.3, depth=depth),
        )
    for seed, noise in ((16, 0.25), (17, 0.35), (18, 0.3), (29, 0.4), (30, 0.28)):
        yield _boosted(
            OVERFITTING, mixture(seed, noise=noise), 150, max_depth=9, eta=0.3, eval_metric="error"
        )


def too_large_a_step() -> Iterator[Run]:
    """A learning rate at which the error grows, or jumps about, instead of falling."""
    for seed, step in ((1, 2.3), (2, 2.6), (3, 2.2), (21, 2.8), (22, 2.15)):
        data = friedman(seed)
        yield _run(
            DIVERGING,
            data,
            f"boosted trees on {data.name}, 60 rounds, step {step}",
            "mse",
            trees(data, 60, step=step),
            better=min(trees(data, 25, step=0.2)[2]),
        )
    for data, eta in (
        (friedman(4), 2.4),
        (diabetes(5), 2.2),
        (friedman(6), 2.1),
        (diabetes(23), 2.5),
        (friedman(24), 2.2),
    ):
        yield _boosted(DIVERGING, data, 60, eta=eta, base_score=0, better=boost(data, 40, eta=0.1)[2])
    for data, step in (
        (digits(7, train_rows=400), 8.0),
        (wine(8), 20.0),
        (mixture(9, train_rows=400), 15.0),
        (cancer(25), 10.0),
    ):
        yield _network(
            DIVERGING,
            data,
            40,
            (60,),
            step=step,
            activation="relu",
            better=net(data, 15, (60,), step=0.01)[2],
        )
    for data, step in (
        (cancer(10), 300.0),
        (digits(11, train_rows=400), 400.0),
        (mixture(12, train_rows=400), 200.0),
        (wine(26), 500.0),
    ):
        yield _line(DIVERGING, data, 40, step=step, better=linear(data, 15, step=0.003)[2])
    for data, step in (
        (digits(13, train_rows=400), 3.0),
        (digits(14, train_rows=400), 4.0),
        (digits(15, train_rows=400), 5.0),
        (digits(27, train_rows=400), 3.5),
    ):
        yield _network(
            DIVERGING,
            data,
            30,
            (60, 60),
            step=step,
            activation="tanh",
            better=net(data, 15, (60,), step=0.05)[2],
        )


def long_after_the_last_gain() -> Iterator[Run]:
    """A good model that was trained on, several times as long as it went on learning."""
    for data, rounds in ((iris(1), 600), (wine(2), 500), (cancer(3), 900), (iris(21), 700), (wine(22), 800)):
        yield _boosted(
            PLATEAU, data, rounds, max_depth=2, eta=0.3, min_child_weight=1, gamma=0.5, reg_lambda=2
        )
    for data, epochs in ((cancer(4), 150), (wine(5), 200), (digits(6), 90), (cancer(23), 120)):
        yield _line(PLATEAU, data, epochs, step=0.03, alpha=0.02)
    for data in (
        moons(7, rows=4000),
        circles(8, rows=4000),
        moons(9, rows=3000),
        circles(24, rows=3000),
        moons(25, rows=5000),
    ):
        yield _boosted(PLATEAU, data, 400, max_depth=3, eta=0.3, gamma=8)
    for data, weight in ((cancer(10), 1.0), (digits(11), 0.3), (wine(12), 3.0), (moons(26), 0.05)):
        yield _network(PLATEAU, data, 120, (40,), step=0.05, alpha=weight)


def well_made() -> Iterator[Run]:
    """Stopped where the validation error is lowest, or trained with care until about there."""
    for data, eta in (
        (digits(1), 0.15),
        (cancer(2), 0.1),
        (mixture(3), 0.15),
        (cancer(21), 0.15),
        (wine(22), 0.1),
    ):
        yield _boosted(APPROPRIATE, data, 1000, max_depth=4, eta=eta, early_stopping_rounds=8)
    for data, eta in (
        (friedman(4), 0.1),
        (friedman(5), 0.15),
        (friedman(6, rows=3000), 0.1),
        (friedman(23, rows=2500), 0.12),
    ):
        yield _boosted(APPROPRIATE, data, 1000, max_depth=3, eta=eta, early_stopping_rounds=10)
    for data, depth in (
        (moons(7, rows=4000), 3),
        (circles(8, rows=4000), 4),
        (mixture(9, rows=4000), 4),
        (circles(24, rows=3500), 3),
        (moons(25, rows=5000), 4),
    ):
        yield _boosted(APPROPRIATE, data, 500, max_depth=depth, eta=0.1, early_stopping_rounds=5)
    for data, epochs, step, weight in (
        (digits(10), 30, 0.03, 0.01),
        (moons(11), 60, 0.03, 0.01),
        (mixture(12, rows=4000), 40, 0.02, 0.1),
        (digits(26), 25, 0.04, 0.02),
    ):
        yield _network(APPROPRIATE, data, epochs, (30,), step=step, alpha=weight)
    for data, step, weight in (
        (cancer(13), 0.005, 0.01),
        (wine(14), 0.05, 0.01),
        (digits(15), 0.05, 0.003),
        (cancer(27), 0.004, 0.01),
    ):
        yield _line(
            APPROPRIATE,
            data,
            40,
            step=step,
            alpha=weight,
            better=linear(data, 120, step=step, alpha=weight)[2],
        )
    for seed in (16, 17, 18, 28):
        data = friedman(seed)
        yield _run(
            APPROPRIATE,
            data,
            f"boosted trees on {data.name}, 180 rounds, step 0.1",
            "mse",
            trees(data, 180, step=0.1),
            better=min(trees(data, 250, step=0.1)[2]),
        )


def too_little_to_tell() -> Iterator[Run]:
    """Where whoever is honest says nothing: hardly any steps, or hardly any validation rows."""
    for data, rounds in ((digits(1), 2), (cancer(2), 3), (friedman(3), 2), (moons(21), 4), (wine(22), 3)):
        yield _boosted(NONE, data, rounds, eta=0.3)
    for seed, rows in ((4, 5), (5, 4), (6, 6), (23, 7), (24, 10)):
        yield _boosted(
            NONE,
            mixture(seed, noise=0.2, validation_rows=rows),
            40,
            eta=0.1,
            eval_metric="error",
            max_depth=2,
        )
    for seed, rows in ((7, 3), (8, 4), (9, 3), (25, 4), (26, 2)):
        yield _line(NONE, mixture(seed, noise=0.3, validation_rows=rows), 30, step=0.1)
    for data in (moons(10), mixture(11), circles(12), moons(27), circles(28)):
        run = _boosted(NONE, data, 60, max_depth=3, eta=0.2)
        yield Run(**{**run.__dict__, "validation": [], "name": run.name + ", no validation series"})


FAMILIES: Sequence[Callable[[], Iterator[Run]]] = (
    too_simple,
    too_short,
    too_complex,
    too_large_a_step,
    long_after_the_last_gain,
    well_made,
    too_little_to_tell,
)


def make_runs() -> list[Run]:
    """All runs, always the same ones."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for family in FAMILIES:
            found += [Run(**{**run.__dict__, "family": family.__name__}) for run in family()]
    return found
