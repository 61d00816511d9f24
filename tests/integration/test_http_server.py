"""The HTTP port on a real socket: methods, slow and many clients."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from config.settings import HttpSettings
from daemon.errors import OperatorError
from daemon.http import MOST_REQUESTS, MOST_VIEWERS, Answer, Health, HttpServer

REQUEST_S = 1.0


class Broken(Collector):
    """A metric that fails when scraped."""

    def describe(self) -> list[object]:
        return []

    def collect(self) -> list[object]:  # type: ignore[override]
        raise RuntimeError("a secret detail")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


class Words:
    """A page of one file, which says what it was asked."""

    def file(self, path: str) -> Answer | None:
        return Answer(200, b"<p>hello</p>", "text/html; charset=utf-8") if path == "/" else None

    def event(self, query: str) -> bytes:
        return b"data: " + query.encode() + b"\n\n"


@pytest.fixture
def port(registry: CollectorRegistry) -> Iterator[int]:
    server = HttpServer(HttpSettings(port=0), registry, Health(30.0), request_s=REQUEST_S, page=Words())
    server.start()
    yield server.port
    server.stop()


def ask(port: int, method: str, path: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


def until_closed(client: socket.socket) -> bytes:
    client.settimeout(10)
    received = b""
    try:
        while chunk := client.recv(4096):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_get_and_head(port: int) -> None:
    """HEAD answers like GET, without a body; the server names no version of anything."""
    status, body, headers = ask(port, "GET", "/livez")
    assert (status, body) == (200, b"ok\n")
    assert headers["Server"] == "recurd"
    status, body, headers = ask(port, "HEAD", "/livez")
    assert (status, body, headers["Content-Length"]) == (200, b"", "3")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_refused(port: int, method: str) -> None:
    """The port is read only."""
    status, _, headers = ask(port, method, "/livez")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_failure_shows_no_stack(port: int, registry: CollectorRegistry) -> None:
    """A scrape that fails gets 500 and no word of why, and the next request is answered."""
    registry.register(Broken())
    status, body, _ = ask(port, "GET", "/metrics")
    assert (status, body) == (500, b"internal error: see the log\n")
    assert ask(port, "GET", "/livez")[0] == 200


def test_dripping_client_is_cut_off(port: int) -> None:
    """A request that does not arrive whole in time is cut off, though every byte came soon after the one before."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        started_s = time.monotonic()
        with suppress(OSError):
            for _ in range(20 * 10):
                client.sendall(b"X")
                time.sleep(REQUEST_S / 20)
        assert time.monotonic() - started_s < 5 * REQUEST_S


def test_garbage_gets_an_error(port: int) -> None:
    """What is no HTTP gets a plain 400."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"\x16\x03\x01 GARBAGE \x00\r\n\r\n")
        assert b"400" in until_closed(client)


def test_many_idle_clients_cost_a_bounded_number_of_threads(port: int) -> None:
    """Clients beyond the limit are turned away at once, and the port answers again when the others have timed out."""
    with ExitStack() as opened:
        clients = [opened.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(MOST_REQUESTS + 5)]
        started_s = time.monotonic()
        assert until_closed(clients[-1]) == b""
        assert time.monotonic() - started_s < REQUEST_S
        for client in clients:
            until_closed(client)
    assert ask(port, "GET", "/livez")[0] == 200


def test_taken_port_is_a_sentence(port: int) -> None:
    """A port that another process has is the operator's to mend."""
    with pytest.raises(OperatorError, match=rf"http.port = {port} cannot be listened on .*set http.port to a free port"):
        HttpServer(HttpSettings(port=port), CollectorRegistry(), Health(30.0))


def viewer(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.settimeout(10)
    client.sendall(b"GET /events?search=pump HTTP/1.0\r\n\r\n")
    return client


def test_the_page_runs_only_what_it_brought(port: int) -> None:
    """Its files come with a policy that lets in nothing from elsewhere; probes come without."""
    status, body, headers = ask(port, "GET", "/")
    assert (status, body) == (200, b"<p>hello</p>")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Content-Security-Policy" not in ask(port, "GET", "/livez")[2]


def test_viewers_are_followed_and_few(port: int) -> None:
    """A viewer gets what it asked for, again and again; one too many is turned away, and probes are answered all the while."""
    with ExitStack() as opened:
        viewers = [opened.enter_context(viewer(port)) for _ in range(MOST_VIEWERS)]
        for each in viewers:
            received = b""
            while b"data: search=pump\n\n" not in received:
                received += each.recv(4096)
            assert b"text/event-stream" in received
        with viewer(port) as late:
            assert b"503" in until_closed(late)
        assert ask(port, "GET", "/livez")[0] == 200
        assert viewers[0].recv(4096) == b"data: search=pump\n\n"
