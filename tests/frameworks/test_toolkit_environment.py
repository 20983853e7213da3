"""The ``SM_*`` variables and arguments that a script gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clary.frameworks.toolkit import TrainingEnvironment, command_line, read_environment

CHANNELS = {
    "train": {"TrainingInputMode": "File", "ContentType": "text/csv"},
    "my-test": {"TrainingInputMode": "File"},
}
RESOURCES = {
    "current_host": "algo-1",
    "current_instance_type": "ml.m5.large",
    "current_group_name": "homogeneousCluster",
    "hosts": ["algo-1", "algo-2"],
    "instance_groups": [
        {
            "instance_group_name": "homogeneousCluster",
            "instance_type": "ml.m5.large",
            "hosts": ["algo-1", "algo-2"],
        }
    ],
    "network_interface_name": "eth0",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "input/config").mkdir(parents=True)
    return tmp_path


def environment(base: Path, **hyperparameters: object) -> TrainingEnvironment:
    values = {name: json.dumps(value) for name, value in hyperparameters.items()}
    values["sagemaker_program"] = '"train.py"'
    for name, document in (
        ("hyperparameters", values),
        ("inputdataconfig", CHANNELS),
        ("resourceconfig", RESOURCES),
    ):
        (base / f"input/config/{name}.json").write_text(json.dumps(document))
    return read_environment(base, "sagemaker_sklearn_container")


def test_every_variable_of_the_contract_is_there(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_NUM_CPUS", "2")
    monkeypatch.setenv("TRAINING_JOB_NAME", "job-1")
    found = environment(
        base, sagemaker_submit_directory="s3://b/sourcedir.tar.gz", sagemaker_mpi_enabled=True, lr=0.5
    ).variables()
    group = RESOURCES["instance_groups"][0]  # type: ignore[index]
    training_env = json.loads(found.pop("SM_TRAINING_ENV"))
    assert found == {
        "SM_MODEL_DIR": f"{base}/model",
        "SM_INPUT_DIR": f"{base}/input",
        "SM_INPUT_CONFIG_DIR": f"{base}/input/config",
        "SM_OUTPUT_DIR": f"{base}/output",
        "SM_OUTPUT_DATA_DIR": f"{base}/output/data",
        "SM_OUTPUT_INTERMEDIATE_DIR": f"{base}/output/intermediate",
        "SM_CHANNELS": '["my-test", "train"]',
        "SM_CHANNEL_TRAIN": f"{base}/input/data/train",
        "SM_CHANNEL_MY-TEST": f"{base}/input/data/my-test",
        "SM_HPS": '{"lr": 0.5}',
        "SM_HP_LR": "0.5",
        "SM_USER_ARGS": '["--lr", "0.5"]',
        "SM_FRAMEWORK_PARAMS": '{"sagemaker_mpi_enabled": true}',
        "SM_RESOURCE_CONFIG": json.dumps(RESOURCES),
        "SM_INPUT_DATA_CONFIG": json.dumps(CHANNELS),
        "SM_CURRENT_HOST": "algo-1",
        "SM_HOSTS": '["algo-1", "algo-2"]',
        "SM_NETWORK_INTERFACE_NAME": "eth0",
        "SM_CURRENT_INSTANCE_TYPE": "ml.m5.large",
        "SM_CURRENT_INSTANCE_GROUP": "homogeneousCluster",
        "SM_CURRENT_INSTANCE_GROUP_HOSTS": '["algo-1", "algo-2"]',
        "SM_INSTANCE_GROUPS": '["homogeneousCluster"]',
        "SM_INSTANCE_GROUPS_DICT": json.dumps({"homogeneousCluster": group}),
        "SM_DISTRIBUTION_INSTANCE_GROUPS": '["homogeneousCluster"]',
        "SM_IS_HETERO": "false",
        "SM_NUM_CPUS": "2",
        "SM_NUM_GPUS": "0",
        "SM_NUM_NEURONS": "0",
        "SM_MODULE_NAME": "train",
        "SM_MODULE_DIR": "s3://b/sourcedir.tar.gz",
        "SM_USER_ENTRY_POINT": "train.py",
        "SM_FRAMEWORK_MODULE": "sagemaker_sklearn_container.training:main",
        "SM_LOG_LEVEL": "20",
    }
    assert training_env["channel_input_dirs"]["train"] == f"{base}/input/data/train"
    assert training_env["hyperparameters"] == {"lr": 0.5}
    assert training_env["additional_framework_parameters"] == {"sagemaker_mpi_enabled": True}
    assert training_env["is_master"] is True and training_env["job_name"] == "job-1"
    assert training_env["num_cpus"] == 2 and training_env["hosts"] == ["algo-1", "algo-2"]


def test_hyperparameters_are_decoded_and_those_of_the_toolkit_left_out(base: Path) -> None:
    found = environment(
        base,
        sagemaker_region="us-east-1",
        sagemaker_container_log_level=10,
        _tuning_objective_metric="validation:auc",
        text="abc",
        number=3,
        flag=True,
        items=[1, 2],
        **{"learning-rate": 0.1},
    )
    assert found.hyperparameters == {
        "text": "abc",
        "number": 3,
        "flag": True,
        "items": [1, 2],
        "learning-rate": 0.1,
    }
    variables = found.variables()
    assert variables["SM_HP_LEARNING-RATE"] == "0.1" and variables["SM_HP_TEXT"] == "abc"
    assert variables["SM_HP_FLAG"] == "true" and variables["SM_HP_ITEMS"] == "[1, 2]"
    assert variables["SM_LOG_LEVEL"] == "10" and variables["SM_FRAMEWORK_PARAMS"] == "{}"


def test_plain_text_is_taken_as_it_stands(base: Path) -> None:
    (base / "input/config/hyperparameters.json").write_text(
        '{"a": "some words", "b": "1e-3", "c": "{broken"}'
    )
    assert read_environment(base).hyperparameters == {"a": "some words", "b": 1e-3, "c": "{broken"}


def test_arguments_are_sorted_with_one_dash_for_one_letter(base: Path) -> None:
    found = environment(base, zeta=1, a="x", flag=True, layers={"one": 1, "two": "b"}, empty="")
    assert found.arguments() == [
        "-a", "x", "--empty", "", "--flag", "True", "--layers", "one=1,two=b", "--zeta", "1",
    ]  # fmt: skip
    assert command_line(found)[:4] == ["python", "train.py", "-a", "x"]


def test_a_job_without_configuration_has_defaults(base: Path) -> None:
    found = read_environment(base).variables()
    assert found["SM_HOSTS"] == '["algo-1"]' and found["SM_CHANNELS"] == "[]" and found["SM_HPS"] == "{}"


@pytest.mark.parametrize(("text", "words"), [("{", "is not JSON"), ("[]", "must hold a JSON object")])
def test_a_broken_file_is_named(base: Path, text: str, words: str) -> None:
    (base / "input/config/hyperparameters.json").write_text(text)
    with pytest.raises(ValueError, match=rf"hyperparameters\.json {words}"):
        read_environment(base)
