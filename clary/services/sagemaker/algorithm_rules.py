"""What an algorithm may say of itself, and what it demands of the training jobs that name it.

The rules that shapes cannot express. Each raises `Invalid` and names the member, its value and what would do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from clary.agent.images import BuiltIn, resolve_image
from clary.algorithms.algorithm import (
    SDK_PREFIX,
    TUNING_OBJECTIVE,
    Hyperparameter,
    Kind,
    Range,
    get_algorithm,
)
from clary.faults import Invalid
from clary.protocol.wire import Members
from clary.services.sagemaker.training_checks import check_unique

_RANGES: Mapping[str, str] = {
    "Integer": "IntegerParameterRangeSpecification",
    "Continuous": "ContinuousParameterRangeSpecification",
    "Categorical": "CategoricalParameterRangeSpecification",
}
_NUMBER_WORDS = {"Integer": "a whole number", "Continuous": "a number"}


def check_training_specification(training: Members) -> None:
    """What CreateAlgorithm is told of training."""
    if training.get("AdditionalS3DataSource"):
        raise Invalid(
            "TrainingSpecification.AdditionalS3DataSource is not offered by Clary: give the data to training "
            "jobs as a channel."
        )
    digest, (_, _, pinned) = training.get("TrainingImageDigest"), training["TrainingImage"].partition("@")
    if digest and pinned and pinned.lower() != digest.lower():
        raise Invalid(
            f"TrainingImageDigest '{digest}' is not the digest in TrainingImage "
            f"'{training['TrainingImage']}'."
        )
    if not training["SupportedTrainingInstanceTypes"]:
        raise Invalid("SupportedTrainingInstanceTypes must name at least one instance type.")
    check_unique(training["SupportedTrainingInstanceTypes"], "SupportedTrainingInstanceTypes")
    parameters = training.get("SupportedHyperParameters") or []
    check_unique([each["Name"] for each in parameters], "The names of SupportedHyperParameters")
    for parameter in parameters:
        _check_parameter(parameter)
    channels = training["TrainingChannels"]
    check_unique([each["Name"] for each in channels], "The names of TrainingChannels")
    for channel in channels:
        check_unique(
            channel["SupportedInputModes"], f"SupportedInputModes of the training channel '{channel['Name']}'"
        )
    _check_metrics(training)


def check_inference_specification(inference: Members | None) -> None:
    """What CreateAlgorithm is told of inference."""
    containers = (inference or {}).get("Containers") or []
    for container in containers:
        if not container.get("Image"):
            raise Invalid("Each container of InferenceSpecification.Containers must specify an Image.")
    hostnames = [each["ContainerHostname"] for each in containers if each.get("ContainerHostname")]
    check_unique(hostnames, "The ContainerHostnames of InferenceSpecification.Containers")


def check_use(algorithm: str, training: Members, request: Members) -> None:
    """A CreateTrainingJob input (its hyperparameters complete) against what ``algorithm`` supports."""
    _check_instances(algorithm, training, request.get("ResourceConfig") or {})
    specification = request["AlgorithmSpecification"]
    _check_channels(
        algorithm, training, request.get("InputDataConfig") or [], specification["TrainingInputMode"]
    )
    errors = _hyperparameter_errors(training, request.get("HyperParameters") or {})
    if errors:
        raise Invalid(f"Hyperparameters of algorithm {algorithm} are not valid: {'; '.join(errors)}")


def with_default_hyperparameters(training: Members, given: Mapping[str, str]) -> dict[str, str]:
    """``given`` and the default of each hyperparameter that is not."""
    defaults = {
        each["Name"]: each["DefaultValue"]
        for each in training.get("SupportedHyperParameters") or []
        if each.get("DefaultValue") is not None
    }
    return {**defaults, **given}


def _check_parameter(parameter: Members) -> None:
    name, kind = parameter["Name"], parameter["Type"]
    place = f"The hyperparameter '{name}'"
    ranges = parameter.get("Range") or {}
    wanted = _RANGES.get(kind)
    if ranges and list(ranges) != [wanted]:
        raise Invalid(
            f"{place} is of type {kind} and must have "
            f"{f'no Range but a {wanted}' if wanted else 'no Range'}, not {', '.join(ranges)}."
        )
    if kind == "FreeText" and parameter.get("IsTunable"):
        raise Invalid(f"{place} is of type FreeText and cannot be tunable.")
    if ranges and kind == "Categorical":
        check_unique(ranges[wanted]["Values"], f"The values of the hyperparameter '{name}'")
    elif ranges:
        low, high = (_bound(name, kind, bound, ranges[wanted][bound]) for bound in ("MinValue", "MaxValue"))
        if low > high:
            raise Invalid(
                f"{place} has a MinValue of {ranges[wanted]['MinValue']}, which is greater than its MaxValue "
                f"of {ranges[wanted]['MaxValue']}."
            )
    default = parameter.get("DefaultValue")
    if default is None:
        return
    if parameter.get("IsRequired"):
        raise Invalid(
            f"{place} has a DefaultValue and cannot be required: leave out IsRequired or DefaultValue."
        )
    error = _value_error(parameter, default)
    if error:
        raise Invalid(f"The DefaultValue of a hyperparameter is not valid: {error}")


def _bound(name: str, kind: Kind, bound: str, text: str) -> float:
    if Hyperparameter(name, kind).error(text):
        raise Invalid(f"{bound} of the hyperparameter '{name}' must be {_NUMBER_WORDS[kind]}, not '{text}'.")
    return float(text)


def _value_error(parameter: Members, value: str) -> str | None:
    """Why ``value`` will not do for a HyperParameterSpecification, or ``None``."""
    name, kind = parameter["Name"], parameter["Type"]
    given = (parameter.get("Range") or {}).get(_RANGES.get(kind)) or {}
    if kind == "FreeText":
        return None
    if kind == "Categorical":
        values: Sequence[str] = given.get("Values") or []
        allowed = not values or value in values
        return None if allowed else f"Hyperparameter {name}: '{value}' is not in [{', '.join(values)}]"
    bounds = Range(float(given.get("MinValue", -math.inf)), float(given.get("MaxValue", math.inf)))
    return Hyperparameter(name, kind, range=bounds).error(value)


def _hyperparameter_errors(training: Members, values: Mapping[str, str]) -> list[str]:
    """A sentence for each. An algorithm that lists no hyperparameters at all takes any."""
    declared = training.get("SupportedHyperParameters")
    if declared is None:
        return []
    errors = []
    known = {parameter["Name"]: parameter for parameter in declared}
    for name in sorted(values):
        if name in known:
            error = _value_error(known[name], values[name])
            errors += [error] if error else []
        elif name != TUNING_OBJECTIVE and not name.startswith(SDK_PREFIX):
            errors.append(f"Additional properties are not allowed ('{name}' was unexpected)")
    errors += [
        f"Missing required hyperparameter: {name}"
        for name, parameter in known.items()
        if parameter.get("IsRequired") and name not in values
    ]
    return errors


def _check_metrics(training: Members) -> None:
    definitions = training.get("MetricDefinitions") or []
    names = [definition["Name"] for definition in definitions]
    check_unique(names, "The names of MetricDefinitions")
    for definition in definitions:
        try:
            groups = re.compile(definition["Regex"]).groups
        except re.error as error:
            raise Invalid(
                f"The Regex of metric '{definition['Name']}' is not a regular expression: {error}."
            ) from None
        if not groups:
            raise Invalid(
                f"The Regex of metric '{definition['Name']}' must have a group that captures the value, as "
                f"'loss=([0-9.]+)' has; '{definition['Regex']}' has none."
            )
    if not names:
        meaning = resolve_image(training["TrainingImage"], has_program=False)
        if isinstance(meaning, BuiltIn):
            names = [metric.name for metric in get_algorithm(meaning.algorithm).metrics]
    for objective in training.get("SupportedTuningJobObjectiveMetrics") or []:
        if objective["MetricName"] not in names:
            raise Invalid(
                f"The objective metric '{objective['MetricName']}' of SupportedTuningJobObjectiveMetrics is "
                f"not among the MetricDefinitions: {', '.join(names) or 'there are none'}."
            )


def _check_instances(algorithm: str, training: Members, resources: Members) -> None:
    groups = resources.get("InstanceGroups") or [resources]
    supported = training["SupportedTrainingInstanceTypes"]
    for group in groups:
        type_name = group.get("InstanceType")
        if type_name and type_name not in supported:
            raise Invalid(
                f"Instance type {type_name} is not supported by algorithm {algorithm}. Supported instance "
                f"types: {', '.join(supported)}."
            )
    count = sum(int(group.get("InstanceCount") or 0) for group in groups)
    if count > 1 and training.get("SupportsDistributedTraining") is False:
        raise Invalid(
            f"Distributed training is not supported by algorithm {algorithm}: the instance count must be 1, "
            f"not {count}."
        )


def _check_channels(algorithm: str, training: Members, channels: Sequence[Members], usual_mode: str) -> None:
    declared = {channel["Name"]: channel for channel in training["TrainingChannels"]}
    given = [channel["ChannelName"] for channel in channels]
    for name, supported in declared.items():
        if supported.get("IsRequired") and name not in given:
            raise Invalid(f"The channel '{name}' is required by algorithm {algorithm} and is not given.")
    for channel in channels:
        name = channel["ChannelName"]
        if name not in declared:
            raise Invalid(
                f"The channel '{name}' is not supported by algorithm {algorithm}. Supported channels: "
                f"{', '.join(declared)}."
            )
        supported = declared[name]
        _among(algorithm, name, "input mode", channel.get("InputMode") or usual_mode,
               supported["SupportedInputModes"])  # fmt: skip
        if channel.get("ContentType"):
            types = supported["SupportedContentTypes"]
            if _media_type(channel["ContentType"]) not in {_media_type(each) for each in types}:
                _among(algorithm, name, "content type", channel["ContentType"], types)
        compression = channel.get("CompressionType") or "None"
        if compression != "None":
            _among(algorithm, name, "compression type", compression,
                   supported.get("SupportedCompressionTypes") or [])  # fmt: skip


def _among(algorithm: str, channel: str, what: str, value: str, supported: Sequence[str]) -> None:
    """An empty list supports anything: the algorithm does not say."""
    if supported and value not in supported:
        raise Invalid(
            f"The {what} '{value}' of channel '{channel}' is not supported by algorithm {algorithm}. "
            f"Supported: {', '.join(supported)}."
        )


def _media_type(content_type: str) -> str:
    """Without parameters: ``text/csv;label_size=1`` is ``text/csv``."""
    return content_type.partition(";")[0].strip().lower()
