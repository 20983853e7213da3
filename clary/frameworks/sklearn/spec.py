"""scikit-learn, as script mode knows it."""

from __future__ import annotations

from clary.frameworks.framework import FrameworkSpec

SPEC = FrameworkSpec(
    name="sagemaker-scikit-learn",
    title="scikit-learn",
    repositories=("sagemaker-scikit-learn",),
    packages=("scikit-learn", "numpy"),
    library="sklearn",
    installed_by="scikit-learn",
    container="sagemaker_sklearn_container",
    handlers="clary.frameworks.sklearn.handlers",
)
