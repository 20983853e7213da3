"""The control plane, furnished for tests of hosting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clary.compute.scripted import Script, healthy_serving
from clary.resources.task import ServingWork, TaskSpec
from clary.testing.control_plane import ACCOUNT, REGION, ControlPlane

IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/sagemaker-xgboost:1.7-1"


class HostingWorld(ControlPlane):
    """Make it inside a running event loop. ``scripts`` are by variant name, or by model name."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        super().__init__(self._script)

    async def create_model(self, name: str = "model", **container: Any) -> None:
        """A model that a scripted driver can run."""
        await self.call(
            "CreateModel",
            ModelName=name,
            ExecutionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/service",
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": "s3://bucket/model.tar.gz", **container},
        )

    async def create_config(self, name: str, *variants: Mapping[str, Any], **members: Any) -> None:
        """A configuration; ``variants`` say only what is unusual of them."""
        usual = {
            "VariantName": "AllTraffic",
            "ModelName": "model",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        await self.call(
            "CreateEndpointConfig",
            EndpointConfigName=name,
            ProductionVariants=[{**usual, **variant} for variant in variants or [{}]],
            **members,
        )

    async def create_endpoint(self, *variants: Mapping[str, Any]) -> None:
        """The endpoint ``endpoint`` of a model ``model``, in service."""
        await self.create_model()
        await self.create_config("config", *variants)
        await self.call("CreateEndpoint", EndpointName="endpoint", EndpointConfigName="config")
        await self.settle()

    async def describe(self, name: str = "endpoint") -> dict[str, Any]:
        return await self.call("DescribeEndpoint", EndpointName=name)

    def _script(self, spec: TaskSpec) -> Script:
        assert isinstance(spec.work, ServingWork)
        usual = healthy_serving(address=f"unix:/{spec.id}")
        model = str(spec.work.model.get("ModelName"))
        return self.scripts.get(spec.work.variant_name) or self.scripts.get(model) or usual
