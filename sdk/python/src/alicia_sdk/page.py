"""`GET /health` over HTTP on 127.0.0.1: 200 when the service works, 503 when it does not."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

from .settings import ConfigurationError

CONNECTIONS_MAX = 16
"""Probes come one at a time; more than this are not probes and are closed at once."""

REQUEST_TIMEOUT_S = 5.0
"""How long a client may take to send its request."""

Answer = Callable[[], "tuple[bool, dict[str, Any]]"]


class HealthPage:
    """The server. It runs on threads of its own, so that no handler of the service can block it."""

    def __init__(self, port: int, answer: Answer) -> None:
        try:
            self._server = _Server(port, answer)
        except OSError as error:
            raise ConfigurationError(f"PORT: cannot listen on 127.0.0.1:{port}: {error.strerror}") from error
        # Half a second is how long `shutdown` may wait for the loop to look.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.5,), name="alicia-health-page", daemon=True
        )

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Closes the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, answer: Answer) -> None:
        self.answer = answer
        self._room = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A probe that hangs up early is nobody's fault."""


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    server: _Server
    server_version = "alicia-sdk"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/health":
            self._send(404, {"status": 404, "title": "No such page", "detail": "try /health"})
            return
        well, body = self.server.answer()
        self._send(200 if well else 503, body)

    do_HEAD = do_GET

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes are not news."""
