"""The SDK's own estimators of K-Means, PCA, k-NN and Random Cut Forest against a real Clary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("clients")]


@pytest.mark.parametrize("sdk", ["sdk1", "sdk2"])
def test_the_sdk_trains_and_asks_what_takes_records(
    run_client: Callable[..., dict[str, Any]], sdk: str
) -> None:
    seen = run_client(sdk, "python", "first_party.py", "kmeans", "pca", "knn")
    clusters = seen["kmeans"]
    assert clusters["clusters"] == list(range(10))
    assert clusters["mean_square"] <= 1.01 * clusters["lloyd"]
    assert clusters["metrics"]["train:msd"] == pytest.approx(clusters["mean_square"], rel=1e-4)
    assert clusters["metrics"]["test:msd"] > 0
    assert seen["pca"]["lengths"] == pytest.approx(seen["pca"]["singular"], rel=1e-4)
    assert seen["knn"]["accuracy"] > 0.95
    assert seen["knn"]["metrics"]["test:accuracy"] == pytest.approx(seen["knn"]["accuracy"], abs=1e-6)


@pytest.mark.parametrize("sdk", ["sdk1", "sdk2"])
def test_the_sdk_trains_a_random_cut_forest(run_client: Callable[..., dict[str, Any]], sdk: str) -> None:
    seen = run_client(sdk, "python", "first_party.py", "randomcutforest")["randomcutforest"]
    assert seen["strange"] > seen["usual"]
    assert seen["metrics"]["test:recall"] == seen["metrics"]["test:precision"] == 1
    assert seen["metrics"]["test:f1"] == seen["metrics"]["test:accuracy"] == 1


@pytest.mark.parametrize("sdk", ["sdk1", "sdk2"])
def test_the_sdk_finds_the_topics_of_documents(run_client: Callable[..., dict[str, Any]], sdk: str) -> None:
    seen = run_client(sdk, "python", "first_party.py", "lda")["lda"]
    assert seen["sums"] == pytest.approx([1, 1], abs=1e-4)
    assert min(seen["nearest"]) > 0.9 and seen["which"] == [0, 1, 2]
    assert -4 < seen["metrics"]["test:pwll"] < 0 and -4 < seen["metrics"]["train:pwll"] < 0
