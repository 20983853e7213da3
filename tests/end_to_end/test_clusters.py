"""Jobs of several hosts: they find one another, make one model, and end together."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]

TWO = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
MEETING = """
import json, os, pathlib, socket, time
host, hosts = os.environ["SM_CURRENT_HOST"], json.loads(os.environ["SM_HOSTS"])
assert socket.gethostname() == host, socket.gethostname()
known = json.loads(os.environ["CLARY_CLUSTER_ADDRESSES"])
assert {name: socket.gethostbyname(name) for name in hosts} == known, known
if host == "algo-1":
    with socket.create_server((socket.gethostbyname(host), 7777)) as server:
        for _ in hosts[1:]:
            with server.accept()[0] as peer:
                print("heard from", peer.recv(100).decode(), flush=True)
else:
    for _ in range(300):
        try:
            with socket.create_connection(("algo-1", 7777)) as leader:
                leader.sendall(host.encode())
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
model = pathlib.Path("/opt/ml/model")
(model / f"{host}.txt").write_text(host)
(model / "both.txt").write_text(host)
pathlib.Path("/opt/ml/output/data", host).write_text(host)
"""


def test_hosts_find_one_another_and_make_one_model(platform):
    name = platform.script(platform.source(train_py=MEETING), ResourceConfig=TWO | {"InstanceCount": 3})
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert sorted(platform.streams(name)) == ["algo-1", "algo-2", "algo-3"]
    assert {f"heard from algo-{n}" for n in (2, 3)} <= set(platform.log(name, "algo-1"))
    artifacts = job["ModelArtifacts"]["S3ModelArtifacts"]
    assert platform.members(artifacts) == {"algo-1.txt", "algo-2.txt", "algo-3.txt", "both.txt"}
    assert platform.content(artifacts, "both.txt") == b"algo-1"
    output = artifacts.replace("model.tar.gz", "output.tar.gz")
    assert platform.members(output) == {"algo-1", "algo-2", "algo-3"}
    assert any("algo-2 made both.txt" in line for line in platform.log(name, "algo-1"))
    assert platform.keys(f"output/{name}/output/") == ["model.tar.gz", "output.tar.gz"]


def test_a_host_that_fails_ends_the_cluster_and_says_why(platform):
    script = """
import os, time
if os.environ["SM_CURRENT_HOST"] == "algo-2":
    raise RuntimeError("no more rows on algo-2")
time.sleep(600)
"""
    name = platform.script(platform.source(train_py=script), ResourceConfig=TWO)
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "no more rows on algo-2" in job["FailureReason"]
    platform.until(lambda: platform.tasks(name) == {})


def test_stopping_a_cluster_gathers_what_each_host_trained(platform):
    script = """
import os, pathlib, time
pathlib.Path("/opt/ml/model", os.environ["SM_CURRENT_HOST"]).write_text("saved")
print("saved", flush=True)
time.sleep(600)
"""
    name = platform.script(platform.source(train_py=script), ResourceConfig=TWO)
    for host in ("algo-1", "algo-2"):
        platform.until(lambda host=host: "saved" in platform.log(name, host))
    platform.sagemaker.stop_training_job(TrainingJobName=name)
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Stopped"
    assert platform.members(job["ModelArtifacts"]["S3ModelArtifacts"]) == {"algo-1", "algo-2"}


def test_a_heterogeneous_cluster_knows_its_groups(platform):
    script = """
import json, os
groups = json.load(open("/opt/ml/input/config/resourceconfig.json"))["instance_groups"]
print(sorted((g["instance_group_name"], g["instance_type"], tuple(g["hosts"])) for g in groups))
print("mine is", json.load(open("/opt/ml/input/config/resourceconfig.json"))["current_group_name"])
"""
    groups = [
        {"InstanceGroupName": "small", "InstanceType": "ml.m5.large", "InstanceCount": 2},
        {"InstanceGroupName": "large", "InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
    ]
    name = platform.script(
        platform.source(train_py=script), ResourceConfig={"InstanceGroups": groups, "VolumeSizeInGB": 1}
    )
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    known = "[('large', 'ml.m5.xlarge', ('algo-3',)), ('small', 'ml.m5.large', ('algo-1', 'algo-2'))]"
    for host, group in (("algo-1", "small"), ("algo-3", "large")):
        assert known in platform.log(name, host)
        assert f"mine is {group}" in platform.log(name, host)


def test_a_host_that_is_killed_ends_the_job_and_is_named(platform):
    script = "import time; print('here', flush=True); time.sleep(600)"
    name = platform.script(platform.source(train_py=script), ResourceConfig=TWO)
    platform.until(lambda: "here" in platform.log(name, "algo-2"))
    platform.kill_agent(name, "algo-2")
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "agent" in job["FailureReason"]
    platform.until(lambda: platform.tasks(name) == {})


def test_two_clusters_at_once_do_not_meet(platform):
    source = platform.source(train_py=MEETING)
    small = TWO | {"InstanceType": "ml.t3.medium"}
    names = [platform.script(source, ResourceConfig=small) for _ in range(2)]
    assert [platform.ended(name)["TrainingJobStatus"] for name in names] == ["Completed", "Completed"]


def test_an_isolated_cluster_talks_within_itself_and_to_nobody_else(platform):
    script = f"""{MEETING}
import urllib.request
try:
    urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"], timeout=5)
    print("reached the server", flush=True)
except OSError as error:
    print("alone:", type(error).__name__, flush=True)
"""
    name = platform.script(platform.source(train_py=script), ResourceConfig=TWO, EnableNetworkIsolation=True)
    job = platform.ended(name)
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert "heard from algo-2" in platform.log(name, "algo-1")
    assert "alone: URLError" in platform.log(name, "algo-2")
