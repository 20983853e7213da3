"""TensorFlow, as script mode knows it."""

from __future__ import annotations

from clary.frameworks.framework import FrameworkSpec

SPEC = FrameworkSpec(
    name="tensorflow",
    title="TensorFlow",
    repositories=(
        "tensorflow-training",
        "sagemaker-tensorflow",
        "sagemaker-tensorflow-scriptmode",
        "huggingface-tensorflow-training",
        "huggingface-tensorflow-trcomp-training",
    ),
    packages=("tensorflow", "tensorflow-cpu", "keras", "transformers", "numpy"),
    library="tensorflow",
    installed_by="tensorflow",
    container="sagemaker_tensorflow_container",
)
