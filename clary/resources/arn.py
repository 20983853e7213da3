"""Amazon resource names of what Clary holds, both ways.

``arn:aws:sagemaker:REGION:ACCOUNT:TYPE/NAME``; SageMaker lower-cases the name inside an ARN, so
`parse_arn` gives the name as the ARN has it and a lookup by ARN compares without case.
"""

from __future__ import annotations

from dataclasses import dataclass

from clary.faults import Invalid
from clary.resources.resource import Key

PARTITION = "aws"

# The kind of a resource in the store -> its type in a SageMaker ARN.
SAGEMAKER_TYPES = {
    "TrainingJob": "training-job",
    "HyperParameterTuningJob": "hyper-parameter-tuning-job",
    "TransformJob": "transform-job",
    "ProcessingJob": "processing-job",
    "Model": "model",
    "EndpointConfig": "endpoint-config",
    "Endpoint": "endpoint",
    "Algorithm": "algorithm",
    "ModelPackage": "model-package",
    "ModelPackageGroup": "model-package-group",
}
_KINDS = {arn_type: kind for kind, arn_type in SAGEMAKER_TYPES.items()}


@dataclass(frozen=True)
class Arn:
    """The six parts of an ARN after ``arn``; ``resource`` is all that follows the account."""

    partition: str
    service: str
    region: str
    account: str
    resource: str


def split_arn(arn: str) -> Arn:
    """Take an ARN apart. Raises `Invalid` if it is none."""
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn" or not parts[5]:
        raise Invalid(f"Invalid ARN: {arn}")
    return Arn(*parts[1:])


def sagemaker_arn(key: Key) -> str:
    """The ARN of a SageMaker resource."""
    return (
        f"arn:{PARTITION}:sagemaker:{key.region}:{key.account}:{SAGEMAKER_TYPES[key.kind]}/{key.name.lower()}"
    )


def sagemaker_key(arn: str) -> Key:
    """The key a SageMaker ARN stands for, its name in lower case. Raises `Invalid` for anything else."""
    parts = split_arn(arn)
    arn_type, _, name = parts.resource.partition("/")
    if parts.service != "sagemaker" or arn_type not in _KINDS or not name:
        raise Invalid(f"Invalid ARN: {arn}")
    return Key(_KINDS[arn_type], parts.account, parts.region, name)
