"""PyTorch, as script mode knows it; Hugging Face's images are PyTorch with packages that the script names."""

from __future__ import annotations

from clary.frameworks.framework import FrameworkSpec

SPEC = FrameworkSpec(
    name="pytorch",
    title="PyTorch",
    repositories=(
        "pytorch-training",
        "sagemaker-pytorch",
        "huggingface-pytorch-training",
        "huggingface-pytorch-trcomp-training",
        "pytorch-trcomp-training",
        "pytorch-training-neuron",
        "pytorch-training-neuronx",
        "huggingface-pytorch-training-neuronx",
        "smdistributed-modelparallel",
    ),
    packages=("torch", "torchvision", "transformers", "numpy"),
    library="torch",
    installed_by="torch",
    extra="pytorch",
    container="sagemaker_pytorch_container",
)
