"""What is known of images and engines without asking one; the way from a container to the API."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.agent.runtimes import api_access, docker
from clary.agent.runtimes.api_access import ApiAccess
from clary.agent.runtimes.container import (
    CannotContain,
    check_name,
    engine_address,
    has_registry,
    local_names,
)
from clary.agent.runtimes.docker import Engine
from clary.agent.runtimes.docker_network import _subnets
from clary.agent.runtimes.ownership import chown_command, foreign
from clary.agent.runtimes.pull_progress import PullProgress
from clary.resources.container_record import ContainerRecord, container_records, has_record
from clary.testing.agent_world import AgentWorld

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("algo:1", ["algo:1"]),
        ("me/algo", ["me/algo"]),
        (f"{ECR}/algo:1", [f"{ECR}/algo:1", "algo:1"]),
        (f"{ECR}/team/algo:1", [f"{ECR}/team/algo:1", "team/algo:1", "algo:1"]),
        (
            "1.dkr.ecr.cn-north-1.amazonaws.com.cn/algo",
            ["1.dkr.ecr.cn-north-1.amazonaws.com.cn/algo", "algo"],
        ),
        (f"{ECR}/algo@sha256:{'0' * 64}", [f"{ECR}/algo@sha256:{'0' * 64}"]),
        ("registry.example/algo:1", ["registry.example/algo:1"]),
        (f"evil.example/{ECR}/algo:1", [f"evil.example/{ECR}/algo:1"]),
    ],
)
def test_an_image_is_looked_for_by_these_names(image: str, names: list[str]) -> None:
    assert list(local_names(image)) == names


@pytest.mark.parametrize(
    "image",
    [
        "algo",
        "algo:1",
        "me/al-go__x.y:v1.0-GPU",
        "host:5000/a/b:2",
        f"{ECR}/a@sha256:{'0' * 64}",
        "localhost/a",
    ],
)
def test_names_of_images_are_taken(image: str) -> None:
    check_name(image)


@pytest.mark.parametrize(
    "image",
    ["", "UPPER:1", "../containers/x", "a/../b", "a b", "a:", "a?x=1", "a\n", "é", "-a", "a" * 600, "a:1@x"],
)
def test_what_no_image_can_be_called_never_reaches_an_engine(image: str) -> None:
    with pytest.raises(CannotContain, match="cannot be the name of an image"):
        check_name(image)


@pytest.mark.parametrize(
    ("image", "expected"),
    [("algo:1", False), ("me/algo:1", False), ("localhost/a", True), ("host:5000/a", True), ("a.b/c", True)],
)
def test_a_registry_is_told_from_a_folder(image: str, expected: bool) -> None:
    assert has_registry(image) is expected


def test_the_engine_is_where_the_setting_the_variable_or_a_socket_says(tmp_path: Path) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert engine_address("tcp://127.0.0.1:1", {"DOCKER_HOST": "unix:///a"}) == "tcp://127.0.0.1:1"
    assert engine_address("", {"DOCKER_HOST": "unix:///a"}) == "unix:///a"
    if engine_address("", runtime).startswith("unix:///var/run") and Path("/var/run/docker.sock").is_socket():
        return
    (tmp_path / "podman").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "podman/podman.sock"))
        assert engine_address("", runtime).endswith(".sock")


def test_an_engine_far_away_or_behind_a_closed_door_is_refused(tmp_path: Path) -> None:
    for address in ("ssh://root@host", "tcp://192.0.2.7:2375"):
        with pytest.raises(CannotContain, match="on another machine"):
            Engine.connect(address)
    with pytest.raises(CannotContain, match=r"No such file or directory.*docker_host"):
        Engine.connect(f"unix://{tmp_path}/none.sock")
    with pytest.raises(CannotContain, match="no container engine answers"):
        Engine.connect("nonsense://x")


def test_an_engine_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "_PING_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(CannotContain, match=r"no container engine answers.*timed out"):
            Engine.connect(f"unix://{tmp_path}/s")


def test_something_that_is_no_engine_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(CannotContain, match="Connection refused"):
            Engine.connect(f"unix://{tmp_path}/s")


@pytest.fixture
def access() -> Iterator[tuple[ApiAccess, AgentWorld]]:
    with AgentWorld() as world:
        made = ApiAccess("127.0.0.1", world.connection)
        try:
            yield made, world
        finally:
            made.close()


def fetch(url: str, method: str = "GET") -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, method=method), timeout=10) as reply:
        return bytes(reply.read())


def test_metadata_hold_the_credentials_that_the_server_gives(access: tuple[ApiAccess, AgentWorld]) -> None:
    made, world = access
    made.admit("127.0.0.1")
    place = made.environment()["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    assert fetch(f"{place}latest/api/token", "PUT")
    role = fetch(f"{place}latest/meta-data/iam/security-credentials/").decode()
    document = json.loads(fetch(f"{place}latest/meta-data/iam/security-credentials/{role}"))
    assert document["AccessKeyId"] == "ASIATESTTESTTESTTEST" and document["Code"] == "Success"
    assert document["Expiration"] == "2999-01-01T00:00:00Z"
    for path, method, status in (("latest/user-data", "GET", 404), ("latest/api/token", "DELETE", 405)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(place + path, method)
        assert refused.value.code == status
    world.vanish()
    with pytest.raises(urllib.error.HTTPError) as away:
        fetch(f"{place}latest/meta-data/iam/security-credentials/{role}")
    assert away.value.code == 503


def test_botocore_finds_these_credentials(access: tuple[ApiAccess, AgentWorld]) -> None:
    from botocore.utils import InstanceMetadataFetcher

    made, _ = access
    made.admit("127.0.0.1")
    place = made.environment()["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    fetcher = InstanceMetadataFetcher(
        timeout=5, num_attempts=1, base_url=place, env={}, config={"ec2_metadata_service_endpoint": place}
    )
    assert fetcher.retrieve_iam_role_credentials()["access_key"] == "ASIATESTTESTTESTTEST"


def test_requests_pass_to_the_api_and_back(access: tuple[ApiAccess, AgentWorld]) -> None:
    made, world = access
    world.objects["bucket"] = {"large": bytes(range(256)) * 8192}
    made.admit("127.0.0.1")
    assert fetch(made.environment()["AWS_ENDPOINT_URL"] + "/bucket/large") == world.objects["bucket"]["large"]


def test_a_gateway_that_is_another_machines_is_known(access: tuple[ApiAccess, AgentWorld]) -> None:
    made, world = access
    assert made.at_hand
    elsewhere = ApiAccess("192.0.2.99", world.connection)
    assert not elsewhere.at_hand
    elsewhere.close()


def test_others_than_the_container_are_turned_away(access: tuple[ApiAccess, AgentWorld]) -> None:
    made, world = access
    made.admit("127.0.0.2")
    for url in (
        made.environment()["AWS_ENDPOINT_URL"],
        made.environment()["AWS_EC2_METADATA_SERVICE_ENDPOINT"],
    ):
        with pytest.raises((OSError, http.client.HTTPException)):
            fetch(url)
    assert world.requests == []


def test_a_connection_waits_until_the_container_is_known(access: tuple[ApiAccess, AgentWorld]) -> None:
    made, _ = access
    host, port = made.environment()["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as early:
        early.sendall(b"GET /.clary/credentials/x HTTP/1.0\r\n\r\n")
        made.admit("127.0.0.1")
        assert early.recv(100).startswith(b"HTTP/1.1 403")


def test_a_request_without_end_does_not_last(
    access: tuple[ApiAccess, AgentWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_access, "_HEAD_SECONDS", 0.1)
    made, _ = access
    made.admit("127.0.0.1")
    host, port = (
        made.environment()["AWS_EC2_METADATA_SERVICE_ENDPOINT"].removeprefix("http://").rstrip("/").split(":")
    )
    for said in (b"GET /lat", b"x" * 200_000, b"\xff\xfe\r\n\r\n"):
        with socket.create_connection((host, int(port)), 10) as caller:
            with contextlib.suppress(OSError):
                caller.sendall(said)
            with contextlib.suppress(ConnectionResetError):
                while caller.recv(65536):
                    pass


def test_addresses_of_clusters_keep_clear_of_the_machines_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    from clary.agent.runtimes import docker_network

    first = next(_subnets("clary-x"))
    assert first.subnet_of(ipaddress.IPv4Network("10.192.0.0/10")) and first.prefixlen == 24
    monkeypatch.setattr(docker_network, "_routes", lambda: [first])
    assert next(_subnets("clary-x")) != first
    assert len(set(_subnets("clary-x"))) == len(list(_subnets("clary-x")))


def test_a_pull_is_told_in_megabytes_and_not_too_often() -> None:
    progress = PullProgress("mine:1")
    layer = {"id": "a", "status": "Downloading", "progressDetail": {"current": 1 << 20, "total": 3 << 20}}
    assert progress.take({"status": "Pulling from mine"}, 0.0) == "Pulling the image mine:1"
    assert progress.take(layer, 1.0) == ""
    assert progress.take({"id": "b", "status": "Waiting", "progressDetail": {}}, 6.0).endswith(": 1 of 3 MiB")
    assert progress.take({"id": "a", "status": "Pull complete"}, 12.0).endswith(": 3 of 3 MiB")


def test_records_outlive_the_folders_of_tasks(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    assert list(container_records(tasks)) == [] and not has_record(tasks, "job")
    record = ContainerRecord("job", "unix:///a", "sha256:1", "")
    record.write(tasks)
    (tmp_path / "containers/broken.json").write_text("{")
    assert list(container_records(tasks)) == [record] and has_record(tasks, "job")
    record.forget(tasks)
    record.forget(tasks)
    assert list(container_records(tasks)) == []


def test_the_command_that_takes_files_over_runs_without_the_image(tmp_path: Path) -> None:
    command, binds = chown_command("1:2", "/here")
    assert command[-4:] == ["-R", "-h", "1:2", "/here"]
    for bind in binds:
        source, target, mode = bind.split(":")
        assert Path(source).is_file() and target.startswith("/.clary/") and mode == "ro"
    (tmp_path / "mine").write_text("x")
    assert not foreign(tmp_path)
