"""Image URIs of every account, region and version mean the same here."""

from __future__ import annotations

import pytest

from clary.agent.images import BuiltIn, Container, Framework, repository_and_tag, resolve_image

ECR = "246618743249.dkr.ecr.us-west-2.amazonaws.com"


@pytest.mark.parametrize(
    ("uri", "has_program", "meaning"),
    [
        ("433757028032.dkr.ecr.us-west-2.amazonaws.com/xgboost:1", False, BuiltIn("xgboost", "1")),
        ("433757028032.dkr.ecr.us-west-2.amazonaws.com/xgboost:latest", False, BuiltIn("xgboost", "latest")),
        (f"{ECR}/sagemaker-xgboost:1.7-1", False, BuiltIn("xgboost", "1.7-1")),
        (f"{ECR}/sagemaker-xgboost:0.90-2-cpu-py3", False, BuiltIn("xgboost", "0.90-2-cpu-py3")),
        (f"{ECR}/sagemaker-xgboost:1.7-1", True, Framework("sagemaker-xgboost", "1.7-1")),
        (
            "1.dkr.ecr.cn-north-1.amazonaws.com.cn/sagemaker-scikit-learn:1.2-1-cpu-py3",
            False,
            Framework("sagemaker-scikit-learn", "1.2-1-cpu-py3"),
        ),
        (f"{ECR}/pytorch-training:2.3.0-gpu-py311", True, Framework("pytorch", "2.3.0-gpu-py311")),
        ("me/mine:3", False, Container("me/mine:3")),
        ("localhost:5000/me/mine@sha256:abc", False, Container("localhost:5000/me/mine@sha256:abc")),
    ],
)
def test_an_image_is_known_by_its_repository(
    uri: str, has_program: bool, meaning: BuiltIn | Framework | Container
) -> None:
    assert resolve_image(uri, has_program=has_program) == meaning


def test_registry_and_digest_do_not_count() -> None:
    assert repository_and_tag("host:5000/a/b/name:2@sha256:0") == ("name", "2")
    assert repository_and_tag("name") == ("name", "latest")
