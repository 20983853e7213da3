"""Input data as users ask for it, on a real server: what is linked, piped, shared, and what is told."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clary.compute.local.fencing import bubblewrap_works
from clary.running_server import find_running
from clary.testing.agent_world import archive
from clary.testing.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end_channels")]
needs_sandbox = pytest.mark.skipif(bool(bubblewrap_works()), reason="bubblewrap does not work here")
SKLEARN = "246618743249.dkr.ecr.us-west-2.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
PATIENCE_SECONDS = 120
READ_EPOCH = """
import os, time
def epoch(name, number):
    path = os.environ['SM_INPUT_DIR'] + f'/data/{name}_{number}'
    while not os.path.exists(path):
        time.sleep(0.01)
    return open(path, 'rb').read()
"""


class Channels:
    """A server whose jobs may read ``shared`` as the file system fs-0123abcd."""

    def __init__(self, server: ServerProcess, shared: Path) -> None:
        self.server, self.shared = server, shared
        self.sagemaker, self.s3, self.logs = map(server.client, ("sagemaker", "s3", "logs"))
        self.s3.create_bucket(Bucket="data")

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket="data", Key=key, Body=body)

    def run(self, name: str, script: str, *channels: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Run ``script`` with ``channels``: how the job is described at its end, and its log."""
        self.put(f"code/{name}.tar.gz", archive({"train.py": script}))
        self.sagemaker.create_training_job(
            TrainingJobName=name,
            RoleArn="arn:aws:iam::123456789012:role/ClaryExecutionRole",
            AlgorithmSpecification={"TrainingImage": SKLEARN, "TrainingInputMode": "File"},
            HyperParameters={
                "sagemaker_program": '"train.py"',
                "sagemaker_submit_directory": f'"s3://data/code/{name}.tar.gz"',
            },
            InputDataConfig=list(channels),
            OutputDataConfig={"S3OutputPath": "s3://data/output"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 600},
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            job = self.sagemaker.describe_training_job(TrainingJobName=name)
            if job["TrainingJobStatus"] not in ("InProgress", "Stopping"):
                break
            assert time.monotonic() < deadline, job["SecondaryStatusTransitions"]
            time.sleep(0.05)
        events = self.logs.filter_log_events(
            logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=f"{name}/"
        )["events"]
        return job, [event["message"] for event in events]


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Channels]:
    folder = tmp_path_factory.mktemp("channels")
    shared = folder / "shared"
    shared.mkdir()
    with ServerProcess(folder, file_systems=f"fs-0123abcd={shared}") as server:
        yield Channels(server, shared)


def from_s3(name: str, uri: str, source: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    data = {"S3DataType": "S3Prefix", "S3Uri": uri, **(source or {})}
    return {"ChannelName": name, "DataSource": {"S3DataSource": data}, **members}


def succeeded(job: dict[str, Any], lines: list[str]) -> None:
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines)


@needs_sandbox
def test_files_are_the_stored_objects_themselves(channels: Channels) -> None:
    channels.put("linked/rows.csv", b"1,2\n")
    parts = [os.urandom(5 * 1024 * 1024), b"the end"]
    upload = channels.s3.create_multipart_upload(Bucket="data", Key="linked/parts")["UploadId"]
    where = {"Bucket": "data", "Key": "linked/parts", "UploadId": upload}
    etags = [
        channels.s3.upload_part(**where, PartNumber=number, Body=part)["ETag"]
        for number, part in enumerate(parts, 1)
    ]
    made = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    channels.s3.complete_multipart_upload(**where, MultipartUpload={"Parts": made})
    script = (
        "import os, hashlib\n"
        "for name in sorted(os.listdir(os.environ['SM_CHANNEL_TRAIN'])):\n"
        "    path = os.environ['SM_CHANNEL_TRAIN'] + '/' + name\n"
        "    print(name, os.stat(path).st_ino, hashlib.sha256(open(path, 'rb').read()).hexdigest())\n"
        "    try:\n        open(path, 'r+')\n        print('open to write')\n"
        "    except OSError as error:\n        print('closed:', error.strerror)\n"
    )
    for mode in ("File", "FastFile"):
        wanted = from_s3("train", "s3://data/linked/", InputMode=mode)
        job, lines = channels.run(f"linked-{mode.lower()}", script, wanted)
        succeeded(job, lines)
        stored = {
            path.stat().st_ino: path
            for path in (channels.server.data / "objects/blobs").rglob("*")
            if path.is_file()
        }
        words = [line.split() for line in lines if line.startswith(("parts ", "rows.csv "))]
        assert [word[0] for word in words] == ["parts", "rows.csv"]
        assert stored[int(words[0][1])].read_bytes() == b"".join(parts)
        assert stored[int(words[1][1])].read_bytes() == b"1,2\n"
        assert sum(line.startswith("closed: ") for line in lines) == 2
        moves = {move["Status"]: move["StatusMessage"] for move in job["SecondaryStatusTransitions"]}
        assert moves["Downloading"] == "Downloading input data: 5 MiB linked from the object store"
    # The jobs and their links are gone, the objects are not.
    assert channels.s3.get_object(Bucket="data", Key="linked/rows.csv")["Body"].read() == b"1,2\n"


def test_pipes_bring_epoch_after_epoch(channels: Channels) -> None:
    channels.put("piped/1.gz", gzip.compress(b"one"))
    channels.put("piped/2.gz", gzip.compress(b"two"))
    manifest = "".join(
        json.dumps({"image-ref": f"s3://data/piped/{n}.gz", "label": n}) + "\n" for n in (1, 2)
    )
    channels.put("augmented.manifest", manifest.encode())
    augmented = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["label", "image-ref"]}
    script = READ_EPOCH + (
        "for number in range(3):\n    print('plain', number, epoch('plain', number))\n"
        "content = epoch('augmented', 0)\n"
        "import struct, gzip\n"
        "found = []\n"
        "while content:\n"
        "    magic, size = struct.unpack('<II', content[:8])\n"
        "    found.append(content[8:8 + size])\n"
        "    content = content[8 + size + -size % 4:]\n"
        "print('augmented', found[0], gzip.decompress(found[1]), found[2], gzip.decompress(found[3]))\n"
    )
    job, lines = channels.run(
        "piped",
        script,
        from_s3("plain", "s3://data/piped/", InputMode="Pipe", CompressionType="Gzip"),
        from_s3(
            "augmented",
            "s3://data/augmented.manifest",
            augmented,
            InputMode="Pipe",
            RecordWrapperType="RecordIO",
        ),
    )
    succeeded(job, lines)
    assert [line for line in lines if line.startswith("plain ")] == [f"plain {n} b'onetwo'" for n in range(3)]
    assert "augmented b'1' b'one' b'2' b'two'" in lines


def test_a_directory_of_the_operator_s_is_a_channel(channels: Channels) -> None:
    (channels.shared / "sets/iris").mkdir(parents=True)
    (channels.shared / "sets/iris/rows.csv").write_text("5,4,1\n")
    source = {
        "FileSystemId": "fs-0123abcd",
        "FileSystemAccessMode": "ro",
        "FileSystemType": "EFS",
        "DirectoryPath": "/sets/iris",
    }
    wanted = {"ChannelName": "train", "DataSource": {"FileSystemDataSource": source}}
    script = "import os\nprint('rows', open(os.environ['SM_CHANNEL_TRAIN'] + '/rows.csv').read())\n"
    job, lines = channels.run("shared", script, wanted)
    succeeded(job, lines)
    assert "rows 5,4,1" in lines
    source["FileSystemId"] = "fs-99999999"
    job, _ = channels.run("unshared", script, wanted)
    assert job["TrainingJobStatus"] == "Failed"
    assert "there is no file system fs-99999999 here" in job["FailureReason"]


def test_data_that_is_missing_in_the_middle_of_a_pass_fails_the_job_by_name(channels: Channels) -> None:
    channels.put("broken.manifest", b'{"a": "1"}\n{"a-ref": "s3://data/none"}\n')
    augmented = {"S3DataType": "AugmentedManifestFile", "AttributeNames": ["a"]}
    wanted = from_s3("train", "s3://data/broken.manifest", augmented, InputMode="Pipe")
    job, _ = channels.run("broken", READ_EPOCH + "epoch('train', 0)\n", wanted)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(
        "ClientError: Data download failed:record 2 of s3://data/broken.manifest has no attribute 'a'"
    )


def test_objects_kept_elsewhere_are_downloaded_and_the_status_says_so(tmp_path: Path) -> None:
    (tmp_path / "external").mkdir()
    (tmp_path / "clary").mkdir()
    with ServerProcess(tmp_path / "external") as external:
        root = json.loads((external.data / "credentials.json").read_text())
        running = find_running(external.data)
        assert running is not None
        elsewhere = {
            "objects": "s3",
            "objects_s3_endpoint": running.endpoint_url,
            "objects_s3_access_key_id": root["access_key_id"],
            "objects_s3_secret_access_key": root["secret_access_key"],
        }
        with ServerProcess(tmp_path / "clary", **elsewhere) as server:
            channels = Channels(server, tmp_path)
            content = os.urandom(40 * 1024 * 1024)
            channels.put("large/object", content)
            channels.put("manifest", json.dumps([{"prefix": "s3://data/large/"}, "object"]).encode())
            script = READ_EPOCH + (
                "import hashlib\n"
                "folder = os.environ['SM_CHANNEL_TRAIN']\n"
                "print('file', hashlib.sha256(open(folder + '/object', 'rb').read()).hexdigest())\n"
                "print('pipe', hashlib.sha256(epoch('piped', 0)).hexdigest())\n"
            )
            job, lines = channels.run(
                "external",
                script,
                from_s3("train", "s3://data/manifest", {"S3DataType": "ManifestFile"}),
                from_s3("piped", "s3://data/large/", InputMode="Pipe"),
            )
    succeeded(job, lines)
    digest = hashlib.sha256(content).hexdigest()
    assert f"file {digest}" in lines
    assert f"pipe {digest}" in lines
    moves = {move["Status"]: move["StatusMessage"] for move in job["SecondaryStatusTransitions"]}
    assert moves["Downloading"] == "Downloading input data: 40 MiB downloaded"
