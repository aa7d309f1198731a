"""The run over HTTP, for people and for Prometheus: read only, and never in the flow's way.

At most CONNECTIONS_MAX requests at a time, each on a thread of its own and over within REQUEST_SECONDS_MAX, however
slow its client is. On a loopback address only requests for a loopback name are answered, so that no web page that the
operator has open can read them under a name of its own (DNS rebinding).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from io import BufferedIOBase
from types import TracebackType
from typing import Any, Final, Self, cast

from prometheus_client.exposition import choose_encoder

from applier.connection import is_loopback
from applier.errors import UsageError
from applier.observe.collector import registry_of
from applier.observe.health import unready, unwell
from applier.observe.observer import Observer
from applier.observe.snapshot import history, snapshot

log = logging.getLogger(__name__)

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 9465
CONNECTIONS_MAX: Final = 16
BACKLOG: Final = 64
REQUEST_SECONDS_MAX: Final = 10.0
READ_SECONDS: Final = 5.0
REQUEST_BYTES_MAX: Final = 16384

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one request."""

    body: bytes
    content_type: str = TEXT
    status: HTTPStatus = HTTPStatus.OK


Route = Callable[[Mapping[str, str]], Answer]


def parse_listen(text: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT`, `[HOST]:PORT`, `:PORT` or `PORT`; loopback without a host. Raises UsageError."""
    host, _, port = text.rpartition(":")
    try:
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise UsageError(
            detail=f"{text!r} is no address to listen on: HOST:PORT, as in {DEFAULT_HOST}:{DEFAULT_PORT}"
        )
    return host.strip("[]") or DEFAULT_HOST, number


class HttpServer:
    """Serves while the block runs. `address` is what it listens on."""

    def __init__(
        self, observer: Observer, host: str, port: int, *, lag_seconds_max: float | None = None
    ) -> None:
        """`lag_seconds_max`: more, and `/readyz` says no. Raises UsageError when the address cannot be had."""
        try:
            self._server = _Server(
                (host, port), routes(observer, lag_seconds_max), check_host=is_loopback(host)
            )
        except OSError as error:
            raise UsageError(detail=f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        bound = self._server.server_address[1]
        self.address = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
        observer.serves(self.address)
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        log.info("listening", extra={"http": self.address})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def routes(observer: Observer, lag_seconds_max: float | None) -> dict[str, Route]:
    """What is served: the paths, each with what makes its answer from the request's headers."""
    registry = registry_of(observer)

    def metrics(headers: Mapping[str, str]) -> Answer:
        encode, content_type = choose_encoder(headers.get("Accept", ""))
        return Answer(encode(registry), content_type)

    def told(wrong: str) -> Answer:
        status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
        return Answer(((wrong or "ok") + "\n").encode(), TEXT, status)

    found: dict[str, Route] = {
        "/metrics": metrics,
        "/healthz": lambda _: told(unwell(observer)),
        "/readyz": lambda _: told(unready(observer, lag_seconds_max)),
        "/status": lambda _: _json(snapshot(observer).as_dict()),
        "/history": lambda _: _json(asdict(history(observer))),
    }
    found["/"] = lambda _: Answer(("\n".join(sorted(found)) + "\n").encode())
    return found | _page()


def _page() -> dict[str, Route]:
    """The files of the live page, read once; the page itself is `/`."""
    folder = resources.files("applier.observe") / "page"
    if not folder.is_dir():
        return {}
    served: dict[str, Route] = {}
    for file in folder.iterdir():
        content_type = TYPES.get("." + file.name.rpartition(".")[2])
        if content_type is not None:
            served["/" if file.name == "index.html" else f"/{file.name}"] = _always(
                Answer(file.read_bytes(), content_type)
            )
    return served


def _always(answer: Answer) -> Route:
    return lambda headers: answer


def _json(value: Any) -> Answer:
    return Answer(json.dumps(value, separators=(",", ":")).encode(), JSON)


class _Server(HTTPServer):
    """Threads, deadlines, and how many; see the module."""

    request_queue_size = BACKLOG
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], routes: Mapping[str, Route], *, check_host: bool) -> None:
        self.routes = routes
        self.check_host = check_host
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._open: dict[socket.socket, float] = {}  # with the moment when it is cut
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the look-up of our own name that the library does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Called by the accepting thread; must not wait."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self._open[request] = time.monotonic() + REQUEST_SECONDS_MAX
        threading.Thread(
            target=self._serve, args=(request, client_address), name="http-request", daemon=True
        ).start()

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except (OSError, ValueError):
            pass  # the client has gone, or was too slow
        except Exception:
            log.exception("a request failed")
        finally:
            self._open.pop(request, None)
            self.shutdown_request(request)
            self._free.release()

    def service_actions(self) -> None:
        """Every half second: cuts those that take too long."""
        now = time.monotonic()
        for request, deadline in list(self._open.items()):
            if now > deadline:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


class _Limited:
    """The first bytes of a request, up to a limit that no honest one reaches."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self._left = REQUEST_BYTES_MAX

    def readline(self, limit: int = -1) -> bytes:
        if self._left <= 0:
            raise HTTPException("the request is too large")  # which the library answers with 431
        line = self._file.readline(min(self._left, limit) if limit >= 0 else self._left)
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed


class _Handler(BaseHTTPRequestHandler):
    """One request, then the connection is closed (HTTP/1.0)."""

    timeout = READ_SECONDS
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile = cast(Any, _Limited(self.rfile))

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        answer = self._found()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _found(self) -> Answer:
        if self.server.check_host and not _names_loopback(self.headers.get("Host", "")):
            return Answer(b"ask for this machine by localhost or 127.0.0.1\n", TEXT, HTTPStatus.FORBIDDEN)
        route = self.server.routes.get(self.path.partition("?")[0])
        if route is None:
            return Answer(b"there is no such page\n", TEXT, HTTPStatus.NOT_FOUND)
        return route(dict(self.headers.items()))

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        return "applier"

    def log_message(self, format: str, *arguments: Any) -> None:
        log.debug("request", extra={"client": self.client_address[0], "line": format % arguments})


def _names_loopback(host: str) -> bool:
    """Of a Host header, with or without port."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
