"""MXNet, as script mode knows it."""

from __future__ import annotations

from clary.frameworks.framework import FrameworkSpec

SPEC = FrameworkSpec(
    name="mxnet",
    title="MXNet",
    repositories=("mxnet-training", "sagemaker-mxnet"),
    packages=("mxnet", "numpy"),
    library="mxnet",
    installed_by="mxnet",
    container="sagemaker_mxnet_container",
)
