"""XGBoost, as script mode knows it."""

from __future__ import annotations

from clary.frameworks.framework import FrameworkSpec

SPEC = FrameworkSpec(
    name="sagemaker-xgboost",
    title="XGBoost",
    repositories=("sagemaker-xgboost",),
    packages=("xgboost", "xgboost-cpu", "scikit-learn", "numpy"),
    library="xgboost",
    installed_by="xgboost-cpu",
    container="sagemaker_xgboost_container",
    handlers="clary.frameworks.xgboost.handlers",
)
