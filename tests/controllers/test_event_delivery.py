"""Events reach the targets of the rules they match, each for itself, at least once; or the dead letters."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from clary.clock import ManualClock
from clary.controllers.event_delivery import EventDelivery
from clary.controllers.event_router import EventRouter
from clary.controllers.event_targets import EventTargets
from clary.event_bus.event_store import NewEvent
from clary.event_bus.sqlite_events import SqliteEventStore
from clary.queues.queue_store import Message, QueueName, QueueSettings
from clary.queues.sqlite_queues import SqliteQueueStore
from clary.resources.event_rule import (
    API_DESTINATION,
    CONNECTION,
    api_destination_arn,
    connection_arn,
    rule_key,
)
from clary.resources.resource import Key
from clary.store.memory import MemoryStore
from clary.telemetry.database import TelemetryDatabase
from clary.telemetry.sqlite_logs import SqliteLogStore
from clary.testing.webhooks import Answer, Received, WebhookServer

ACCOUNT, REGION = "123456789012", "us-east-1"
PLACE = (ACCOUNT, REGION)
GROUP_ARN = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/events/g:*"
ALL = json.dumps({"source": [{"prefix": ""}]})


def queue_name(name: str) -> QueueName:
    return QueueName(ACCOUNT, REGION, name)


class World:
    """Router and delivery over real stores, and a clock to turn."""

    def __init__(self, folder: Path, *, max_pending: int = 100_000) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.events = SqliteEventStore(folder / "events.sqlite", self.clock, max_pending=max_pending)
        self.queues = SqliteQueueStore(folder / "queues.sqlite", self.clock)
        self.logs = SqliteLogStore(TelemetryDatabase(folder / "telemetry.sqlite"), self.clock)
        self.restart()

    def restart(self) -> None:
        """New roles, that remember nothing."""
        targets = EventTargets(self.store, self.queues, self.logs, self.clock)
        self.delivery = EventDelivery(self.events, targets, self.clock, seed=1)
        self.router = EventRouter(self.store, self.events, self.delivery.wake)

    async def close(self) -> None:
        await self.events.close()
        await self.queues.close()
        await self.logs.close()

    async def rule(
        self, *targets: dict[str, Any], name: str = "r", pattern: str = ALL, **members: Any
    ) -> None:
        spec: Any = {
            "Name": name,
            "EventPattern": pattern,
            "State": "ENABLED",
            "EventBusName": "default",
            "Targets": {target["Id"]: target for target in targets},
            **members,
        }
        key = rule_key(ACCOUNT, REGION, spec["EventBusName"], name)
        await self.store.create(key, spec, {}, phase="Active", due_at=None)

    async def queue(self, name: str, **settings: Any) -> dict[str, Any]:
        """A queue as a target."""
        await self.queues.create(queue_name(name), QueueSettings(**settings), {}, {})
        return {"Id": name, "Arn": queue_name(name).arn}

    async def webhook(
        self, url: str, parameters: dict[str, Any] | None = None, *, name: str = "hook", method: str = "POST"
    ) -> dict[str, Any]:
        """An API destination as a target."""
        basic = {"BasicAuthParameters": {"Username": "u", "Password": "p"}}
        spec: Any = {"Name": name, "AuthorizationType": "BASIC", "AuthParameters": {**(parameters or basic)}}
        connection = await self.store.create(
            Key(CONNECTION, ACCOUNT, REGION, name), spec, {}, phase="AUTHORIZED", due_at=None
        )
        destination = await self.store.create(
            Key(API_DESTINATION, ACCOUNT, REGION, name),
            {
                "Name": name,
                "ConnectionArn": connection_arn(connection),
                "InvocationEndpoint": url,
                "HttpMethod": method,
            },
            {},
            phase="ACTIVE",
            due_at=None,
        )
        return {"Id": name, "Arn": api_destination_arn(destination)}

    async def put(self, *names: str, bus: str = "default") -> None:
        await self.events.publish([self.event(name, bus=bus) for name in names])

    def event(self, name: str, *, bus: str = "default") -> NewEvent:
        envelope = {"id": name, "source": "me", "detail-type": "t", "detail": {"n": name}}
        return NewEvent(ACCOUNT, REGION, envelope, bus)

    async def go(self) -> None:
        """Route and deliver what is due."""
        await self.router.step()
        await self.delivery.step()

    async def later(self, seconds: float, step_seconds: float = 5.0) -> None:
        """Let ``seconds`` pass, delivering whenever something is due."""
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            await self.clock.advance(min(step_seconds, until - self.clock.now()))
            await self.go()

    async def inbox(self, name: str) -> list[Message]:
        return list(await self.queues.receive(queue_name(name), limit=10, visibility_seconds=0))

    async def pending(self) -> int:
        found = await self.events.destinations(now=self.clock.now() + 1e9, busy=[], limit=1000)
        due = [await self.events.due(each, now=self.clock.now() + 1e9, limit=10_000) for each in found]
        return sum(len(each) for each in due)


def run(folder: Path, facts: Callable[[World], Awaitable[None]], **limits: Any) -> None:
    async def within() -> None:
        world = World(folder, **limits)
        try:
            await facts(world)
        finally:
            await world.close()

    asyncio.run(within())


def names(received: list[Received]) -> list[str]:
    return [json.loads(each.body)["id"] for each in received]


def test_an_event_goes_to_every_target_of_every_rule_that_matches(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        await world.logs.create_group(*PLACE, "/aws/events/g")
        with WebhookServer() as server:
            hook = await world.webhook(f"{server.url}/in")
            await world.rule(await world.queue("q"), {"Id": "log", "Arn": GROUP_ARN}, hook)
            await world.rule(await world.queue("other"), name="other", pattern='{"detail": {"n": ["2"]}}')
            await world.rule(await world.queue("off"), name="off", State="DISABLED")
            await world.rule(await world.queue("own"), name="own", EventBusName="own")
            await world.rule(await world.queue("clock"), name="clock", EventPattern=None)
            await world.put("1", "2")
            await world.put("3", bus="own")
            await world.go()
        assert [json.loads(m.body)["id"] for m in await world.inbox("q")] == ["1", "2"]
        assert [json.loads(m.body)["id"] for m in await world.inbox("other")] == ["2"]
        assert [json.loads(m.body)["id"] for m in await world.inbox("own")] == ["3"]
        assert await world.inbox("off") == [] and await world.inbox("clock") == []
        lines = await world.logs.read(*PLACE, "/aws/events/g", "r")
        assert [json.loads(line.message) for line in lines] == [
            world.event("1").envelope,
            world.event("2").envelope,
        ]
        assert sorted(names(server.received)) == ["1", "2"]
        (first, _) = server.received
        assert (first.method, first.path) == ("POST", "/in")
        assert first.headers["authorization"] == "Basic dTpw"
        assert first.headers["content-type"] == "application/json; charset=utf-8"
        assert await world.pending() == 0

    run(tmp_path, facts)


def test_a_webhook_that_is_away_holds_up_nobody_else_and_gets_its_events_later(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        with WebhookServer() as server:
            server.answer = lambda received: Answer(503)
            hook = await world.webhook(server.url)
            gone = await world.webhook("http://127.0.0.1:9/", name="gone")
            await world.rule(gone, hook, await world.queue("q"))
            await world.put("1", "2", "3")
            await world.go()
            assert len(await world.inbox("q")) == 3
            assert await world.pending() == 6
            server.received.clear()
            server.answer = lambda received: Answer()
            await world.later(10)
            assert sorted(names(server.received)) == ["1", "2", "3"]
            assert await world.pending() == 3  # to the one that is gone

    run(tmp_path, facts)


def test_retries_grow_apart_and_end_in_the_dead_letter_queue(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        times: list[float] = []

        def refuse(received: Received) -> Answer:
            times.append(world.clock.now())
            return Answer(500)

        with WebhookServer(refuse) as server:
            hook = await world.webhook(server.url)
            dead = await world.queue("dead")
            await world.rule(
                {
                    **hook,
                    "RetryPolicy": {"MaximumRetryAttempts": 4},
                    "DeadLetterConfig": {"Arn": dead["Arn"]},
                }
            )
            await world.put("1")
            await world.go()
            await world.later(60, step_seconds=0.25)
        assert len(times) == 5
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert gaps == sorted(gaps) and gaps[-1] >= 6
        (letter,) = await world.inbox("dead")
        assert json.loads(letter.body) == world.event("1").envelope
        told = {name: value["StringValue"] for name, value in letter.attributes.items()}
        assert told == {
            "RULE_ARN": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/r",
            "TARGET_ARN": hook["Arn"],
            "ERROR_CODE": "SDK_CLIENT_ERROR",
            "ERROR_MESSAGE": "The endpoint answered with HTTP status 500.",
            "RETRY_ATTEMPTS": "4",
            "EXHAUSTED_RETRY_CONDITION": "MaximumRetryAttempts",
        }
        assert await world.pending() == 0

    run(tmp_path, facts)


def test_an_event_that_is_too_old_is_given_up(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        hook = await world.webhook("http://127.0.0.1:9/")
        dead = await world.queue("dead")
        policy = {"MaximumEventAgeInSeconds": 60}
        await world.rule({**hook, "RetryPolicy": policy, "DeadLetterConfig": {"Arn": dead["Arn"]}})
        await world.put("1")
        await world.go()
        await world.later(61, step_seconds=1)
        (letter,) = await world.inbox("dead")
        assert letter.attributes["EXHAUSTED_RETRY_CONDITION"]["StringValue"] == "MaximumEventAgeInSeconds"
        assert letter.attributes["ERROR_CODE"]["StringValue"] == "CONNECTION_FAILURE"

    run(tmp_path, facts)


@pytest.mark.parametrize("status", [301, 400, 403, 404, 413])
def test_a_refusal_for_good_is_not_tried_again(tmp_path: Path, status: int) -> None:
    async def facts(world: World) -> None:
        with WebhookServer(lambda _: Answer(status, {"Location": "http://127.0.0.1:9/"})) as server:
            hook = await world.webhook(server.url)
            dead = await world.queue("dead")
            await world.rule({**hook, "DeadLetterConfig": {"Arn": dead["Arn"]}})
            await world.put("1")
            await world.go()
            await world.later(60)
            assert len(server.received) == 1
        (letter,) = await world.inbox("dead")
        assert str(status) in letter.attributes["ERROR_MESSAGE"]["StringValue"]

    run(tmp_path, facts)


def test_a_webhook_says_when_it_wants_to_be_asked_again(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        with WebhookServer(lambda _: Answer(429, {"Retry-After": "300"})) as server:
            await world.rule(await world.webhook(server.url))
            await world.put("1")
            await world.go()
            await world.later(299)
            assert len(server.received) == 1
            server.answer = lambda _: Answer()
            await world.later(10)
            assert len(server.received) == 2
        assert await world.pending() == 0

    run(tmp_path, facts)


def test_what_has_no_target_left_goes_to_the_dead_letters_at_once(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        dead = {"DeadLetterConfig": {"Arn": (await world.queue("dead"))["Arn"]}}
        hook = await world.webhook("http://127.0.0.1:9/")
        await world.store.delete(Key(API_DESTINATION, ACCOUNT, REGION, "hook"))
        await world.rule(
            {"Id": "a", "Arn": queue_name("none").arn, **dead},
            {"Id": "b", "Arn": GROUP_ARN, **dead},
            {**hook, **dead},
            {"Id": "d", "Arn": queue_name("nor-this").arn},  # and this one to nobody
        )
        await world.put("1")
        await world.go()
        letters = await world.inbox("dead")
        codes = [letter.attributes["ERROR_CODE"]["StringValue"] for letter in letters]
        assert codes == ["NO_RESOURCE"] * 3
        assert await world.pending() == 0

    run(tmp_path, facts)


def test_more_than_a_destination_can_have_waiting_is_given_up(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        hook = await world.webhook("http://127.0.0.1:9/")
        dead = await world.queue("dead")
        await world.rule({**hook, "DeadLetterConfig": {"Arn": dead["Arn"]}})
        await world.put(*(str(number) for number in range(12)))
        await world.go()
        await world.later(40)
        letters = await world.inbox("dead")
        assert {each.attributes["EXHAUSTED_RETRY_CONDITION"]["StringValue"] for each in letters} == {
            "TooManyPendingDeliveries"
        }
        assert (len(letters), await world.pending()) == (2, 10)

    run(tmp_path, facts, max_pending=10)


def test_the_order_of_a_group_is_kept_in_a_fifo_queue_and_nothing_comes_twice(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        fifo = await world.queue("q.fifo", fifo=True)
        await world.rule({**fifo, "SqsParameters": {"MessageGroupId": "g"}})
        await world.put(*"12345")
        await world.router.step()
        # A crash between sending and writing that down: the same is sent again.
        first = (await world.events.due(fifo["Arn"], now=world.clock.now(), limit=1))[0]
        await EventTargets(world.store, world.queues, world.logs, world.clock).deliver(first)
        world.restart()
        await world.go()
        assert [json.loads(m.body)["id"] for m in await world.inbox("q.fifo")] == list("12345")

    run(tmp_path, facts)


def test_targets_may_have_their_own_input(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        await world.logs.create_group(*PLACE, "/aws/events/g")
        template = '{"timestamp": 5, "message": "n is <n>"}'
        await world.rule(
            {**await world.queue("q"), "InputPath": "$.detail"},
            {
                "Id": "log",
                "Arn": GROUP_ARN,
                "InputTransformer": {"InputPathsMap": {"n": "$.detail.n"}, "InputTemplate": template},
            },
        )
        await world.put("1")
        await world.go()
        assert [m.body for m in await world.inbox("q")] == ['{"n":"1"}']
        (line,) = await world.logs.read(*PLACE, "/aws/events/g", "r")
        assert (line.timestamp, line.message) == (5, "n is 1")

    run(tmp_path, facts)


def test_a_request_is_made_of_what_target_and_connection_say(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        parameters = {
            "ApiKeyAuthParameters": {"ApiKeyName": "X-Api-Key", "ApiKeyValue": "secret"},
            "InvocationHttpParameters": {
                "HeaderParameters": [{"Key": "x-own", "Value": "connection"}],
                "QueryStringParameters": [{"Key": "c", "Value": "d e"}],
                "BodyParameters": [{"Key": "more", "Value": "1"}],
            },
        }
        with WebhookServer() as server:
            hook = await world.webhook(f"{server.url}/jobs/*/x?a=b", parameters, method="PUT")
            http = {
                "PathParameterValues": ["$.detail.n"],
                "HeaderParameters": {"X-Own": "target", "X-Name": "$.id"},
                "QueryStringParameters": {"q": "$.detail.n"},
            }
            await world.rule({**hook, "HttpParameters": http})
            await world.put("a/b")
            await world.go()
            (received,) = server.received
        assert (received.method, received.path) == ("PUT", "/jobs/a%2Fb/x?a=b&q=a%2Fb&c=d+e")
        assert received.headers["x-api-key"] == "secret"
        assert (received.headers["x-own"], received.headers["x-name"]) == ("connection", "a/b")
        assert json.loads(received.body) == {**world.event("a/b").envelope, "more": "1"}

    run(tmp_path, facts)


def test_a_token_is_fetched_once_and_again_when_it_is_refused(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        tokens = iter(["first", "second"])

        def answer(received: Received) -> Answer:
            if received.path == "/token":
                return Answer(body=json.dumps({"access_token": next(tokens), "expires_in": 3600}).encode())
            return Answer(401 if "first" in received.headers["authorization"] and refusing else 200)

        refusing: list[bool] = []
        with WebhookServer(answer) as server:
            oauth = {
                "OAuthParameters": {
                    "ClientParameters": {"ClientID": "id", "ClientSecret": "s&cret"},
                    "AuthorizationEndpoint": f"{server.url}/token",
                    "HttpMethod": "POST",
                }
            }
            await world.rule(await world.webhook(f"{server.url}/in", oauth))
            await world.put("1")
            await world.go()
            await world.put("2")
            await world.go()
            refusing.append(True)
            await world.put("3")
            await world.go()
            await world.later(5)
            paths = [(each.path, each.headers.get("authorization")) for each in server.received]
        assert server.received[0].body == b"grant_type=client_credentials&client_id=id&client_secret=s%26cret"
        assert paths == [
            ("/token", None),
            ("/in", "Bearer first"),
            ("/in", "Bearer first"),
            ("/in", "Bearer first"),
            ("/token", None),
            ("/in", "Bearer second"),
        ]
        assert await world.pending() == 0

    run(tmp_path, facts)


def test_nothing_is_lost_when_the_roles_die_between_any_two_steps(tmp_path: Path) -> None:
    async def facts(world: World) -> None:
        with WebhookServer() as server:
            await world.rule(await world.webhook(server.url), await world.queue("q"))
            for number in range(5):
                await world.put(str(number))
                world.restart()
                await world.router.step()
                world.restart()
                if number % 2:
                    await world.delivery.step()
            world.restart()
            await world.go()
            assert sorted(set(names(server.received))) == list("01234")
        assert sorted(json.loads(m.body)["id"] for m in await world.inbox("q")) == list("01234")

    run(tmp_path, facts)
