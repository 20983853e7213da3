"""AutoGluon, as script mode knows it."""

from __future__ import annotations

from clary.frameworks.framework import FrameworkSpec

SPEC = FrameworkSpec(
    name="autogluon",
    title="AutoGluon",
    repositories=("autogluon-training",),
    packages=("autogluon.tabular", "autogluon.core", "numpy"),
    library="autogluon",
    installed_by="autogluon.tabular",
    container="autogluon_container",
)
