"""SageMaker Python SDK 2.x: scripts from a git repository, of PyTorch on two hosts, and of a shell."""

import os
import subprocess

import boto3
import sagemaker
from data import report
from sagemaker.estimator import Estimator
from sagemaker.pytorch import PyTorch
from sagemaker.sklearn import SKLearn

REPOSITORY = "https://git.example.com/team/models.git"
session = sagemaker.Session()
role = sagemaker.get_execution_role()
logs = boto3.client("logs")


def lines(job):
    found = logs.filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=job + "/")[
        "events"
    ]
    return [event["message"] for event in found]


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


# A repository of the team's, reached under its https name: git itself is told where it lies.
write("repository/source/train.py", "import shared, libs.tool\nprint('GIT', shared.NAME, libs.tool.NAME)\n")
write("repository/source/shared.py", "NAME = 'beside'\n")
write("repository/libs/tool.py", "NAME = 'dependency'\n")
git = ["git", "-C", "repository", "-c", "user.name=a", "-c", "user.email=a@example.com"]
subprocess.check_call([*git, "init", "--quiet", "--initial-branch=main"])
subprocess.check_call([*git, "add", "."])
subprocess.check_call([*git, "commit", "--quiet", "--message=first"])
place = "url.file://" + os.path.abspath("repository") + ".insteadOf"
subprocess.check_call(["git", "config", "--global", place, REPOSITORY])

from_git = SKLearn(
    entry_point="train.py",
    source_dir="source",
    dependencies=["libs"],
    git_config={"repo": REPOSITORY, "branch": "main"},
    role=role,
    instance_type="ml.m5.large",
    framework_version="1.2-1",
    py_version="py3",
    sagemaker_session=session,
)
from_git.fit(logs=False)

together = PyTorch(
    entry_point="train_torch.py",
    source_dir=".",
    role=role,
    instance_count=2,
    instance_type="ml.g4dn.xlarge",
    framework_version="2.3.0",
    py_version="py311",
    distribution={"torch_distributed": {"enabled": True}},
    hyperparameters={"epochs": 80, "learning-rate": 0.5},
    metric_definitions=[{"Name": "train:loss", "Regex": r"loss=([0-9.]+);"}],
    sagemaker_session=session,
)
together.fit(logs=False)
described = together.latest_training_job.describe()

write(
    "shell/run.sh",
    "set -e\necho SHELL $@ $SM_HP_DEPTH $GREETING\npython -c 'import sys; print(sys.prefix)'\n",
)
shell = Estimator(
    image_uri="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.3-cpu-py311",
    entry_point="run.sh",
    source_dir="shell",
    role=role,
    instance_count=1,
    instance_type="ml.m5.large",
    hyperparameters={"depth": 3, "name": "a b"},
    environment={"GREETING": "hello"},
    sagemaker_session=session,
)
shell.fit(logs=False)

report(
    git=lines(from_git.latest_training_job.name),
    together=lines(together.latest_training_job.name),
    metrics={m["MetricName"]: m["Value"] for m in described["FinalMetricDataList"]},
    shell=lines(shell.latest_training_job.name),
)
