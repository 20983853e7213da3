"""How long a training job takes to start and to run, beside the bare library, in one run.

    .venv/bin/python bench/start.py [--jobs 20] [--hosts 2] [--at-once 50] [--channel-gigabytes 5]
                                    [--docker IMAGE]

Starts a Clary of its own, warms it with two jobs, then alternates: one job through the API, one bare
``xgboost.train`` script on the same rows with the same parameters. Prints medians and the idle memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
import numpy

from clary.clients.demo import serving
from clary.clients.environment import client_environment

ROWS, COLUMNS, ROUNDS = 20_000, 30, 50
IMAGE = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-xgboost:1.7-1"
BARE = """
import sys, xgboost, numpy
rows = numpy.loadtxt(sys.argv[1], delimiter=",", dtype=numpy.float32)
data = xgboost.DMatrix(rows[:, 1:], rows[:, 0])
booster = xgboost.train({"objective": "binary:logistic"}, data, int(sys.argv[3]), [(data, "train")])
booster.save_model(sys.argv[2] + "/model.ubj")
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--jobs", type=int, default=20)
    options.add_argument("--hosts", type=int, default=0, help="as many jobs again, of so many hosts each")
    options.add_argument("--at-once", type=int, default=0, help="so many jobs created at the same time")
    options.add_argument("--channel-gigabytes", type=int, default=0, help="a second, large channel, as files")
    options.add_argument(
        "--docker", metavar="IMAGE", default="", help="containers, of an image with a /bin/sh"
    )
    given = options.parse_args()
    jobs = given.jobs
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as server:
        idle = memory(server.process_id)
        variables, _ = client_environment(Path(folder) / "data", server, {})
        os.environ.update(variables)
        csv = Path(folder) / "train.csv"
        generator = numpy.random.default_rng(1)
        features = generator.normal(size=(ROWS, COLUMNS))
        labels = (features[:, :5].sum(1) + generator.normal(size=ROWS) > 0).astype(int)
        numpy.savetxt(csv, numpy.column_stack([labels, features]), delimiter=",", fmt="%.6g")
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="bench")
        s3.upload_file(str(csv), "bench", "train/data.csv")
        for number in range(2):
            through_api(f"warm-{number}")
        first_lines, wholes, bares = [], [], []
        for number in range(jobs):
            first_line, whole = through_api(f"bench-{number}")
            started = time.perf_counter()
            command = [sys.executable, "-c", BARE, str(csv), folder, str(ROUNDS)]
            subprocess.run(command, check=True, capture_output=True)
            first_lines.append(first_line)
            wholes.append(whole)
            bares.append(time.perf_counter() - started)
        print(f"{jobs} jobs, {ROWS} rows x {COLUMNS}, {ROUNDS} rounds; {os.cpu_count()} cores\n")
        print("| what | median | min | max |\n|---|---|---|---|")
        row("CreateTrainingJob to the algorithm's first line", first_lines)
        row("whole job, CreateTrainingJob to Completed", wholes)
        row("bare xgboost script", bares)
        row("whole job minus bare script", [a - b for a, b in zip(wholes, bares, strict=True)])
        if given.hosts:
            clusters = [through_api(f"cluster-{number}", hosts=given.hosts) for number in range(jobs)]
            row(f"{given.hosts} hosts: to the first line of all", [first for first, _ in clusters])
            row(f"{given.hosts} hosts: whole job", [whole for _, whole in clusters])
        if given.at_once:
            at_once(given.at_once, statistics.median(bares))
        if given.channel_gigabytes:
            print("\n| a further channel of files | median | min | max |\n|---|---|---|---|")
            upload_large(s3, given.channel_gigabytes)
            free = shutil.disk_usage(folder).free
            times = [through_api(f"large-{number}", "s3://bench/large/")[0] for number in range(jobs)]
            row(f"{given.channel_gigabytes} GB: CreateTrainingJob to the algorithm's first line", times)
            taken = (free - shutil.disk_usage(folder).free) / 1e6
            print(f"\nThe {jobs} jobs with that channel took {taken:.0f} MB of disk together.")
        if given.docker:
            containers(given.docker, jobs)
        print("\n| process, just started and idle | resident MB |\n|---|---|")
        for name, megabytes in idle:
            print(f"| {name} | {megabytes:.0f} |")


def upload_large(s3: Any, gigabytes: int) -> None:
    """Objects of one gigabyte each, of random bytes that repeat."""
    part = os.urandom(64 * 1024 * 1024)
    for number in range(gigabytes):
        where = {"Bucket": "bench", "Key": f"large/{number}"}
        where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
        etags = [s3.upload_part(**where, PartNumber=each, Body=part)["ETag"] for each in range(1, 17)]
        parts = [{"PartNumber": each, "ETag": etag} for each, etag in enumerate(etags, 1)]
        s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})


def at_once(jobs: int, bare_seconds: float) -> None:
    """Create ``jobs`` together and wait for all, beside what bare scripts one after the other would take."""
    started = time.perf_counter()
    for number in range(jobs):
        create(f"crowd-{number}")
    created = time.perf_counter() - started
    for number in range(jobs):
        ended(f"crowd-{number}", 120 + jobs * 10)
    whole = time.perf_counter() - started
    print(
        f"\n{jobs} jobs at once: created in {created:.1f} s, all completed after {whole:.1f} s; "
        f"{jobs} bare scripts one after the other: {jobs * bare_seconds:.1f} s."
    )


def containers(image: str, jobs: int) -> None:
    """Jobs in containers, each beside a bare ``docker run`` that says the same word."""
    say = ["-c", "echo started"]
    bares, firsts, wholes = [], [], []
    for number in range(jobs + 1):
        started = time.time()
        bare = ["docker", "run", "--rm", "--entrypoint", "/bin/sh", image, *say]
        with subprocess.Popen(bare, stdout=subprocess.PIPE, text=True) as process:
            if not process.stdout or process.stdout.readline() != "started\n":
                raise SystemExit(f"docker run {image} does not run /bin/sh")
            bare_seconds = time.time() - started
        name, started = f"container-{number}", time.time()
        create(name, image=image, ContainerEntrypoint=["/bin/sh"], ContainerArguments=say)
        ended(name, 120)
        whole = time.time() - started
        events = boto3.client("logs").filter_log_events(
            logGroupName="/aws/sagemaker/TrainingJobs",
            logStreamNamePrefix=f"{name}/",
            filterPattern="started",
        )["events"]
        if number:  # the first of each is for warming up
            bares.append(bare_seconds)
            firsts.append(events[0]["timestamp"] / 1000 - started)
            wholes.append(whole)
    print("\n| a container | median | min | max |\n|---|---|---|---|")
    row("bare docker run: to its first line", bares)
    row("CreateTrainingJob to the container's first line", firsts)
    row("what the job adds", [a - b for a, b in zip(firsts, bares, strict=True)])
    row("whole job, CreateTrainingJob to Completed", wholes)


def through_api(name: str, further: str = "", hosts: int = 1) -> tuple[float, float]:
    """Seconds from CreateTrainingJob to the first line of each host's log, and to Completed.

    ``further`` is the URI of a channel that the algorithm does not read.
    """
    started = time.time()
    create(name, further, hosts)
    ended(name, 120)
    whole = time.time() - started
    logs = boto3.client("logs")
    firsts = []
    for host in range(1, hosts + 1):
        events = logs.filter_log_events(
            logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/algo-{host}-", limit=1
        )["events"]
        firsts.append(events[0]["timestamp"] / 1000 - started)
    return max(firsts), whole


def create(name: str, further: str = "", hosts: int = 1, image: str = IMAGE, **command: list[str]) -> None:
    boto3.client("sagemaker").create_training_job(
        TrainingJobName=name,
        RoleArn="arn:aws:iam::123456789012:role/ClaryExecutionRole",
        AlgorithmSpecification={"TrainingImage": image, "TrainingInputMode": "File", **command},
        HyperParameters={"objective": "binary:logistic", "num_round": str(ROUNDS)},
        InputDataConfig=[
            {
                "ChannelName": channel,
                "ContentType": "text/csv",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}},
            }
            for channel, uri in (("train", "s3://bench/train/"), ("code", further))
            if uri
        ],
        OutputDataConfig={"S3OutputPath": "s3://bench/output"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": hosts, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )


def ended(name: str, within_seconds: float) -> None:
    """Wait for the job's end. Exits if it does not complete."""
    client = boto3.client("sagemaker")
    deadline = time.time() + within_seconds
    while (job := client.describe_training_job(TrainingJobName=name))["TrainingJobStatus"] == "InProgress":
        if time.time() > deadline:
            raise SystemExit(f"{name} does not end: {job['SecondaryStatusTransitions']}")
        time.sleep(0.02)
    if job["TrainingJobStatus"] != "Completed":
        raise SystemExit(f"{name} failed: {job.get('FailureReason')}")


def memory(server: int) -> list[tuple[str, float]]:
    """Resident megabytes of the server and of each process it started, once they rest."""
    time.sleep(10)
    found = []
    for process in [server, *descendants(server)]:
        status = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{process}/status").read_text().splitlines()
            if ":" in line
        )
        command = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        name = "server" if process == server else command[:60].strip()
        found.append((name, int(status["VmRSS"].split()[0]) / 1024))
    return found


def descendants(parent: int) -> list[int]:
    children = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        children += [int(child) for child in (task / "children").read_text().split()]
    return children + [below for child in children for below in descendants(child)]


def row(name: str, seconds: list[float]) -> None:
    values = [statistics.median(seconds), min(seconds), max(seconds)]
    print(f"| {name} | " + " | ".join(f"{value * 1000:.0f} ms" for value in values) + " |")


if __name__ == "__main__":
    main()
