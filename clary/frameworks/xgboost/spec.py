"""XGBoost, as script mode knows it."""

from __future__ import annotations

from clary.frameworks.framework import FrameworkSpec

SPEC = FrameworkSpec(
    name="sagemaker-xgboost",
    title="XGBoost",
    packages=("xgboost-cpu", "numpy"),
    handlers="clary.frameworks.xgboost.handlers",
)
