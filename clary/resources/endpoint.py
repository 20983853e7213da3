"""Endpoints: what is deployed, what is asked for, their statuses, and how they are shown.

The spec holds, besides the caller's members, a *deployment* (a copy of the configuration and its models, so
that neither can change or vanish under an endpoint) and the *desired* weights and counts of its variants.
Each has a number that a caller's wish raises; the status says which numbers were tried and which serve:

- ``Serving``  the deployment that answers; absent until the first one is up;
- ``Tried``    the number of the last deployment that came up or failed;
- ``Applied``  weights and counts in force; its number is that of the last wish fulfilled or given up;
- ``Current``  healthy replicas by variant;
- ``StartedAt``  when the deployment of number ``Started`` was begun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clary.resources import endpoint_config
from clary.resources.arn import sagemaker_arn
from clary.resources.lifecycle import Lifecycle
from clary.resources.model import containers
from clary.resources.resource import Document, JsonValue, Resource

KIND = "Endpoint"
LOG_GROUP_PREFIX = "/aws/sagemaker/Endpoints/"
LONGEST_FAILURE_REASON = 1024
DEFAULT_STARTUP_SECONDS = 240.0  # for the container to answer /ping
DEFAULT_DOWNLOAD_SECONDS = 3600.0

LIFECYCLE = Lifecycle(
    KIND,
    {
        "Creating": ("InService", "Failed", "Deleting"),
        "InService": ("Updating", "Deleting"),
        "Updating": ("InService", "Deleting"),
        "Failed": ("Deleting",),
        "Deleting": (),
    },
)


@dataclass(frozen=True)
class Wish:
    """What a variant is to have."""

    weight: float
    instance_count: int


@dataclass(frozen=True)
class Wishes:
    """What a deployment's variants are to have, by name."""

    number: int
    variants: Mapping[str, Wish]


@dataclass(frozen=True)
class Variant:
    """A production variant of a deployment. ``model`` is the CreateModel input."""

    name: str
    model: Document
    role_arn: str
    instance_type: str
    initial: Wish
    startup_timeout_seconds: float
    download_timeout_seconds: float

    @property
    def digest(self) -> str:
        """A short text for ids, since names compare with case and may be long."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Deployment:
    """A configuration and its models, as they were when the caller asked for them.

    ``refusal`` says why it cannot be run at all, "" if it can.
    """

    number: int
    config_name: str
    variants: tuple[Variant, ...]
    refusal: str


def deployment_document(
    number: int, config: Document, models: Mapping[str, Document]
) -> dict[str, JsonValue]:
    """What is kept of a deployment; ``models`` by name."""
    return {
        "Number": number,
        "Config": {name: value for name, value in config.items() if name != "Tags"},
        "Models": {
            model: {name: value for name, value in spec.items() if name != "Tags"}
            for model, spec in models.items()
        },
    }


def read_deployment(document: Any) -> Deployment:
    """Inverse of `deployment_document`."""
    config = document["Config"]
    role = str(config.get("ExecutionRoleArn") or "")
    variants = []
    for each in endpoint_config.production_variants(config):
        model = document["Models"].get(each.get("ModelName"), {})
        variants.append(
            Variant(
                name=str(each["VariantName"]),
                model=model,
                role_arn=str(model.get("ExecutionRoleArn") or role),
                instance_type=endpoint_config.variant_instance_type(each),
                initial=Wish(
                    endpoint_config.variant_weight(each), endpoint_config.variant_instance_count(each)
                ),
                startup_timeout_seconds=float(
                    each.get("ContainerStartupHealthCheckTimeoutInSeconds") or DEFAULT_STARTUP_SECONDS
                ),
                download_timeout_seconds=float(
                    each.get("ModelDataDownloadTimeoutInSeconds") or DEFAULT_DOWNLOAD_SECONDS
                ),
            )
        )
    return Deployment(
        number=int(document["Number"]),
        config_name=str(config["EndpointConfigName"]),
        variants=tuple(variants),
        refusal=endpoint_config.not_offered(config),
    )


def initial_wishes(number: int, config: Document) -> dict[str, JsonValue]:
    """The wishes that a configuration itself states, as the document kept in the spec."""
    return wishes_document(
        Wishes(
            number,
            {
                str(each["VariantName"]): Wish(
                    endpoint_config.variant_weight(each), endpoint_config.variant_instance_count(each)
                )
                for each in endpoint_config.production_variants(config)
            },
        )
    )


def wishes_document(wishes: Wishes) -> dict[str, JsonValue]:
    """What is kept of wishes."""
    return {
        "Number": wishes.number,
        "Variants": {
            name: {"Weight": wish.weight, "InstanceCount": wish.instance_count}
            for name, wish in wishes.variants.items()
        },
    }


def read_wishes(document: Any) -> Wishes:
    """Inverse of `wishes_document`."""
    return Wishes(
        int(document["Number"]),
        {
            name: Wish(float(wish["Weight"]), int(wish["InstanceCount"]))
            for name, wish in document["Variants"].items()
        },
    )


def initial_status() -> dict[str, JsonValue]:
    """The status of an endpoint that was just asked for."""
    return {"EndpointStatus": "Creating", "Tried": 0}


def shown_status(resource: Resource) -> str:
    """The status as callers see it: what was asked for a moment ago shows at once."""
    spec, status = resource.spec, resource.status
    if spec.get("DeleteRequested"):
        return "Deleting"
    seen = str(status.get("EndpointStatus", "Creating"))
    if seen == "InService" and (
        wanted_number(spec) != status.get("Tried") or _number(spec["Desired"]) != _number(status["Applied"])
    ):
        return "Updating"
    return seen


def wanted_number(spec: Document) -> int:
    """The number of the deployment that is asked for."""
    return _number(spec["Deployment"])


def log_group(name: str) -> str:
    """The log group of the endpoint ``name``."""
    return LOG_GROUP_PREFIX + name


def describe(resource: Resource) -> dict[str, Any]:
    """The endpoint as DescribeEndpoint shows it."""
    spec, status = resource.spec, resource.status
    state = shown_status(resource)
    serving: Any = status.get("Serving") or spec["Deployment"]
    shown: dict[str, Any] = {
        "EndpointName": resource.key.name,
        "EndpointArn": sagemaker_arn(resource.key),
        "EndpointConfigName": serving["Config"]["EndpointConfigName"],
        "ProductionVariants": _variants(resource, serving),
        "EndpointStatus": state,
        "FailureReason": status.get("FailureReason") if state != "Updating" else None,
        "CreationTime": resource.created_at,
        "LastModifiedTime": resource.modified_at,
        "LastDeploymentConfig": spec.get("DeploymentConfig"),
    }
    for name in ("AsyncInferenceConfig", "ExplainerConfig", "MetricsConfig"):
        shown[name] = serving["Config"].get(name)
    shown["DataCaptureConfig"] = _data_capture(serving["Config"])
    if state == "Updating" and wanted_number(spec) != status.get("Tried"):
        pending: Any = spec["Deployment"]
        shown["PendingDeploymentSummary"] = {
            "EndpointConfigName": pending["Config"]["EndpointConfigName"],
            "ProductionVariants": _pending_variants(pending, spec),
            "StartTime": status.get("StartedAt"),
        }
    return shown


def summarize(resource: Resource) -> dict[str, Any]:
    """The endpoint as ListEndpoints shows it."""
    return {
        "EndpointName": resource.key.name,
        "EndpointArn": sagemaker_arn(resource.key),
        "CreationTime": resource.created_at,
        "LastModifiedTime": resource.modified_at,
        "EndpointStatus": shown_status(resource),
    }


def _variants(resource: Resource, deployment: Any) -> list[dict[str, Any]]:
    spec, status = resource.spec, resource.status
    applied: Any = status.get("Applied") or {"Variants": {}}
    current: Any = status.get("Current") or {}
    desired: Any = spec["Desired"]
    # While another deployment comes up, the wishes in the spec are for that one.
    if status.get("Applied") and (
        wanted_number(spec) != _number(deployment) or _number(desired) == _number(applied)
    ):
        desired = applied
    shown = []
    for each in endpoint_config.production_variants(deployment["Config"]):
        name = each["VariantName"]
        initial = {
            "Weight": endpoint_config.variant_weight(each),
            "InstanceCount": endpoint_config.variant_instance_count(each),
        }
        wish = desired["Variants"].get(name) or initial
        in_force = applied["Variants"].get(name) or {"Weight": 0.0}
        entry: dict[str, Any] = {
            "VariantName": name,
            "DeployedImages": _images(deployment, each, resource) or None,
            "CurrentWeight": in_force["Weight"],
            "DesiredWeight": wish["Weight"],
        }
        if each.get("ServerlessConfig"):
            entry["CurrentServerlessConfig"] = entry["DesiredServerlessConfig"] = each["ServerlessConfig"]
        else:
            entry["CurrentInstanceCount"] = current.get(name, 0)
            entry["DesiredInstanceCount"] = wish["InstanceCount"]
        for member in ("ManagedInstanceScaling", "RoutingConfig"):
            entry[member] = each.get(member)
        shown.append(entry)
    return shown


def _images(deployment: Any, variant: Mapping[str, Any], resource: Resource) -> list[dict[str, Any]]:
    model = deployment["Models"].get(variant.get("ModelName")) or {}
    resolved_at = resource.status.get("StartedAt") or resource.created_at
    return [
        {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": resolved_at}
        for image in (container.get("Image") for container in containers(model))
        if image
    ]


def _pending_variants(deployment: Any, spec: Document) -> Sequence[dict[str, Any]]:
    desired: Any = spec["Desired"]
    shown = []
    for each in endpoint_config.production_variants(deployment["Config"]):
        wish = desired["Variants"].get(each["VariantName"]) or {}
        shown.append(
            {
                "VariantName": each["VariantName"],
                "DesiredWeight": wish.get("Weight"),
                "DesiredInstanceCount": wish.get("InstanceCount"),
                "InstanceType": each.get("InstanceType"),
            }
        )
    return shown


def _data_capture(config: Mapping[str, Any]) -> dict[str, Any] | None:
    capture = config.get("DataCaptureConfig")
    if not capture:
        return None
    return {
        "EnableCapture": bool(capture.get("EnableCapture")),
        "CaptureStatus": "Stopped",
        "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
        "DestinationS3Uri": capture["DestinationS3Uri"],
        "KmsKeyId": capture.get("KmsKeyId", ""),
    }


def _number(document: Any) -> int:
    return int(document["Number"])
