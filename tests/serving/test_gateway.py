"""Invocations through a real gateway process, asked by botocore over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import botocore.session
import pytest
from botocore.config import Config

from clary.protocol.key_ring import TEMPORARY_PREFIX, new_access_key_id
from clary.protocol.wire import Caller
from clary.resources.session import Session, long_term_secret_key, open_session
from clary.serving.gateway_client import Gateway, GatewayFailed
from clary.testing.serving_world import (
    ACCOUNT,
    KEYS,
    error_of,
    invoke,
    process_ids_of_gateways,
    runtime_client,
    serving_world,
)


def test_an_invocation_reaches_the_model_and_its_reply_the_caller(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            address = await world.serve(
                "a", lambda body, kind, accept: (200, f"{body!r} {kind} {accept}".encode(), "a/b")
            )
            await world.publish(("AllTraffic", 1.0, [address]))
            status, reply = await world.invoke(b"1,2", ContentType="text/csv", Accept="application/json")
            assert status == 200
            assert reply["Body"] == b"b'1,2' text/csv application/json"
            assert (reply["ContentType"], reply["InvokedProductionVariant"]) == ("a/b", "AllTraffic")
            assert len(reply["ResponseMetadata"]["RequestId"]) == 36

    asyncio.run(facts())


def test_who_may_not_call_is_refused(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            address = await world.serve("a")
            await world.publish(("AllTraffic", 1.0, [address]))

            async def refusal(**credentials: str) -> tuple[int, str]:
                client = runtime_client(world.url, **credentials)
                status, reply = await asyncio.to_thread(invoke, client, b"1", {})
                return status, reply.get("Error", {}).get("Code", "")

            assert await refusal(secret="wrong") == (403, "InvalidSignatureException")
            assert await refusal(access_key="AKIAUNKNOWNUNKNOWNAA") == (403, "UnrecognizedClientException")
            session = Session(ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s", "id:s", time.time() + 60)
            keys = open_session(KEYS.secret, session)
            key_id = new_access_key_id(TEMPORARY_PREFIX, ACCOUNT, keys.entropy)
            given = {"access_key": key_id, "secret": keys.secret_access_key}
            assert await refusal(**given, aws_session_token=keys.session_token) == (200, "")
            assert (await refusal(**given, aws_session_token="x" + keys.session_token))[0] == 403
            expired = Session(ACCOUNT, session.arn, "id:s", time.time() - 1)
            keys = open_session(KEYS.secret, expired)
            key_id = new_access_key_id(TEMPORARY_PREFIX, ACCOUNT, keys.entropy)
            assert await refusal(
                access_key=key_id, secret=keys.secret_access_key, aws_session_token=keys.session_token
            ) == (403, "ExpiredTokenException")
            user = new_access_key_id("AKIA", ACCOUNT)
            as_user = {"access_key": user, "secret": long_term_secret_key(KEYS.secret, user)}
            assert (await refusal(**as_user))[0] == 403
            await world.gateway.set_users(
                {user: Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/u", "AIDA", user)}
            )
            assert await refusal(**as_user) == (200, "")

    asyncio.run(facts())


def test_a_body_that_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            await world.publish(("AllTraffic", 1.0, [await world.serve("a")]))
            client = world.client()

            def change(request: object, **_: object) -> None:
                request.body = b"9,9"  # type: ignore[attr-defined]

            client.meta.events.register("before-send", change)
            status, reply = await asyncio.to_thread(invoke, client, b"1,2", {})
            assert (status, error_of(reply)[0]) == (403, "InvalidSignatureException")

    asyncio.run(facts())


def test_unknown_endpoints_and_variants_are_named(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            status, reply = await world.invoke(EndpointName="none")
            assert status == 400
            assert error_of(reply) == ("ValidationError", f"Endpoint none of account {ACCOUNT} not found.")
            await world.publish(("AllTraffic", 1.0, [await world.serve("a")]), ("dead", 0.0, []))
            status, reply = await world.invoke(TargetVariant="other")
            assert (status, error_of(reply)[0]) == (400, "ValidationError")
            assert "other" in error_of(reply)[1]
            status, reply = await world.invoke(TargetVariant="dead")
            assert (status, error_of(reply)[0]) == (503, "ServiceUnavailable")
            await world.gateway.withdraw(ACCOUNT, "us-east-1", "endpoint")
            status, reply = await world.invoke()
            assert error_of(reply)[1] == f"Endpoint endpoint of account {ACCOUNT} not found."
            client = world.client()
            with pytest.raises(client.exceptions.ClientError, match="InvokeEndpointAsync"):
                client.invoke_endpoint_async(EndpointName="endpoint", InputLocation="s3://b/k")

    asyncio.run(facts())


def test_an_error_of_the_model_is_wrapped_as_sagemaker_does(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            address = await world.serve("a", lambda *_: (418, b"no \xff tea", "text/plain"))
            await world.publish(("AllTraffic", 1.0, [address]))
            status, reply = await world.invoke()
            assert (status, error_of(reply)[0]) == (424, "ModelError")
            assert reply["OriginalStatusCode"] == 418
            assert reply["OriginalMessage"] == "no \N{REPLACEMENT CHARACTER} tea"
            assert reply["LogStreamArn"].endswith(":log-group:/aws/sagemaker/Endpoints/endpoint")
            assert error_of(reply)[1].startswith('Received client error (418) from primary with message "no')

    asyncio.run(facts())


def test_weights_share_the_traffic_and_a_target_overrides_them(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            address = await world.serve("a")
            await world.publish(("one", 1.0, [address]), ("three", 3.0, [address]), ("none", 0.0, [address]))
            client = world.client()
            seen: Counter[str] = Counter()
            for _ in range(200):
                _, reply = await asyncio.to_thread(invoke, client, b"1", {})
                seen[reply["InvokedProductionVariant"]] += 1
            assert set(seen) == {"one", "three"}
            assert 20 <= seen["one"] <= 85  # 50 expected; seven standard deviations at least
            assert (await world.invoke(TargetVariant="none"))[1]["InvokedProductionVariant"] == "none"

    asyncio.run(facts())


def test_large_bodies_pass_and_too_large_ones_are_refused(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            await world.publish(("AllTraffic", 1.0, [await world.serve("a")]))
            body = os.urandom(6 * 1024**2)
            assert (await world.invoke(body))[1]["Body"] == body
            status, reply = await world.invoke(body + b"x")
            assert (status, error_of(reply)[0]) == (413, "ValidationError")

    asyncio.run(facts())


def test_a_streamed_reply_comes_as_events(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            await world.publish(("AllTraffic", 1.0, [await world.serve("a")]))
            body = os.urandom(1024**2)

            def ask() -> tuple[str, bytes]:
                reply = world.client().invoke_endpoint_with_response_stream(
                    EndpointName="endpoint", Body=body, ContentType="a/b"
                )
                parts = [event["PayloadPart"]["Bytes"] for event in reply["Body"]]
                return reply["ContentType"], b"".join(parts)

            assert await asyncio.to_thread(ask) == ("a/b", body)

    asyncio.run(facts())


def test_a_table_swapped_under_load_loses_no_request(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:

            def slowly(body: bytes, kind: str, accept: str) -> tuple[int, bytes, str]:
                time.sleep(0.02)
                return 200, body, kind

            await world.publish(("AllTraffic", 1.0, [await world.serve("0", slowly)]))
            stop = threading.Event()
            statuses: Counter[int] = Counter()

            def load() -> None:
                client = world.client()
                while not stop.is_set():
                    statuses[invoke(client, b"1", {})[0]] += 1

            loads = [asyncio.create_task(asyncio.to_thread(load)) for _ in range(4)]
            for number in range(1, 8):
                address = await world.serve(str(number), slowly)
                await world.publish(("AllTraffic", 1.0, [address]))
                old = f"/{number - 1}"
                while any(each.endswith(old) for each in await world.gateway.busy()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await world.stop_serving(str(number - 1))
                await asyncio.sleep(0.1)
            stop.set()
            await asyncio.gather(*loads)
            assert set(statuses) == {200}
            assert statuses[200] > 20

    asyncio.run(facts())


_WORKER_CODE = """
import os, time
def model_fn(folder):
    return os.getpid()
def input_fn(body, kind):
    return body
def predict_fn(data, model):
    time.sleep(float(data))
    return model
def output_fn(prediction, accept):
    return str(prediction), "text/plain"
"""


@contextlib.contextmanager
def _worker(
    base: Path, code: str = _WORKER_CODE
) -> contextlib.Generator[tuple[subprocess.Popen[bytes], Path]]:
    (base / "model/code").mkdir(parents=True)
    (base / "model/code/inference.py").write_text(code)
    path = Path("/tmp", f"clary-worker-{os.getpid()}-{time.time_ns()}.sock")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "clary.serving.model_worker", "--socket", str(path)),
            *("--handler", "framework:sagemaker-scikit-learn"),
        ],
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_MODEL_SERVER_WORKERS": "4"},
    )
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process, path
    finally:
        process.kill()
        process.wait()
        path.unlink(missing_ok=True)


@pytest.mark.slow
def test_a_killed_model_server_costs_only_what_it_was_doing(tmp_path: Path) -> None:
    async def facts() -> None:
        with _worker(tmp_path / "a") as (dying, first), _worker(tmp_path / "b") as (_, second):
            async with serving_world(tmp_path) as world:
                await world.publish(("AllTraffic", 1.0, [f"unix:{first}", f"unix:{second}"]))
                waiting = [asyncio.create_task(world.invoke(b"3")) for _ in range(4)]
                while len(await world.gateway.busy()) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                await asyncio.sleep(0.5)
                os.kill(dying.pid, signal.SIGKILL)
                results = [await each for each in waiting]
                failed = [reply for status, reply in results if status != 200]
                assert len(failed) == 2
                assert {error_of(reply)[0] for reply in failed} == {"ModelError"}
                # The dead one is still in the table; nobody notices.
                later = [await world.invoke(b"0") for _ in range(10)]
                assert {status for status, _ in later} == {200}

    asyncio.run(facts())


def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            begun = threading.Semaphore(0)
            end = threading.Event()

            def stuck(body: bytes, kind: str, accept: str) -> tuple[int, bytes, str]:
                if body == b"wait":
                    begun.release()
                    end.wait(30)
                return 200, body, kind

            await world.publish(("AllTraffic", 1.0, [await world.serve("a", stuck)]))

            def ask_and_leave() -> None:
                impatient = botocore.session.get_session().create_client(
                    "sagemaker-runtime",
                    region_name="us-east-1",
                    endpoint_url=world.url,
                    aws_access_key_id=KEYS.access_key_id,
                    aws_secret_access_key=KEYS.secret_access_key,
                    config=Config(read_timeout=0.5, retries={"total_max_attempts": 1}),
                )
                with contextlib.suppress(Exception):
                    impatient.invoke_endpoint(EndpointName="endpoint", Body=b"wait")

            leaving = [asyncio.create_task(asyncio.to_thread(ask_and_leave)) for _ in range(3)]
            for _ in range(3):
                await asyncio.to_thread(begun.acquire, True, 30)
            await asyncio.gather(*leaving)
            while await world.gateway.busy():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            end.set()
            assert (await world.invoke(b"after"))[1]["Body"] == b"after"

    asyncio.run(facts())


def test_a_gateway_outlives_its_server_and_is_found_again(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys, time\n"
        "from pathlib import Path\n"
        "from clary.serving.gateway_client import Gateway\n"
        "from clary.testing.serving_world import KEYS, route\n"
        "async def main():\n"
        "    gateway = await Gateway.start_or_find(Path(sys.argv[1]), keys=KEYS)\n"
        "    await gateway.publish(route(('AllTraffic', 1.0, [sys.argv[2]])))\n"
        "    print(gateway.port, gateway.process_id, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )

    async def facts() -> None:
        async with serving_world(tmp_path / "other") as world:  # only for its model server
            address = await world.serve("a")
            data = tmp_path / "data"
            server = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-c", script, str(data), address], stdout=subprocess.PIPE, text=True
            )
            assert server.stdout is not None
            port, process_id = map(int, (await asyncio.to_thread(server.stdout.readline)).split())
            server.kill()
            server.wait()
            server.stdout.close()
            client = runtime_client(f"http://127.0.0.1:{port}")
            assert (await asyncio.to_thread(invoke, client, b"7", {}))[1]["Body"] == b"7"
            found = await Gateway.start_or_find(data, keys=KEYS)
            try:
                assert (found.port, found.process_id) == (port, process_id)
                assert [route.name for route in found.routes.values()] == ["endpoint"]
                assert (await asyncio.to_thread(invoke, client, b"8", {}))[1]["Body"] == b"8"
            finally:
                await found.stop()
            assert process_ids_of_gateways(data) == []
            again = await Gateway.start_or_find(data, keys=KEYS)
            await again.stop()
            assert again.port == port  # a port once chosen is kept

    asyncio.run(facts())


def test_a_gateway_that_is_killed_comes_back_with_all_it_knew(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            await world.publish(("AllTraffic", 1.0, [await world.serve("a")]))
            os.kill(world.gateway.process_id, signal.SIGKILL)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                with contextlib.suppress(Exception):
                    if (await world.invoke(b"7"))[0] == 200:
                        break
                await asyncio.sleep(0.05)
            assert (await world.invoke(b"7"))[1]["Body"] == b"7"
            await world.publish(("AllTraffic", 2.0, [await world.serve("b")]))
            assert len(process_ids_of_gateways(tmp_path)) == 1

    asyncio.run(facts())


def test_a_gateway_that_cannot_listen_says_why(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path / "one") as world:
            with pytest.raises(GatewayFailed, match=f"port {world.gateway.port}"):
                await Gateway.start_or_find(tmp_path / "two", port=world.gateway.port, keys=KEYS)

    asyncio.run(facts())


def test_invocations_are_counted(tmp_path: Path) -> None:
    async def facts() -> None:
        async with serving_world(tmp_path) as world:
            address = await world.serve("a", lambda body, *_: (int(body), b"", "a/b"))
            await world.publish(("AllTraffic", 1.0, [address, address + "-dead"]))
            client = world.client()
            for status in (200, 200, 400, 500):
                await asyncio.to_thread(invoke, client, str(status).encode(), {})
            (stats,) = await world.gateway.stats()
            counts = stats["counts"]
            assert (stats["endpoint"], stats["variant"]) == ("endpoint", "AllTraffic")
            assert counts["Invocations"] == 4 and counts["InvocationsPerInstance"] == 2.0
            assert counts["Invocation4XXErrors"] == counts["Invocation5XXErrors"] == 1
            assert counts["InvocationModelErrors"] == 2
            for latencies in (counts["ModelLatency"], counts["OverheadLatency"]):
                assert sum(count for count, *_ in latencies) == 4
                assert all(smallest <= largest for _, _, smallest, largest in latencies)
            assert await world.gateway.stats() == []

    asyncio.run(facts())
