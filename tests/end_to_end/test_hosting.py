"""Endpoints as their users see them."""

from __future__ import annotations

import io
import json
import tarfile
import time
import uuid

import numpy
import pytest
import xgboost
from botocore.exceptions import ClientError

ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"
REGISTRY = "246618743249.dkr.ecr.us-west-2.amazonaws.com"

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def deploy(platform, model: bytes, image: str, instances: int = 1, **environment: str) -> str:
    name = f"endpoint-{uuid.uuid4().hex[:8]}"
    folder = platform.put(f"{name}/model.tar.gz", model)
    container = {
        "Image": f"{REGISTRY}/{image}",
        "ModelDataUrl": f"{folder}model.tar.gz",
        "Environment": environment,
    }
    client = platform.sagemaker
    client.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InitialInstanceCount": instances,
        "InstanceType": "ml.m5.large",
    }
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return name


def settled(platform, name: str) -> dict:
    until = time.monotonic() + 120
    while (seen := platform.sagemaker.describe_endpoint(EndpointName=name))["EndpointStatus"] == "Creating":
        assert time.monotonic() < until
        time.sleep(0.05)
    return seen


def booster() -> tuple[bytes, numpy.ndarray, numpy.ndarray]:
    features = numpy.random.default_rng(0).normal(size=(50, 3)).astype(numpy.float32)
    trained = xgboost.train({}, xgboost.DMatrix(features, features[:, 0]), 5)
    return bytes(trained.save_raw("ubj")), features, trained.predict(xgboost.DMatrix(features))


def test_a_model_trained_elsewhere_answers_as_it_does_there(platform):
    model, features, expected = booster()
    name = deploy(platform, archive(**{"xgboost-model": model}), "sagemaker-xgboost:1.7-1", instances=2)
    seen = settled(platform, name)
    assert seen["EndpointStatus"] == "InService", seen.get("FailureReason")
    assert seen["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    body = "\n".join(",".join(map(repr, map(float, row))) for row in features)
    for gateway in (False, True):
        reply = platform.server.client("sagemaker-runtime", gateway=gateway).invoke_endpoint(
            EndpointName=name, ContentType="text/csv", Accept="application/json", Body=body
        )
        scores = [row["score"] for row in json.loads(reply["Body"].read())["predictions"]]
        assert numpy.array_equal(numpy.array(scores, numpy.float32), expected)
        assert reply["InvokedProductionVariant"] == "AllTraffic"
    platform.sagemaker.delete_endpoint(EndpointName=name)
    until = time.monotonic() + 60
    with pytest.raises(ClientError, match="Could not find endpoint"):
        while time.monotonic() < until:
            platform.sagemaker.describe_endpoint(EndpointName=name)
            time.sleep(0.05)
    with pytest.raises(ClientError, match=f"Endpoint {name} of account 123456789012 not found"):
        platform.server.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=b"1,2,3")


def test_a_users_functions_serve(platform):
    code = b"""
import json, os
def model_fn(model_dir):
    return int(open(os.path.join(model_dir, "number.txt")).read())
def input_fn(body, content_type):
    return json.loads(body)["value"]
def predict_fn(data, model):
    if data < 0:
        raise ValueError("value must not be negative")
    return data * model
def output_fn(prediction, accept):
    return json.dumps({"answer": prediction}), "application/json"
"""
    model = archive(**{"number.txt": b"7", "code/serve.py": code})
    name = deploy(platform, model, "sagemaker-scikit-learn:1.2-1-cpu-py3", SAGEMAKER_PROGRAM="serve.py")
    assert settled(platform, name)["EndpointStatus"] == "InService", settled(platform, name)
    runtime = platform.server.client("sagemaker-runtime")
    reply = runtime.invoke_endpoint(EndpointName=name, ContentType="application/json", Body=b'{"value": 6}')
    assert json.loads(reply["Body"].read()) == {"answer": 42}
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName=name, ContentType="application/json", Body=b'{"value": -1}')
    error = caught.value.response
    assert error["Error"]["Code"] == "ModelError"
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert error["OriginalStatusCode"] == 500
    assert "value must not be negative" in error["OriginalMessage"]
    platform.sagemaker.delete_endpoint(EndpointName=name)


@pytest.mark.parametrize(
    ("files", "image", "environment", "cause"),
    [
        ({"xgboost-model": b"not a model"}, "sagemaker-xgboost:1.7-1", {}, "xgboost-model"),
        ({"readme": b""}, "my-own-image:1", {}, "my-own-image:1"),
        (
            {"code/serve.py": b"def model_fn(d):\n    raise KeyError('weights')\n"},
            "sagemaker-scikit-learn:1.2-1-cpu-py3",
            {"SAGEMAKER_PROGRAM": "serve.py"},
            "serve.py:2",
        ),
        (
            {"code/serve.py": b"pass\n"},
            "sagemaker-scikit-learn:1.2-1-cpu-py3",
            {"SAGEMAKER_PROGRAM": "serve.py"},
            "model_fn",
        ),
    ],
)
def test_a_broken_model_fails_its_endpoint_with_the_cause(platform, files, image, environment, cause):
    name = deploy(platform, archive(**files), image, **environment)
    seen = settled(platform, name)
    assert seen["EndpointStatus"] == "Failed"
    assert cause in seen["FailureReason"]
    platform.sagemaker.delete_endpoint(EndpointName=name)


def test_a_missing_model_archive_fails_its_endpoint_with_its_uri(platform):
    name = deploy(platform, b"", "sagemaker-xgboost:1.7-1")
    platform.sagemaker.delete_endpoint(EndpointName=name)
    client = platform.sagemaker
    gone = f"gone-{uuid.uuid4().hex[:8]}"
    container = {
        "Image": f"{REGISTRY}/sagemaker-xgboost:1.7-1",
        "ModelDataUrl": "s3://end-to-end/nowhere/model.tar.gz",
    }
    client.create_model(ModelName=gone, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {
        "VariantName": "A",
        "ModelName": gone,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    client.create_endpoint_config(EndpointConfigName=gone, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=gone, EndpointConfigName=gone)
    seen = settled(platform, gone)
    assert seen["EndpointStatus"] == "Failed"
    assert "s3://end-to-end/nowhere/model.tar.gz" in seen["FailureReason"]
    client.delete_endpoint(EndpointName=gone)
