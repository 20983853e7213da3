"""Trains with a container of your own, built from the Dockerfile beside this file.

    docker build -t byo-regression:1 examples/byo_container
    clary run -- python examples/byo_container/run.py

The same lines run against AWS, once the image is in ECR: its name there,
``123456789012.dkr.ecr.us-east-1.amazonaws.com/byo-regression:1``, means the local image here.
"""

import io
import json
import os
import sys
import tarfile
import time

import boto3

image = sys.argv[1] if len(sys.argv) > 1 else "123456789012.dkr.ecr.us-east-1.amazonaws.com/byo-regression:1"
role = os.environ.get("SAGEMAKER_ROLE", "arn:aws:iam::123456789012:role/ClaryExecutionRole")
bucket, job = "byo-container", f"byo-{time.time_ns() // 1_000_000}"
s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")

s3.create_bucket(Bucket=bucket)
rows = "".join(f"{2 * x / 10 + 1},{x / 10}\n" for x in range(20))
s3.put_object(Bucket=bucket, Key="points/rows.csv", Body=rows.encode())

sagemaker.create_training_job(
    TrainingJobName=job,
    RoleArn=role,
    AlgorithmSpecification={
        "TrainingImage": image,
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "train:mse", "Regex": r"train:mse=([0-9.]+)"}],
    },
    HyperParameters={"rounds": "2000", "learning_rate": "0.1"},
    InputDataConfig=[
        {
            "ChannelName": "training",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/points/"}},
        }
    ],
    OutputDataConfig={"S3OutputPath": f"s3://{bucket}/output"},
    ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    StoppingCondition={"MaxRuntimeInSeconds": 600},
)
while True:
    description = sagemaker.describe_training_job(TrainingJobName=job)
    if description["TrainingJobStatus"] != "InProgress":
        break
    time.sleep(0.2)
if description["TrainingJobStatus"] != "Completed":
    sys.exit(f"{job}: {description['TrainingJobStatus']}: {description.get('FailureReason')}")

place = description["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{bucket}/")
packed = s3.get_object(Bucket=bucket, Key=place)["Body"].read()
with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
    model = json.load(archive.extractfile("model.json"))
metrics = {metric["MetricName"]: metric["Value"] for metric in description["FinalMetricDataList"]}
print(f"{job}: y = {model['slope']:.2f} x + {model['intercept']:.2f}")
print(f"mean squared error: {metrics['train:mse']:.4f}")
