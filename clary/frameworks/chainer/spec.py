"""Chainer, as script mode knows it."""

from __future__ import annotations

from clary.frameworks.framework import FrameworkSpec

SPEC = FrameworkSpec(
    name="chainer",
    title="Chainer",
    repositories=("sagemaker-chainer",),
    packages=("chainer", "numpy"),
    library="chainer",
    installed_by="chainer",
    container="sagemaker_chainer_container",
)
