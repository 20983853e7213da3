"""The service models that drive the wire, each loaded at its first use and kept.

They are botocore's, read without their documentation, which is most of their bulk, and in ``own_services``
the model of what Clary offers beside AWS, written like theirs. Models that a user may have put into
``~/.aws/models`` do not count: they describe what that user's clients send, not what Clary is.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel

from clary.protocol import sqs_forms

SERVED = (
    "sagemaker",
    "sagemaker-runtime",
    "sagemaker-metrics",
    "application-autoscaling",
    "cloudwatch",
    "logs",
    "s3",
    "sts",
    "iam",
    "ecr",
    "events",
    "sqs",
    "sns",
    "kms",
)
"""The services Clary lists, by botocore's names."""

OWN_SERVICES = Path(__file__).parent / "own_services"
"""The models of Clary's own services, laid out as botocore's data folder is."""

_CODECS = frozenset({"json", "rest-json", "rest-xml", "query", "ec2", "smithy-rpc-v2-cbor"})


class ServiceModels:
    """The models by service name."""

    def __init__(self) -> None:
        self._models: dict[str, ServiceModel] = {}
        self._sqs_in_forms: ServiceModel | None = None

    def __getitem__(self, service: str) -> ServiceModel:
        """The model of ``service``. Raises botocore's ``UnknownServiceError``."""
        model = self._models.get(service)
        if model is None:
            # A loader keeps what it loads: a fresh one each time leaves one copy, the model's.
            loader = Loader(
                extra_search_paths=[Loader.BUILTIN_DATA_PATH, str(OWN_SERVICES)],
                file_loader=_BareFiles(),
                include_default_search_paths=False,
            )
            document = loader.load_service_model(service, "service-2")
            if service == "sqs":
                document = sqs_forms.as_served(document)
                self._sqs_in_forms = ServiceModel(sqs_forms.in_forms(document), service)
            model = ServiceModel(document, service)
            self._models[service] = model
        return model

    def spoken(self, service: str, protocol: str) -> ServiceModel:
        """The model of ``service`` as it is to one who speaks ``protocol``."""
        model = self[service]
        if service == "sqs" and protocol == "query" and self._sqs_in_forms is not None:
            return self._sqs_in_forms
        return model

    def protocols(self, service: str) -> tuple[str, ...]:
        """The protocols that ``service`` may be spoken in, in the model's order."""
        return protocols_of(self[service])


def protocols_of(model: ServiceModel) -> tuple[str, ...]:
    """See `ServiceModels.protocols`."""
    named = model.metadata.get("protocols") or [model.metadata["protocol"]]
    return tuple(name for name in named if name in _CODECS)


class _BareFiles:
    """Reads model files and leaves their documentation out. botocore's contract of a file loader."""

    def exists(self, file_path: str) -> bool:
        return self._find(file_path) is not None

    def load_file(self, file_path: str) -> Any:
        """The document at ``file_path``, given without its extension; ``None`` if there is no such file."""
        found = self._find(file_path)
        if found is None:
            return None
        data = found.read_bytes()
        if found.suffix == ".gz":
            data = gzip.decompress(data)
        return json.loads(data, object_pairs_hook=_without_documentation)

    @staticmethod
    def _find(file_path: str) -> Path | None:
        paths = (Path(f"{file_path}.json"), Path(f"{file_path}.json.gz"))
        return next((path for path in paths if path.is_file()), None)


def _without_documentation(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # A member may be called documentation; its value is then no text.
    return {name: value for name, value in pairs if not (name == "documentation" and isinstance(value, str))}
