"""The service models as Clary loads them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader

from clary.protocol.codecs import CODECS
from clary.protocol.identify import SERVICES
from clary.protocol.models import SERVED, ServiceModels

MODELS = ServiceModels()


def test_a_model_is_loaded_once() -> None:
    assert MODELS["sts"] is MODELS["sts"]


def test_an_unknown_service_is_told() -> None:
    with pytest.raises(UnknownServiceError):
        MODELS["no-such-service"]


@pytest.mark.parametrize("service", ["sagemaker-runtime", "cloudwatch", "s3", "iam"])
def test_only_documentation_is_left_out(service: str) -> None:
    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: bare(item)
                for name, item in value.items()
                if not (name == "documentation" and isinstance(item, str))
            }
        return [bare(item) for item in value] if isinstance(value, list) else value

    whole = Loader(include_default_search_paths=False, extra_search_paths=[Loader.BUILTIN_DATA_PATH])
    model = MODELS[service]
    expected = bare(whole.load_service_model(service, "service-2"))
    assert model._service_description == expected
    assert list(model._service_description["shapes"]) == list(expected["shapes"])


def test_what_a_user_keeps_at_home_does_not_count(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / ".aws" / "models" / "sts" / "2099-01-01"
    models.mkdir(parents=True)
    (models / "service-2.json").write_text('{"metadata": {}, "operations": {}, "shapes": {}}')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path / ".aws" / "models"))
    monkeypatch.setattr(Loader, "CUSTOMER_DATA_PATH", str(tmp_path / ".aws" / "models"))
    assert "GetCallerIdentity" in ServiceModels()["sts"].operation_names


@pytest.mark.parametrize("service", SERVED)
def test_every_service_is_spoken_in_the_protocols_of_its_model(service: str) -> None:
    protocols = MODELS.protocols(service)
    assert SERVICES[service].protocol in protocols
    assert set(protocols) <= set(CODECS)
    assert set(MODELS[service].metadata.get("protocols", [])) == set(protocols)


def test_cloudwatch_speaks_three() -> None:
    assert MODELS.protocols("cloudwatch") == ("smithy-rpc-v2-cbor", "json", "query")
