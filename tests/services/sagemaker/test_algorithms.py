"""Algorithms are taken, shown, listed and deleted, and hold the jobs that name them to what they say."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from clary.faults import Fault, InUse, Invalid, LimitExceeded, NotFound
from clary.resources.task import TrainingWork
from clary.services.sagemaker.quotas import parse_quotas
from clary.testing.algorithm_requests import (
    algorithm_request,
    hyperparameter,
    training_specification,
    validation_specification,
)
from clary.testing.control_plane import ACCOUNT, REGION, ControlPlane
from clary.testing.training_requests import OWN_IMAGE, XGBOOST_IMAGE, channel, training_request

ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:algorithm/"
BOUGHT = f"arn:aws:sagemaker:{REGION}:865070037744:algorithm/decision-trees-57b73412d2e93e9239e4e16f83298b8f"
DIGEST = "sha256:" + "0a" * 32


def job_request(algorithm: str = "algorithm", **members: Any) -> dict[str, Any]:
    """A CreateTrainingJob input that names the usual algorithm rightly."""
    return training_request(
        **{
            "AlgorithmSpecification": {"AlgorithmName": algorithm, "TrainingInputMode": "File"},
            "HyperParameters": {"rate": "0.5"},
            **members,
        }
    )


def resources(**members: Any) -> dict[str, Any]:
    return {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1, **members}


def refusal_of_algorithm(**members: Any) -> str:
    """Why an algorithm is refused; nothing must be kept of it."""

    async def attempt() -> str:
        plane = ControlPlane()
        with pytest.raises(Invalid) as refused:
            await plane.call("CreateAlgorithm", **algorithm_request(**members))
        assert await plane.call("ListAlgorithms") == {"AlgorithmSummaryList": []}
        return refused.value.message

    return asyncio.run(attempt())


def refusal_of_job(training: dict[str, Any], **members: Any) -> str:
    """Why a job that names an algorithm is refused; nothing must be kept of it."""

    async def attempt() -> str:
        plane = ControlPlane()
        await plane.call("CreateAlgorithm", **algorithm_request(TrainingSpecification=training))
        with pytest.raises(Fault) as refused:
            await plane.call("CreateTrainingJob", **job_request(**members))
        assert await plane.call("ListTrainingJobs") == {"TrainingJobSummaries": []}
        return refused.value.message

    return asyncio.run(attempt())


def work_of(plane: ControlPlane, tasks: list[Any]) -> TrainingWork:
    work = plane.driver.spec(tasks[-1].id).work
    assert isinstance(work, TrainingWork)
    return work


def test_every_member_is_kept_and_given_back() -> None:
    given = algorithm_request(
        "Algorithm-1",
        AlgorithmDescription="Says what it does",
        TrainingSpecification=training_specification(TrainingImageDigest=DIGEST),
        InferenceSpecification={
            "Containers": [{"Image": OWN_IMAGE, "ImageDigest": DIGEST, "Environment": {"A": "1"}}],
            "SupportedTransformInstanceTypes": ["ml.m5.large"],
            "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
            "SupportedContentTypes": ["text/csv"],
            "SupportedResponseMIMETypes": ["text/csv"],
        },
        CertifyForMarketplace=True,
    )

    async def facts() -> None:
        plane = ControlPlane()
        created = await plane.call("CreateAlgorithm", **given, Tags=[{"Key": "k", "Value": "v"}])
        assert created == {"AlgorithmArn": f"{ARN}algorithm-1"}
        shown = await plane.call("DescribeAlgorithm", AlgorithmName="Algorithm-1")
        assert shown.pop("CreationTime").timestamp() == 1_700_000_000.0
        assert shown == {
            **given,
            "AlgorithmArn": f"{ARN}algorithm-1",
            "AlgorithmStatus": "Completed",
            "AlgorithmStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
        }
        tags = await plane.call("ListTags", ResourceArn=f"{ARN}algorithm-1")
        assert tags == {"Tags": [{"Key": "k", "Value": "v"}]}
        await plane.call("AddTags", ResourceArn=f"{ARN}algorithm-1", Tags=[{"Key": "l", "Value": "w"}])
        await plane.call("DeleteTags", ResourceArn=f"{ARN}algorithm-1", TagKeys=["k"])
        tags = await plane.call("ListTags", ResourceArn=f"{ARN}algorithm-1")
        assert tags == {"Tags": [{"Key": "l", "Value": "w"}]}

    asyncio.run(facts())


def test_a_name_and_an_arn_in_lower_case_both_find_it() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateAlgorithm", **algorithm_request("Algorithm-1"))
        for name in ("Algorithm-1", f"{ARN}algorithm-1", f"{ARN}Algorithm-1"):
            shown = await plane.call("DescribeAlgorithm", AlgorithmName=name)
            assert shown["AlgorithmName"] == "Algorithm-1"
        with pytest.raises(NotFound) as missing:
            await plane.call("DescribeAlgorithm", AlgorithmName="algorithm-1")
        assert missing.value.message == f"Algorithm {ARN}algorithm-1 does not exist."
        assert missing.value.code == "ValidationException"
        with pytest.raises(NotFound, match="does not exist"):
            await plane.call("DescribeAlgorithm", AlgorithmName=f"{ARN}algorithm-12")
        with pytest.raises(InUse, match="already exists"):
            await plane.call("CreateAlgorithm", **algorithm_request("Algorithm-1"))

    asyncio.run(facts())


def test_an_arn_of_another_region_or_kind_is_refused() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        other = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:algorithm/a"
        with pytest.raises(Invalid, match="ARN should be scoped to correct region: us-east-1"):
            await plane.call("DescribeAlgorithm", AlgorithmName=other)
        with pytest.raises(Invalid, match="not that of an algorithm"):
            await plane.call("DescribeAlgorithm", AlgorithmName=ARN.replace("algorithm/", "model/a"))

    asyncio.run(facts())


def test_an_arn_of_the_marketplace_means_the_callers_own_algorithm_of_that_name() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        with pytest.raises(NotFound) as refused:
            await plane.call("DescribeAlgorithm", AlgorithmName=BOUGHT)
        assert refused.value.message.startswith("Caller is not subscribed to the marketplace offering.")
        name = BOUGHT.rpartition("/")[2]
        assert f"create an algorithm named '{name}' here" in refused.value.message
        await plane.call("CreateAlgorithm", **algorithm_request(name))
        shown = await plane.call("DescribeAlgorithm", AlgorithmName=BOUGHT)
        assert shown["AlgorithmArn"] == ARN + name
        await plane.call("CreateTrainingJob", **job_request(BOUGHT))
        job = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        assert job["AlgorithmSpecification"]["AlgorithmName"] == BOUGHT
        with pytest.raises(NotFound, match="not subscribed"):  # another account has nothing of this one
            await plane.call("DescribeAlgorithm", account="210987654321", AlgorithmName=ARN + name)

    asyncio.run(facts())


def test_listing_sorts_filters_and_pages() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        times = {}
        for name in ("pear", "apple", "plum"):
            described = {"AlgorithmDescription": name.upper()}
            await plane.call("CreateAlgorithm", **algorithm_request(name, **described))
            times[name] = plane.clock.now()
            await plane.clock.advance(10)

        async def names(**filters: Any) -> list[str]:
            page = await plane.call("ListAlgorithms", **filters)
            return [each["AlgorithmName"] for each in page["AlgorithmSummaryList"]]

        assert await names() == ["pear", "apple", "plum"]
        assert await names(SortOrder="Descending") == ["plum", "apple", "pear"]
        assert await names(SortBy="Name") == ["apple", "pear", "plum"]
        assert await names(NameContains="P") == ["pear", "apple", "plum"]
        assert await names(NameContains="ple") == ["apple"]
        assert await names(CreationTimeAfter=times["pear"]) == ["apple", "plum"]
        assert await names(CreationTimeBefore=times["plum"]) == ["pear", "apple"]
        first = await plane.call("ListAlgorithms", SortBy="Name", MaxResults=2)
        rest = await plane.call("ListAlgorithms", SortBy="Name", MaxResults=2, NextToken=first["NextToken"])
        assert [each["AlgorithmName"] for each in rest["AlgorithmSummaryList"]] == ["plum"]
        assert "NextToken" not in rest
        [summary] = (await plane.call("ListAlgorithms", NameContains="plum"))["AlgorithmSummaryList"]
        assert summary.pop("CreationTime").timestamp() == times["plum"]
        assert summary == {
            "AlgorithmName": "plum",
            "AlgorithmArn": f"{ARN}plum",
            "AlgorithmDescription": "PLUM",
            "AlgorithmStatus": "Completed",
        }
        with pytest.raises(Invalid):
            await names(NextToken="nonsense")

    asyncio.run(facts())


def test_a_deleted_algorithm_is_gone_and_its_job_goes_on() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateAlgorithm", **algorithm_request())
        await plane.call("CreateTrainingJob", **job_request())
        await plane.call("DeleteAlgorithm", AlgorithmName="algorithm")
        assert await plane.call("ListAlgorithms") == {"AlgorithmSummaryList": []}
        with pytest.raises(NotFound, match="does not exist"):
            await plane.call("DeleteAlgorithm", AlgorithmName="algorithm")
        await plane.settle(30)
        job = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        assert job["TrainingJobStatus"] == "Completed"
        with pytest.raises(NotFound, match=f"Algorithm {ARN}algorithm does not exist"):
            await plane.call("CreateTrainingJob", **job_request() | {"TrainingJobName": "later"})

    asyncio.run(facts())


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        (
            hyperparameter("p", "Integer", "1", "x"),
            "MaxValue of the hyperparameter 'p' must be a whole number",
        ),
        (hyperparameter("p", "Integer", "1.5", "2"), "MinValue of the hyperparameter 'p' must be a whole"),
        (hyperparameter("p", "Continuous", "low", "2"), "must be a number, not 'low'"),
        (
            hyperparameter("p", "Continuous", "2", "1.5"),
            "MinValue of 2, which is greater than its MaxValue of 1.5",
        ),
        (hyperparameter("p", "Categorical", "a", "a"), "values of the hyperparameter 'p' must be unique"),
        (hyperparameter("p", "Integer", "1", "3", DefaultValue="4"), "'4' is not in [1, 3]"),
        (hyperparameter("p", "Integer", DefaultValue="four"), "'four' is not a whole number"),
        (hyperparameter("p", "Continuous", "0", "1", DefaultValue="2"), "'2' is not in [0, 1]"),
        (hyperparameter("p", "Categorical", "a", "b", DefaultValue="A"), "'A' is not in [a, b]"),
        (hyperparameter("p", "FreeText", DefaultValue="x", IsRequired=True), "cannot be required"),
        (hyperparameter("p", "FreeText", IsTunable=True), "FreeText and cannot be tunable"),
        (
            {**hyperparameter("p", "Integer", "1", "2"), "Type": "FreeText"},
            "is of type FreeText and must have no Range, not IntegerParameterRangeSpecification",
        ),
        (
            {**hyperparameter("p", "Integer", "1", "2"), "Type": "Continuous"},
            "must have no Range but a ContinuousParameterRangeSpecification",
        ),
    ],
)
def test_a_hyperparameter_that_contradicts_itself_is_refused(parameter: dict[str, Any], words: str) -> None:
    message = refusal_of_algorithm(
        TrainingSpecification=training_specification(SupportedHyperParameters=[parameter])
    )
    assert words in message


_CHANNEL = {"Name": "train", "SupportedContentTypes": [], "SupportedInputModes": ["File"]}


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"SupportedTrainingInstanceTypes": []}, "at least one instance type"),
        ({"SupportedTrainingInstanceTypes": ["ml.m5.large"] * 2}, "'ml.m5.large' is given 2 times"),
        ({"SupportedHyperParameters": [hyperparameter("p", "FreeText")] * 2}, "'p' is given 2 times"),
        ({"TrainingChannels": [_CHANNEL, _CHANNEL]}, "names of TrainingChannels must be unique: 'train'"),
        (
            {"TrainingChannels": [{**_CHANNEL, "SupportedInputModes": ["File", "File"]}]},
            "SupportedInputModes of the training channel 'train' must be unique",
        ),
        ({"MetricDefinitions": [{"Name": "loss", "Regex": "loss=(["}]}, "is not a regular expression"),
        ({"MetricDefinitions": [{"Name": "loss", "Regex": "loss="}]}, "must have a group"),
        ({"MetricDefinitions": [{"Name": "loss", "Regex": "(a)"}] * 2}, "'loss' is given 2 times"),
        ({"MetricDefinitions": None}, "'loss' of SupportedTuningJobObjectiveMetrics is not among"),
        (
            {"TrainingImage": f"own@{DIGEST}", "TrainingImageDigest": "sha256:" + "0b" * 32},
            "is not the digest",
        ),
        (
            {"AdditionalS3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/p"}},
            "AdditionalS3DataSource is not offered",
        ),
    ],
)
def test_a_training_specification_that_contradicts_itself_is_refused(
    members: dict[str, Any], words: str
) -> None:
    assert words in refusal_of_algorithm(TrainingSpecification=training_specification(**members))


def test_containers_of_inference_need_images_and_names_of_their_own() -> None:
    assert "must specify an Image" in refusal_of_algorithm(InferenceSpecification={"Containers": [{}]})
    twice = {"Image": OWN_IMAGE, "ContainerHostname": "one"}
    message = refusal_of_algorithm(InferenceSpecification={"Containers": [twice, twice]})
    assert "'one' is given 2 times" in message


def test_metrics_of_a_built_in_image_may_be_objectives() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        training = training_specification(
            TrainingImage=XGBOOST_IMAGE,
            MetricDefinitions=None,
            SupportedTuningJobObjectiveMetrics=[{"Type": "Minimize", "MetricName": "validation:rmse"}],
        )
        await plane.call("CreateAlgorithm", **algorithm_request(TrainingSpecification=training))

    asyncio.run(facts())


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"HyperParameters": {}}, "Missing required hyperparameter: rate"),
        ({"InputDataConfig": [channel("validation")]}, "The channel 'train' is required"),
        ({"ResourceConfig": resources(InstanceCount=2)}, "Distributed training is not supported"),
        ({"StoppingCondition": {"MaxWaitTimeInSeconds": 60}}, "MaxWaitTimeInSeconds"),
    ],
)
def test_a_validation_that_the_algorithm_itself_refuses_is_refused(
    members: dict[str, Any], words: str
) -> None:
    message = refusal_of_algorithm(ValidationSpecification=validation_specification(**members))
    assert message.startswith("Validation profile 'profile': ")
    assert words in message


def test_a_transform_of_validation_is_refused_rather_than_left_out() -> None:
    validation = validation_specification()
    validation["ValidationProfiles"][0]["TransformJobDefinition"] = {
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b/p"}}},
        "TransformOutput": {"S3OutputPath": "s3://b/o"},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
    }
    message = refusal_of_algorithm(ValidationSpecification=validation)
    assert "TransformJobDefinition is not offered by Clary" in message


def test_a_job_by_name_runs_the_algorithms_image_with_its_defaults_and_metrics() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        training = training_specification(TrainingImageDigest=DIGEST)
        await plane.call("CreateAlgorithm", **algorithm_request(TrainingSpecification=training))
        specification = {"AlgorithmName": f"{ARN}algorithm", "TrainingInputMode": "File"}
        await plane.call("CreateTrainingJob", **job_request(AlgorithmSpecification=specification))
        job = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        filled = {"rate": "0.5", "depth": "3", "booster": "tree"}
        assert job["HyperParameters"] == filled
        assert job["AlgorithmSpecification"] == {
            **specification,
            "MetricDefinitions": training["MetricDefinitions"],
            "EnableSageMakerMetricsTimeSeries": True,
        }
        await plane.settle(1)
        work = work_of(plane, list(await plane.driver.tasks()))
        assert work.request["HyperParameters"] == filled
        assert work.request["AlgorithmSpecification"] == {
            "TrainingImage": f"{OWN_IMAGE}@{DIGEST}",
            "TrainingInputMode": "File",
            "MetricDefinitions": training["MetricDefinitions"],
        }
        assert "ResolvedAlgorithm" not in work.request

    asyncio.run(facts())


def test_a_built_in_image_keeps_its_own_rules_and_metrics() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        training = training_specification(
            TrainingImage=XGBOOST_IMAGE,
            MetricDefinitions=None,
            SupportedTuningJobObjectiveMetrics=None,
            SupportedHyperParameters=[
                hyperparameter("num_round", "Integer", "1", "50", DefaultValue="5"),
                hyperparameter("eta", "Continuous", "0", "9"),
                hyperparameter("objective", "FreeText"),
            ],
        )
        await plane.call("CreateAlgorithm", **algorithm_request(TrainingSpecification=training))
        with pytest.raises(Invalid, match="Hyperparameter eta: '3' is not in"):
            await plane.call("CreateTrainingJob", **job_request(HyperParameters={"eta": "3"}))
        with pytest.raises(Invalid, match="num_round: '51' is not in"):
            await plane.call("CreateTrainingJob", **job_request(HyperParameters={"num_round": "51"}))
        with pytest.raises(Invalid, match="max_depth"):
            await plane.call("CreateTrainingJob", **job_request(HyperParameters={"max_depth": "3"}))
        await plane.call("CreateTrainingJob", **job_request(HyperParameters={"eta": "0.3"}))
        job = await plane.call("DescribeTrainingJob", TrainingJobName="job")
        names = [each["Name"] for each in job["AlgorithmSpecification"]["MetricDefinitions"]]
        assert "train:rmse" in names
        assert job["HyperParameters"] == {"eta": "0.3", "num_round": "5"}

    asyncio.run(facts())


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"HyperParameters": None}, "Missing required hyperparameter: rate"),
        ({"HyperParameters": {"rate": "2"}}, "Hyperparameter rate: '2' is not in [0, 1]"),
        ({"HyperParameters": {"rate": "fast"}}, "Hyperparameter rate: 'fast' is not a number"),
        ({"HyperParameters": {"rate": "1", "depth": "2.5"}}, "depth: '2.5' is not a whole number in [1, 10]"),
        ({"HyperParameters": {"rate": "1", "booster": "bush"}}, "'bush' is not in [tree, linear]"),
        ({"HyperParameters": {"rate": "1", "speed": "1"}}, "('speed' was unexpected)"),
        (
            {"ResourceConfig": resources(InstanceType="ml.c5.xlarge")},
            "Instance type ml.c5.xlarge is not supported by algorithm",
        ),
        ({"ResourceConfig": resources(InstanceCount=2)}, "Distributed training is not supported"),
        ({"InputDataConfig": None}, "The channel 'train' is required by algorithm"),
        ({"InputDataConfig": [channel(), channel("test")]}, "The channel 'test' is not supported"),
        (
            {"InputDataConfig": [channel(ContentType="image/png")]},
            "content type 'image/png' of channel 'train'",
        ),
        (
            {"InputDataConfig": [channel(CompressionType="Gzip")]},
            "compression type 'Gzip' of channel 'train'",
        ),
        ({"InputDataConfig": [channel(InputMode="Pipe")]}, "input mode 'Pipe' of channel 'train'"),
        (
            {"AlgorithmSpecification": {"AlgorithmName": "algorithm", "TrainingInputMode": "FastFile"}},
            "input mode 'FastFile' of channel 'train'",
        ),
        (
            {
                "AlgorithmSpecification": {
                    "AlgorithmName": "algorithm",
                    "TrainingInputMode": "File",
                    "MetricDefinitions": [{"Name": "a", "Regex": "(a)"}],
                }
            },
            "MetricDefinitions cannot be given together with AlgorithmName",
        ),
        (
            {
                "AlgorithmSpecification": {
                    "AlgorithmName": "algorithm",
                    "TrainingImage": OWN_IMAGE,
                    "TrainingInputMode": "File",
                }
            },
            "exactly one of TrainingImage and AlgorithmName",
        ),
        (
            {"AlgorithmSpecification": {"AlgorithmName": "other", "TrainingInputMode": "File"}},
            f"Algorithm {ARN}other does not exist.",
        ),
    ],
)
def test_a_job_that_the_algorithm_does_not_support_is_refused(members: dict[str, Any], words: str) -> None:
    assert words in refusal_of_job(training_specification(), **members)


def test_instance_groups_count_as_instances() -> None:
    groups = [
        {"InstanceGroupName": "a", "InstanceType": "ml.m5.large", "InstanceCount": 1},
        {"InstanceGroupName": "b", "InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
    ]
    config = {"InstanceGroups": groups, "VolumeSizeInGB": 1}
    message = refusal_of_job(training_specification(), ResourceConfig=config)
    assert "the instance count must be 1, not 2" in message
    groups[1]["InstanceType"] = "ml.g5.xlarge"
    message = refusal_of_job(training_specification(), ResourceConfig=config)
    assert "ml.g5.xlarge is not supported" in message


def test_what_an_algorithm_does_not_say_is_not_held_against_a_job() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        training = training_specification(
            SupportedHyperParameters=None,
            SupportsDistributedTraining=None,
            TrainingChannels=[_CHANNEL],
        )
        await plane.call("CreateAlgorithm", **algorithm_request(TrainingSpecification=training))
        await plane.call(
            "CreateTrainingJob",
            **job_request(
                HyperParameters={"any": "thing"},
                ResourceConfig=resources(InstanceCount=2),
                InputDataConfig=[channel(ContentType="any/thing")],
            ),
        )

    asyncio.run(facts())


def test_content_types_are_compared_without_parameters() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        await plane.call("CreateAlgorithm", **algorithm_request())
        given = channel(ContentType="Text/CSV;label_size=0")
        await plane.call("CreateTrainingJob", **job_request(InputDataConfig=[given]))

    asyncio.run(facts())


def test_a_validation_that_no_quota_has_room_for_is_refused() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        quotas = parse_quotas("ml.m5.large for training job usage=0")
        plane.backends = dataclasses.replace(plane.backends, quotas=quotas)
        with pytest.raises(LimitExceeded, match="usage' is 0 Instances"):
            await plane.call(
                "CreateAlgorithm", **algorithm_request(ValidationSpecification=validation_specification())
            )
        assert await plane.call("ListAlgorithms") == {"AlgorithmSummaryList": []}
        await plane.call("CreateAlgorithm", **algorithm_request())

    asyncio.run(facts())


def test_the_validation_is_given_back_as_it_was_asked_for() -> None:
    async def facts() -> None:
        plane = ControlPlane()
        given = algorithm_request(ValidationSpecification=validation_specification())
        await plane.call("CreateAlgorithm", **given)
        shown = await plane.call("DescribeAlgorithm", AlgorithmName="algorithm")
        assert {name: shown[name] for name in given} == given

    asyncio.run(facts())
