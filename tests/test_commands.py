"""The commands, as a user types them, against a real server."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clary.testing.server import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("commands")]


def clary(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clary.cli", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("commands")) as running:
        yield running


def test_status_tells_a_running_server_from_none(server: ServerProcess, tmp_path: Path) -> None:
    running = clary("status", "--data", str(server.data))
    assert running.returncode == 0
    assert "is ready at http://127.0.0.1:" in running.stdout
    none = clary("status", "--data", str(tmp_path / "none"))
    assert none.returncode == 1
    assert "Start one with: clary up" in none.stderr


def test_run_points_one_command_at_clary_whatever_the_shell_holds(server: ServerProcess) -> None:
    code = (
        "import botocore.session as s; c = s.Session().create_client('sts');"
        "print(c.get_caller_identity()['Arn'])"
    )
    outcome = clary(
        "run", "--data", str(server.data), "--", sys.executable, "-c", code,
        AWS_ACCESS_KEY_ID="AKIAOTHER", AWS_SECRET_ACCESS_KEY="x", AWS_ENDPOINT_URL_STS="http://127.0.0.1:9",
    )  # fmt: skip
    assert outcome.stdout.strip() == "arn:aws:sts::123456789012:assumed-role/ClaryExecutionRole/clary", (
        outcome.stderr
    )


def test_run_exits_as_the_command_does(server: ServerProcess) -> None:
    run = ("run", "--data", str(server.data), "--")
    assert clary(*run, sys.executable, "-c", "raise SystemExit(7)").returncode == 7
    missing = clary(*run, "no-such-command")
    assert (missing.returncode, missing.stderr) == (
        127,
        "clary run: there is no command 'no-such-command'.\n",
    )


def test_env_can_be_evaluated_by_a_shell(server: ServerProcess) -> None:
    env = f"{sys.executable} -m clary.cli env --data {server.data}"
    command = f'eval "$({env})"; echo "$AWS_ENDPOINT_URL $AWS_PROFILE"'
    outcome = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert outcome.stdout.startswith("http://127.0.0.1:")
    assert outcome.stdout.strip().endswith(" clary")


def test_env_twice_does_not_pile_up(server: ServerProcess) -> None:
    once = server.environment()
    again = clary("env", "--data", str(server.data), PYTHONPATH=once["PYTHONPATH"])
    assert f"export PYTHONPATH={once['PYTHONPATH']}\n" in again.stdout


def test_sts_by_its_spelled_out_name_reaches_clary(server: ServerProcess) -> None:
    code = (
        "import botocore.session as s;"
        "c = s.Session().create_client('sts', region_name='eu-west-1', endpoint_url='https://sts.eu-west-1.amazonaws.com');"
        "print(c.get_caller_identity()['Account'])"
    )
    outcome = clary("run", "--data", str(server.data), "--", sys.executable, "-c", code)
    assert outcome.stdout.strip() == "123456789012", outcome.stderr


def test_a_second_server_on_the_same_folder_is_refused(server: ServerProcess) -> None:
    outcome = clary("up", "--data", str(server.data), "--port", "0")
    assert outcome.returncode == 1
    assert f"A Clary server already uses {server.data}" in outcome.stderr


def test_secrets_are_for_their_owner_only(server: ServerProcess) -> None:
    for name in ("credentials.json", "secret.key", "client/credentials", "server.log", "store.sqlite"):
        clary("env", "--data", str(server.data))
        assert stat.S_IMODE((server.data / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700


def test_a_replys_request_id_is_in_the_log_and_secrets_are_not(server: ServerProcess) -> None:
    reply = server.client("sts").get_caller_identity()
    until = time.monotonic() + 30  # the line is written after the reply is sent
    while reply["ResponseMetadata"]["RequestId"] not in (log := (server.data / "server.log").read_text()):
        assert time.monotonic() < until
        time.sleep(0.01)
    secret = next(
        line.split("=", 1)[1].strip()
        for line in (server.data / "client" / "credentials").read_text().splitlines()
        if line.startswith("aws_secret_access_key")
    )
    assert secret not in log


def test_doctor_says_what_there_is(server: ServerProcess) -> None:
    outcome = clary("doctor", "--data", str(server.data))
    assert outcome.returncode == 0, outcome.stdout
    for subject in ("Python", "Processors", "Memory", "Disk", "Sandbox", "Containers", "Server"):
        assert subject in outcome.stdout


def test_a_wrong_setting_stops_the_start_with_its_name(tmp_path: Path) -> None:
    outcome = clary("up", "--data", str(tmp_path), CLARY_STORE="paper")
    assert outcome.returncode == 1
    assert "The setting 'store' must be sqlite or memory, not 'paper'." in outcome.stderr


def test_a_server_keeps_its_ports_and_credentials(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    first = server.start()
    variables = server.environment()
    server.stop()
    assert server.processes() == {}
    second = server.start()
    try:
        assert (first.port, first.tls_port, first.gateway_port) == (
            second.port,
            second.tls_port,
            second.gateway_port,
        )
        assert server.environment() == variables
    finally:
        server.stop()
    assert server.processes() == {}
