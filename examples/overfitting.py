"""Trains a model that is too large for its data, to be looked into: prints the name of the job.

A fifth of the labels is wrong, and trees of depth 9 learn them by heart. Run it with

    clary run -- python examples/overfitting.py
"""

import random
import time

import boto3

IMAGE = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1"
ROLE = "arn:aws:iam::123456789012:role/ClaryExecutionRole"


def rows(count, seed):
    """Lines of a label and six numbers, of which the first three tell the label in four cases of five."""
    lots = random.Random(seed)
    lines = []
    for _ in range(count):
        values = [lots.gauss(0, 1) for _ in range(6)]
        label = int(values[0] + values[1] * values[2] > 0)
        label = 1 - label if lots.random() < 0.2 else label
        lines.append(",".join([str(label), *(f"{value:.4f}" for value in values)]))
    return "\n".join(lines) + "\n"


def channel(name, bucket):
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/{name}/"}
    return {"ChannelName": name, "ContentType": "text/csv", "DataSource": {"S3DataSource": source}}


def main():
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    job = f"overfitting-{int(time.time() * 1000)}"
    s3.create_bucket(Bucket=job)
    s3.put_object(Bucket=job, Key="train/rows.csv", Body=rows(1000, 1).encode())
    s3.put_object(Bucket=job, Key="validation/rows.csv", Body=rows(500, 2).encode())
    sagemaker.create_training_job(
        TrainingJobName=job,
        RoleArn=ROLE,
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        HyperParameters={"objective": "binary:logistic", "num_round": "120", "max_depth": "9"},
        InputDataConfig=[channel("train", job), channel("validation", job)],
        OutputDataConfig={"S3OutputPath": f"s3://{job}/output"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=job, WaiterConfig={"Delay": 1, "MaxAttempts": 300}
    )
    print(job)


if __name__ == "__main__":
    main()
