"""SageMaker Python SDK 1.72.1: scikit-learn, XGBoost and PyTorch scripts, as old projects have them."""

import boto3
import sagemaker
from data import breast_cancer, report
from sagemaker.pytorch import PyTorch
from sagemaker.sklearn.estimator import SKLearn
from sagemaker.xgboost import XGBoost

session = sagemaker.Session()
role = sagemaker.get_execution_role()
csv, _, _ = breast_cancer()
train_uri = session.upload_string_as_file_body(
    csv, session.default_bucket(), "scripts1/train/data.csv"
).rsplit("/", 1)[0]


def lines(estimator):
    found = boto3.client("logs").filter_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs",
        logStreamNamePrefix=estimator.latest_training_job.name + "/",
    )["events"]
    return [event["message"] for event in found]


with open("train_xgboost.py", "w") as file:
    file.write(
        "import argparse, os, xgboost\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--num_round', type=int)\n"
        "options = parser.parse_args()\n"
        "rows = os.path.join(os.environ['SM_CHANNEL_TRAIN'], 'data.csv')\n"
        "import numpy\n"
        "data = numpy.loadtxt(rows, delimiter=',')\n"
        "booster = xgboost.train({'objective': 'binary:logistic'},\n"
        "    xgboost.DMatrix(data[:, 1:], data[:, 0]), options.num_round)\n"
        "booster.save_model(os.path.join(os.environ['SM_MODEL_DIR'], 'model.json'))\n"
        "print('ROUNDS', booster.num_boosted_rounds())\n"
    )
with open("train_one.py", "w") as file:
    file.write(
        "import os, torch\nprint('TORCH', os.environ['SM_FRAMEWORK_MODULE'], torch.ones(2).sum().item())\n"
    )

common = {"role": role, "train_instance_type": "ml.m5.large", "sagemaker_session": session}
sklearn = SKLearn("train_sklearn.py", framework_version="0.23-1", hyperparameters={"C": 0.5}, **common)
sklearn.fit({"train": train_uri}, logs=False)
xgboost = XGBoost(
    "train_xgboost.py",
    framework_version="1.0-1",
    train_instance_count=1,
    hyperparameters={"num_round": 7},
    **common,
)
xgboost.fit({"train": train_uri}, logs=False)
pytorch = PyTorch(
    "train_one.py", framework_version="1.5.0", py_version="py3", train_instance_count=1, **common
)
pytorch.fit(logs=False)
report(sklearn=lines(sklearn), xgboost=lines(xgboost), pytorch=lines(pytorch))
