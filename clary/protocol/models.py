"""The service models that drive the wire, each loaded at its first use and kept."""

from __future__ import annotations

from botocore.loaders import Loader
from botocore.model import ServiceModel

# The services Clary lists. Their models are large: what nobody calls is never loaded.
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


class ServiceModels:
    """botocore's models by service name."""

    def __init__(self) -> None:
        self._loader = Loader()
        self._models: dict[str, ServiceModel] = {}

    def __getitem__(self, service: str) -> ServiceModel:
        """The model of ``service``. Raises botocore's ``UnknownServiceError``."""
        if service not in self._models:
            self._models[service] = ServiceModel(
                self._loader.load_service_model(service, "service-2"), service
            )
            # The loader keeps a second copy of every file it read.
            self._loader = Loader()
        return self._models[service]
