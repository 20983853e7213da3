"""Which environment an image means, what is said of it, and what where its framework is not installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from clary.frameworks.framework import find_framework

MPI = """\
import os, sys
from mpi4py import MPI
world = MPI.COMM_WORLD
total = world.allreduce(world.rank + 1)
print(f"RANK {world.rank} of {world.size}: {total} {os.environ.get('COLOUR')}", flush=True)
if "yes" in sys.argv:
    if world.rank == 1:
        raise ValueError("bad row")
    world.barrier()
"""


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
    ],
)
def test_images_map_to_the_nearest_environment(repository: str, name: str) -> None:
    found = find_framework(repository, "any")
    assert found is not None and found.name == name


def test_an_image_of_python_alone_is_a_container() -> None:
    assert find_framework("python", "3.12") is None


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


def test_mpi_is_refused_on_several_hosts(folder: Any) -> None:
    folder.write("resourceconfig.json", {"current_host": "algo-1", "hosts": ["algo-1", "algo-2"]})
    folder.script("print('RAN')\n")
    folder.hyperparameters = {"sagemaker_mpi_enabled": True}
    code, out, _ = folder.run()
    assert code == 1 and "RAN" not in out
    assert "over SSH" in folder.failure and '"torch_distributed"' in folder.failure


def test_mpi_without_mpirun_says_how_to_have_it(folder: Any) -> None:
    folder.script("print('RAN')\n")
    folder.hyperparameters = {"sagemaker_mpi_enabled": True}
    code, out, _ = folder.run(PATH="/nowhere")
    assert code == 1 and "RAN" not in out
    assert "name mpich and mpi4py in a requirements.txt" in folder.failure


@pytest.fixture
def mpi_path() -> str:
    """A search path with ``mpirun`` on it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if shutil.which("mpirun", path=path) is None or importlib.util.find_spec("mpi4py") is None:
        assert "CLARY_TESTS_MUST_RUN" not in os.environ, "mpich and mpi4py must be installed here"
        pytest.skip("needs MPI: pip install mpich mpi4py")
    return path


@pytest.mark.slow
def test_mpi_starts_processes_on_one_host_which_speak_with_one_another(folder: Any, mpi_path: str) -> None:
    folder.script(MPI)
    folder.hyperparameters = {
        "fail": "no",
        "sagemaker_mpi_enabled": True,
        "sagemaker_mpi_num_of_processes_per_host": 2,
        "sagemaker_mpi_custom_mpi_options": "-env COLOUR 'light blue'",
    }
    code, out, err = folder.run(PATH=mpi_path)
    assert code == 0, out + err
    assert "RANK 0 of 2: 3 light blue" in out and "RANK 1 of 2: 3 light blue" in out
    assert "mpirun -np 2 -env COLOUR 'light blue' python train.py" in out


@pytest.mark.slow
def test_a_process_of_mpi_that_fails_ends_the_others_and_tells_why(folder: Any, mpi_path: str) -> None:
    folder.script(MPI)
    folder.hyperparameters = {
        "fail": "yes",
        "sagemaker_mpi_enabled": True,
        "sagemaker_mpi_num_of_processes_per_host": 2,
    }
    code, _, _ = folder.run(PATH=mpi_path)
    assert code == 1
    assert f'ErrorMessage "ValueError: bad row ({folder.base}/code/train.py:8)"' in folder.failure


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


@pytest.mark.slow
def test_only_the_hosts_of_a_distributions_groups_meet(folder: Any) -> None:
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'clary[pytorch]'")
    groups = [
        {"instance_group_name": name, "instance_type": "ml.m5.large", "hosts": [host]}
        for name, host in (("data", "algo-1"), ("workers", "algo-2"))
    ]
    hosts = {"hosts": ["algo-1", "algo-2"], "instance_groups": groups}
    folder.write("resourceconfig.json", {"current_host": "algo-2", "current_group_name": "workers", **hosts})
    folder.hyperparameters = {
        "sagemaker_torch_distributed_enabled": True,
        "sagemaker_distribution_instance_groups": ["workers"],
    }
    folder.script("import os\nprint('WORLD', os.environ['WORLD_SIZE'], os.environ['RANK'])\n")
    code, out, err = folder.run(
        framework="pytorch", CLARY_CLUSTER_ADDRESSES='{"algo-1": "127.8.1.1", "algo-2": "127.8.1.2"}'
    )
    assert code == 0 and "WORLD 1 0" in out, out + err


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
