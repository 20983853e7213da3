"""Plain Python, for images that bring no framework: the script runs beside what Clary has installed."""

from __future__ import annotations

from clary.frameworks.framework import FrameworkSpec

SPEC = FrameworkSpec(
    name="python",
    title="Python",
    repositories=("sagemaker-base-python", "sagemaker-distribution-prod"),
    packages=("numpy", "scipy", "scikit-learn", "boto3"),
)
