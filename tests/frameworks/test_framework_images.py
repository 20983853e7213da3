"""Which environment an image means, what is said of it, and what where its framework is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from clary.frameworks.framework import find_framework


@pytest.mark.parametrize(
    ("repository", "name"),
    [
        ("pytorch-training", "pytorch"),
        ("huggingface-pytorch-training", "pytorch"),
        ("sagemaker-pytorch", "pytorch"),
        ("tensorflow-training", "tensorflow"),
        ("huggingface-tensorflow-training", "tensorflow"),
        ("mxnet-training", "mxnet"),
        ("autogluon-training", "autogluon"),
        ("sagemaker-base-python", "python"),
        ("python", "python"),
    ],
)
def test_images_map_to_the_nearest_environment(repository: str, name: str) -> None:
    found = find_framework(repository, "any")
    assert found is not None and found.name == name


def test_plain_python_says_which_packages_it_runs_beside(folder: Any) -> None:
    folder.script("print('RAN')\n")
    code, out, _ = folder.run(framework="python")
    assert code == 0 and "RAN" in out
    first = out.splitlines()[0]
    assert first.startswith("Framework python 1.2-1 asked; running numpy ") and "Python 3." in first


@pytest.mark.parametrize(
    ("framework", "remedy"),
    [("tensorflow", "pip install 'tensorflow'"), ("mxnet", "pip install 'mxnet'")],
)
def test_a_framework_that_is_not_installed_fails_with_what_to_do(
    folder: Any, framework: str, remedy: str
) -> None:
    if importlib.util.find_spec(framework) is not None:
        pytest.skip(f"{framework} is installed")
    folder.script("raise SystemExit('the script must not run')\n")
    code, _, err = folder.run(framework=framework)
    assert code == 1 and "must not run" not in err
    assert folder.failure.startswith("ClientError: the image asks for ")
    assert f"name {framework} in a requirements.txt" in folder.failure and remedy in folder.failure


def test_pytorch_that_is_not_there_names_the_extra(folder: Any) -> None:
    folder.script("print('RAN')\n")
    hiding = folder.base / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text(
        "import importlib.util, sys\nfound = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'torch' else found(name, *a)\n"
    )
    code, _, _ = folder.run(framework="pytorch", PYTHONPATH=f"{hiding}:{Path(__file__).parents[2]}")
    assert code == 1 and "pip install 'clary[pytorch]'" in folder.failure


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("sagemaker_mpi_enabled", "SSH"),
        ("sagemaker_distributed_dataparallel_enabled", "smdistributed"),
        ("sagemaker_parameter_server_enabled", "parameter_server"),
    ],
)
def test_distributions_that_cannot_be_are_refused_naming_what_to_use(
    folder: Any, parameter: str, words: str
) -> None:
    folder.script("print('RAN')\n")
    folder.hyperparameters = {parameter: True}
    code, out, _ = folder.run()
    assert code == 1 and "RAN" not in out
    assert folder.failure.startswith("ClientError: distribution ")
    assert words in folder.failure and '"torch_distributed": {"enabled": True}' in folder.failure


def test_a_distribution_that_is_off_is_none(folder: Any) -> None:
    folder.script("print('RAN')\n")
    folder.hyperparameters = {"sagemaker_mpi_enabled": False}
    code, out, _ = folder.run()
    assert code == 0 and "RAN" in out


def test_workers_of_tensorflow_get_their_configuration(folder: Any) -> None:
    folder.write("resourceconfig.json", {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]})
    folder.hyperparameters = {"sagemaker_multi_worker_mirrored_strategy_enabled": True}
    folder.script("import os\nprint('TF', os.environ['TF_CONFIG'])\n")
    code, out, err = folder.run(
        framework="python", CLARY_CLUSTER_ADDRESSES='{"algo-1": "127.8.0.1", "algo-2": "127.8.0.2"}'
    )
    assert code == 0, err
    assert '"task": {"type": "worker", "index": 1}' in out and '"127.8.0.2:' in out


def test_instance_groups_outside_of_the_distribution_run_the_script_by_itself(folder: Any) -> None:
    groups = [
        {"instance_group_name": name, "instance_type": "ml.m5.large", "hosts": [host]}
        for name, host in (("workers", "algo-1"), ("data", "algo-2"))
    ]
    folder.write(
        "resourceconfig.json",
        {
            "current_host": "algo-2",
            "current_group_name": "data",
            "hosts": ["algo-1", "algo-2"],
            "instance_groups": groups,
        },
    )
    folder.hyperparameters = {
        "sagemaker_mpi_enabled": True,
        "sagemaker_distribution_instance_groups": ["workers"],
    }
    folder.script("import os\nprint('SEEN', os.environ['SM_DISTRIBUTION_INSTANCE_GROUPS'])\n")
    code, out, _ = folder.run()
    assert code == 0 and 'SEEN ["workers"]' in out
