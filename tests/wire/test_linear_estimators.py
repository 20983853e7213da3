"""The SDK's own estimators of Linear Learner and Factorization Machines against a real Clary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("clients")]


@pytest.mark.parametrize("sdk", ["sdk1", "sdk2"])
def test_the_sdk_trains_and_asks_models_of_gradients(
    run_client: Callable[..., dict[str, Any]], sdk: str
) -> None:
    seen = run_client(sdk, "python", "linear_estimator.py")
    assert seen["accuracy"] > 0.95
    assert seen["classified"]["test:binary_classification_accuracy"] == pytest.approx(
        seen["accuracy"], abs=1e-6
    )
    assert seen["classified"]["validation:binary_f_beta"] > 0.95
    assert seen["rmse"] < 0.8 * seen["spread"]
    assert seen["fitted"]["test:rmse"] == pytest.approx(seen["rmse"], rel=1e-4)
    assert seen["rating_rmse"] < 0.5 * seen["rating_spread"]
    assert seen["learned"]["test:rmse"] == pytest.approx(seen["rating_rmse"], rel=1e-4)
