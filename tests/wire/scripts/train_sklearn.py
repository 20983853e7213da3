"""A user's scikit-learn script: trains a classifier and serves it."""

import argparse
import json
import os

import boto3
import joblib
import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("-C", type=float, default=1.0)
    parser.add_argument("--model-dir", default=os.environ["SM_MODEL_DIR"])
    parser.add_argument("--train", default=os.environ["SM_CHANNEL_TRAIN"])
    arguments = parser.parse_args()
    rows = numpy.loadtxt(os.path.join(arguments.train, "data.csv"), delimiter=",")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=arguments.C))
    model.fit(rows[:, 1:], rows[:, 0])
    print(f"train_accuracy={model.score(rows[:, 1:], rows[:, 0]):.4f};")
    print(f"caller={boto3.client('sts').get_caller_identity()['Arn']}")
    joblib.dump(model, os.path.join(arguments.model_dir, "model.joblib"))
    with open(os.path.join(os.environ["SM_OUTPUT_DATA_DIR"], "notes.json"), "w") as file:
        json.dump({"C": arguments.C}, file)


def model_fn(model_dir):
    return joblib.load(os.path.join(model_dir, "model.joblib"))
