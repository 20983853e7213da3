"""A request to a webhook ends within its time, whatever the other side does."""

from __future__ import annotations

import asyncio
import socket

import pytest

from clary.event_bus.webhook import BadRequest, WebhookFailed, WebReply, WebRequest, send
from clary.testing.webhooks import Answer, WebhookServer


def exchange(request: WebRequest, timeout_seconds: float = 20) -> WebReply:
    return asyncio.run(send(request, timeout_seconds=timeout_seconds))


def test_a_request_arrives_whole() -> None:
    with WebhookServer(lambda _: Answer(201, {"X-Some": "thing"}, b"made")) as server:
        reply = exchange(
            WebRequest("POST", f"{server.url}/a%20b?c=d", [("X-Key", "k\xe4")], "körper".encode())
        )
    assert (reply.status, reply.headers["x-some"], reply.body) == (201, "thing", b"made")
    (received,) = server.received
    assert (received.method, received.path) == ("POST", "/a%20b?c=d")
    assert received.body.decode() == "körper"
    assert received.headers["host"] == server.url.removeprefix("http://")


def test_a_redirect_is_an_answer_and_nothing_is_followed() -> None:
    with WebhookServer() as other, WebhookServer(lambda _: Answer(302, {"Location": other.url})) as server:
        assert exchange(WebRequest("POST", server.url)).status == 302
        assert other.received == []


def test_one_who_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(WebhookFailed) as failed:
            exchange(WebRequest("POST", url), timeout_seconds=0.2)
    assert failed.value.kind == "TIMEOUT"
    assert "did not answer within 0.2 seconds" in failed.value.message


def test_one_who_is_not_there_is_told_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(WebhookFailed) as failed:
        exchange(WebRequest("POST", f"http://127.0.0.1:{port}/x"))
    assert failed.value.kind == "CONNECTION_FAILURE"
    assert f"127.0.0.1:{port}" in failed.value.message


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"garbage\r\n\r\n", "INVALID_REPLY"),
        (b"", "CONNECTION_FAILURE"),
        (b"HTTP/1.1 200 OK\r\nX: y", "CONNECTION_FAILURE"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000, "INVALID_REPLY"),
    ],
)
def test_what_is_no_reply_is_a_failure(raw: bytes, kind: str) -> None:
    with WebhookServer(lambda _: Answer(raw=raw)) as server, pytest.raises(WebhookFailed) as failed:
        exchange(WebRequest("POST", server.url))
    assert failed.value.kind == kind


def test_little_is_read_of_a_reply_without_end() -> None:
    with WebhookServer(lambda _: Answer(body=b"x" * 5_000_000)) as server:
        reply = exchange(WebRequest("POST", server.url))
    assert (reply.status, len(reply.body)) == (200, 65_536)


def test_a_body_that_ends_with_the_connection_is_read() -> None:
    with WebhookServer(lambda _: Answer(raw=b"HTTP/1.0 200 OK\r\n\r\nthe end")) as server:
        assert exchange(WebRequest("GET", server.url)).body == b"the end"


@pytest.mark.parametrize(
    "request_",
    [
        WebRequest("POST", "ftp://host/"),
        WebRequest("POST", "http:///path"),
        WebRequest("POST", "http://user:password@host/"),
        WebRequest("POST", "http://host:99999/"),
        WebRequest("POST", "http://host/with space"),
        WebRequest("POST", "http://host/\r\nX: y"),
        WebRequest("PO ST", "http://host/"),
        WebRequest("POST", "http://host/", [("X\r\nY", "z")]),
        WebRequest("POST", "http://host/", [("X", "a\r\nEvil: b")]),
    ],
)
def test_what_would_break_out_of_its_line_is_not_sent(request_: WebRequest) -> None:
    with pytest.raises(BadRequest):
        exchange(request_)
