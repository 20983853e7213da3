"""A managed spot job that loses its machine and goes on from its checkpoint.

    clary run -- python examples/spot.py

Needs boto3 only. The job counts to 40, a checkpoint a step. `clary chaos interrupt JOB` takes its machine,
as a spot interruption does on AWS: here the script does so itself, once the job is on its way.
"""

import io
import subprocess
import tarfile
import time

import boto3

NAME = f"spot-{int(time.time())}"
BUCKET = "spot-example"
IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
SCRIPT = """
import pathlib, time
checkpoints = pathlib.Path("/opt/ml/checkpoints")
step = max((int(file.name) for file in checkpoints.iterdir()), default=0)
print(f"begins at step {step}", flush=True)
while step < 40:
    step += 1
    time.sleep(0.2)
    (checkpoints / str(step)).write_text("weights")
    print(f"step {step}", flush=True)
pathlib.Path("/opt/ml/model/weights").write_text(str(step))
"""


def main() -> None:
    sagemaker, s3 = boto3.client("sagemaker"), boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as source:
        member = tarfile.TarInfo("train.py")
        member.size = len(SCRIPT)
        source.addfile(member, io.BytesIO(SCRIPT.encode()))
    s3.put_object(Bucket=BUCKET, Key=f"{NAME}/sourcedir.tar.gz", Body=archive.getvalue())
    sagemaker.create_training_job(
        TrainingJobName=NAME,
        RoleArn="arn:aws:iam::123456789012:role/ClaryExecutionRole",
        AlgorithmSpecification={"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        HyperParameters={
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": f"s3://{BUCKET}/{NAME}/sourcedir.tar.gz",
        },
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        EnableManagedSpotTraining=True,
        StoppingCondition={"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 1200},
        CheckpointConfig={"S3Uri": f"s3://{BUCKET}/{NAME}/checkpoints"},
    )
    print(f"{NAME} is created")
    while s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{NAME}/checkpoints/")["KeyCount"] < 5:
        time.sleep(0.5)
    subprocess.run(["clary", "chaos", "interrupt", NAME], check=True)
    while (job := sagemaker.describe_training_job(TrainingJobName=NAME))["TrainingJobStatus"] == "InProgress":
        time.sleep(0.5)
    for move in job["SecondaryStatusTransitions"]:
        print(f"{move['Status']:<12} {move['StatusMessage']}")
    events = boto3.client("logs").filter_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs",
        logStreamNamePrefix=f"{NAME}/",
        filterPattern='"begins at"',
    )["events"]
    print("\n".join(event["message"] for event in events))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert len(events) == 2 and events[0]["message"] == "begins at step 0"


if __name__ == "__main__":
    main()
