"""Settings come from the file, the environment and the command line, and wrong ones are named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from clary.settings import Settings, load_settings


def test_the_later_source_wins(tmp_path: Path) -> None:
    config = tmp_path / "clary.toml"
    config.write_text('port = 1\nregion = "eu-west-1"\naccount = "111122223333"\n')
    settings = load_settings(
        {"port": 3}, environment={"CLARY_PORT": "2", "CLARY_REGION": "us-west-2"}, config=config
    )
    assert (settings.port, settings.region, settings.account) == (3, "us-west-2", "111122223333")


def test_the_data_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"data": "here"}, environment={}).data == tmp_path / "here"


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("No", False), ("off", False)])
def test_switches_are_read_as_people_write_them(text: str, value: bool) -> None:
    assert load_settings(environment={"CLARY_VERIFY_SIGNATURES": text}).verify_signatures is value


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CLARY_PORT": "eight"}, "CLARY_PORT: 'port' must be a whole number, not 'eight'"),
        ({"CLARY_VERIFY_SIGNATURES": "maybe"}, "'verify_signatures' must be true or false, not 'maybe'"),
        ({"CLARY_CONFIG": "/does/not/exist.toml"}, "there is no such configuration file"),
    ],
)
def test_a_wrong_value_is_named_with_its_origin(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_settings(environment=environment)


def test_an_unknown_setting_in_the_file_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    config = tmp_path / "clary.toml"
    config.write_text("prot = 1\n")
    with pytest.raises(ValueError, match=r"there is no setting 'prot'\. The settings are: .*port"):
        load_settings(environment={}, config=config)


def test_quotas_may_be_a_table_of_the_file(tmp_path: Path) -> None:
    config = tmp_path / "clary.toml"
    lines = ["[quotas]", '"ml.m5.xlarge for training job usage" = 4', '"ml.g5.xlarge for endpoint usage" = 0']
    config.write_text("\n".join(lines))
    assert load_settings(environment={}, config=config).quotas == (
        "ml.m5.xlarge for training job usage=4, ml.g5.xlarge for endpoint usage=0"
    )


def test_every_setting_is_described() -> None:
    assert all(field.metadata["description"] for field in dataclasses.fields(Settings))
