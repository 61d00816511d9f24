"""What probes, Prometheus and people see: `/metrics`, `/livez`, `/readyz`, the page. Read only; on threads that touch no state.

The loop updates a `Health`, this module reads it. A slow or hostile client costs one of a few threads for a few seconds.
"""

from __future__ import annotations

import base64
import hmac
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from config.settings import HttpSettings
from daemon import logs
from daemon.errors import OperatorError

#: A request has this long to arrive whole, and its answer to be taken.
REQUEST_S = 5.0

#: Between two messages to a viewer, and how long it is followed at most.
EVENT_S, VIEW_S = 2.0, 600.0

#: Requests answered at once; more are turned away.
MOST_REQUESTS = 16

#: Of them, those that may follow the page's events: probes always find a thread.
MOST_VIEWERS = 6

#: The page runs what it brought itself, and talks to where it came from.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

#: Paths that need no password: what starts and stops processes has none, and they tell little.
LIVENESS = ("/livez", "/healthz")
PROBES = (*LIVENESS, "/readyz")

#: What a daemon must have to be ready; `draining` is fine until it drains.
CHECKS = ("joined", "restored", "model", "kafka", "draining")

#: How soon `stop` is noticed.
STOP_POLL_S = 0.05

log = logs.get("http")


class Health:
    """Whether the loop moves and the daemon is ready. The loop writes, other threads read."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeout_s = timeout_s
        self._clock = clock
        self._beat_s = clock()
        self.beats = 0
        self._checks: dict[str, tuple[bool, str]] = dict.fromkeys(CHECKS, (False, "starting"))
        self._checks["draining"] = (True, "")

    def beat(self) -> None:
        """The loop moved."""
        self.beats += 1
        self._beat_s = self._clock()

    def allow(self, seconds: float) -> None:
        """The next beat may take so long: nothing is wrong until then."""
        self.beats += 1
        self._beat_s = self._clock() + seconds

    def excused(self) -> bool:
        """Whether the time that was allowed for the next beat still runs."""
        return self._clock() < self._beat_s

    def silent_s(self) -> float:
        """Seconds since the loop last moved, or since the time ran out that it was allowed."""
        return max(self._clock() - self._beat_s, 0.0)

    def set(self, name: str, ok: bool, why: str = "") -> None:
        """Update a check of `CHECKS`; `why` is shown where it is not ok."""
        if name not in CHECKS:
            raise ValueError(f"no check {name!r}: {', '.join(CHECKS)}")
        self._checks[name] = (ok, why)

    def live(self) -> dict[str, tuple[bool, str]]:
        """The one check of liveness: never because Kafka is away, a restart would not bring it back."""
        silent_s = self.silent_s()
        return {"loop": (silent_s <= self.timeout_s, f"no progress for {silent_s:.0f} s")}

    def ready(self) -> dict[str, tuple[bool, str]]:
        """Every check by name: ok, why not."""
        return dict(self._checks)


class Answer(NamedTuple):
    """What a request gets."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class Viewed(Protocol):
    """The page, as the server knows it."""

    def file(self, path: str) -> Answer | None:
        """One of its files."""
        ...

    def event(self, query: str) -> bytes:
        """What a viewer is told next."""
        ...


def answer(target: str, accept: str, registry: CollectorRegistry, health: Health, page: Viewed | None = None) -> Answer:
    """The answer to a GET of `target` (path and query)."""
    path, _, query = target.partition("?")
    if path == "/metrics":
        encode, content_type = choose_encoder(accept)
        return Answer(200, encode(registry), content_type)
    if path in LIVENESS:
        return _verdict(path, health.live(), query)
    if path == "/readyz":
        return _verdict(path, health.ready(), query)
    file = page.file(path) if page else None
    return file or Answer(404, b"not found: /, /metrics, /livez, /readyz\n")


def _verdict(path: str, checks: dict[str, tuple[bool, str]], query: str) -> Answer:
    """200 or 503; with `?verbose`, or where it fails, a line a check."""
    ok = all(fine for fine, _ in checks.values())
    lines = [f"[+]{name} ok" if fine else f"[-]{name} {why}" for name, (fine, why) in checks.items()]
    if ok and "verbose" not in query.split("&"):
        lines = ["ok"]
    elif not ok:
        lines.append(f"{path.removeprefix('/')} failed")
    return Answer(200 if ok else 503, ("\n".join(lines) + "\n").encode())


class HttpServer:
    """Listens once made, answers once started."""

    def __init__(
        self,
        settings: HttpSettings,
        registry: CollectorRegistry,
        health: Health,
        request_s: float = REQUEST_S,
        page: Viewed | None = None,
    ) -> None:
        """Bind the address.

        Raises:
            OperatorError: The address cannot be had.
        """
        self._stopping = threading.Event()
        context = _tls(settings)
        bound = {
            "authorization": _authorization(settings),
            "registry": registry,
            "health": health,
            "request_s": request_s,
            "page": page,
            "stopping": self._stopping,
        }
        handler = type("Bound", (_Request,), {**bound, "viewers": threading.BoundedSemaphore(MOST_VIEWERS)})
        server_class = _Server6 if ":" in settings.host else _Server
        try:
            self._server = server_class((settings.host, settings.port), handler)
        except OSError as error:
            raise OperatorError(
                f"http.host = {settings.host!r}, http.port = {settings.port} cannot be listened on ({error.strerror}): "
                "set http.port to a free port, or http.host to an address of this machine."
            ) from None
        if context is not None:  # the handshake is the request's thread's, under its deadline
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(STOP_POLL_S,), name="http", daemon=True)

    def start(self) -> None:
        """Answer requests on a thread from now on."""
        self._thread.start()
        log.info("http listening", host=self._server.server_address[0], port=self.port)

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._stopping.set()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def _tls(settings: HttpSettings) -> ssl.SSLContext | None:
    """What HTTPS needs; None without a certificate."""
    if settings.tls_certfile is None or settings.tls_keyfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certfile, settings.tls_keyfile)
    except OSError as error:  # ssl.SSLError is one
        raise OperatorError(
            f"http.tls_certfile = {str(settings.tls_certfile)!r} and its key cannot be used ({error.strerror or error}): "
            "check both files."
        ) from None
    return context


def _authorization(settings: HttpSettings) -> bytes:
    """What the header Authorization must say; empty where nobody is asked."""
    if settings.username is None or settings.password is None:
        return b""
    return b"Basic " + base64.b64encode(f"{settings.username}:{settings.password.get_secret_value()}".encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(MOST_REQUESTS)
        super().__init__(address, handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("request broken off")


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Timed(io.RawIOBase):
    """A socket's bytes until a deadline, however slowly they drip."""

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._connection = connection
        self._deadline_s = deadline_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class _Request(BaseHTTPRequestHandler):
    """One request a connection: HTTP/1.0 keeps none open, so a deadline is all it takes against slow clients."""

    authorization: bytes
    registry: CollectorRegistry
    health: Health
    request_s: float
    page: Viewed | None
    stopping: threading.Event
    viewers: threading.BoundedSemaphore
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Timed(self.connection, time.monotonic() + self.request_s))

    def __getattr__(self, name: str) -> Any:
        """`do_POST` and the like: any other method is refused."""
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _allowed(self) -> bool:
        """Whether the request may be answered; probes always are. Says no where it may not."""
        given = self.headers.get("Authorization", "").encode("utf-8", "replace")
        open_to_all = not self.authorization or self.path.partition("?")[0] in PROBES
        if open_to_all or hmac.compare_digest(given, self.authorization):
            return True
        self._send(Answer(401, b"who are you?\n"), with_body=True)
        return False

    def do_GET(self) -> None:
        if not self._allowed():
            return
        path, _, query = self.path.partition("?")
        if path == "/events" and self.page is not None:
            self._follow(self.page, query)
            return
        self._send(self._answer(), with_body=True)

    def do_HEAD(self) -> None:
        if self._allowed():
            self._send(self._answer(), with_body=False)

    def _follow(self, page: Viewed, query: str) -> None:
        """Server-sent events until the viewer is gone; the browser comes back by itself."""
        if not self.viewers.acquire(blocking=False):
            self._send(Answer(503, b"too many viewers\n"), with_body=True)
            return
        try:
            self.connection.settimeout(self.request_s)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self._page_headers()
            self.end_headers()
            deadline_s = time.monotonic() + VIEW_S
            while time.monotonic() < deadline_s:
                self.wfile.write(page.event(query))
                if self.stopping.wait(EVENT_S):
                    return
        finally:
            self.viewers.release()

    def _page_headers(self) -> None:
        for name, value in PAGE_HEADERS.items():
            self.send_header(name, value)

    def _refuse(self) -> None:
        self._send(Answer(405, b"read only: GET or HEAD\n"), with_body=True)

    def _answer(self) -> Answer:
        try:
            return answer(self.path, self.headers.get("Accept", ""), self.registry, self.health, self.page)
        except Exception:  # a probe must get an answer, and a client no stack trace
            log.exception("request failed", path=self.path)
            return Answer(500, b"internal error: see the log\n")

    def _send(self, answered: Answer, with_body: bool) -> None:
        self.connection.settimeout(self.request_s)
        self.send_response(answered.status)
        self.send_header("Content-Type", answered.content_type)
        self.send_header("Content-Length", str(len(answered.body)))
        if answered.content_type.startswith("text/") and not answered.content_type.startswith("text/plain"):
            self._page_headers()
        if answered.status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="recurd", charset="UTF-8"')
        if answered.status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if with_body:
            self.wfile.write(answered.body)

    def version_string(self) -> str:
        return "recurd"

    def log_message(self, format: str, *args: object) -> None:
        log.debug("request", line=format % args)
