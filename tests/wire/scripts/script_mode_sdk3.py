"""SageMaker Python SDK 3.x: ModelTrainer with source code, its requirements, and torchrun on two hosts."""

import base64
import os
import shutil

import boto3
from data import report
from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, SourceCode
from sagemaker.train.distributed import Torchrun

session = Session()
role = get_execution_role()
WHEEL = "tinything-1.0-py3-none-any.whl"


def image(framework, version, python):
    return image_uris.retrieve(
        framework,
        session.boto_session.region_name,
        version=version,
        py_version=python,
        instance_type="ml.m5.large",
        image_scope="training",
    )


def lines(trainer):
    job = trainer._latest_training_job
    found = boto3.client("logs").filter_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=job.training_job_name + "/"
    )["events"]
    return [event["message"] for event in found]


os.makedirs("plain", exist_ok=True)
with open("plain/train.py", "w") as file:
    file.write(
        "import argparse, os, sys, tinything\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--depth', type=int)\n"
        "parser.add_argument('--name')\n"
        "options = parser.parse_args()\n"
        "print('TINY', tinything.VERSION, options.depth, options.name)\n"
        "open(os.path.join(os.environ['SM_MODEL_DIR'], 'model.txt'), 'w').write('made')\n"
    )
with open("plain/requirements.txt", "w") as file:
    file.write("--no-index\n./%s\n" % WHEEL)
with open(os.path.join("plain", WHEEL), "wb") as file:
    file.write(base64.b64decode(os.environ["CLARY_TEST_WHEEL"]))
plain = ModelTrainer(
    training_image=image("sklearn", "1.2-1", "py3"),
    role=role,
    base_job_name="plain",
    source_code=SourceCode(source_dir="plain", entry_script="train.py", requirements="requirements.txt"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
    hyperparameters={"depth": 3, "name": "a b"},
    sagemaker_session=session,
)
plain.train(logs=False)

os.makedirs("together", exist_ok=True)
shutil.copy("train_torch.py", "together")
together = [
    ModelTrainer(
        training_image=image("pytorch", "2.3", "py311"),
        role=role,
        base_job_name="together",
        source_code=SourceCode(source_dir="together", entry_script="train_torch.py"),
        compute=Compute(instance_type="ml.m5.large", instance_count=2),
        distributed=Torchrun(process_count_per_node=1),
        hyperparameters={"epochs": 80},
        sagemaker_session=session,
    )
    for _ in range(2)
]
for trainer in together:  # two at once: each must meet at a place of its own
    trainer.train(wait=False)
for trainer in together:
    trainer._latest_training_job.wait(logs=False)
jobs = [trainer._latest_training_job for trainer in [plain, *together]]
for job in jobs:
    job.refresh()
report(
    plain=lines(plain),
    together=[lines(trainer) for trainer in together],
    statuses=[job.training_job_status for job in jobs],
    artifacts=[job.model_artifacts.s3_model_artifacts for job in jobs],
)
