"""A device's HTTP server on the control network: /metrics for Prometheus, /healthz for Docker."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.settings import DEVICE_HTTP_PORT


class Health(NamedTuple):
    """What /healthz reports; the status is 503 unless the device is `ready`."""

    device: int
    admitted: bool
    backend: str
    link_fault: str | None

    @property
    def ready(self) -> bool:
        """The base station has admitted it, and its link is as requested."""
        return self.admitted and self.link_fault is None


def serve(health: Callable[[], Health], port: int = DEVICE_HTTP_PORT) -> None:
    """Serve in the background."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
            elif self.path == "/healthz":
                found = health()
                body = json.dumps(found._asdict()).encode()
                self._answer(200 if found.ready else 503, "application/json", body)
            else:
                self._answer(404, "text/plain", b"/metrics and /healthz are served here\n")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            with contextlib.suppress(ConnectionError):  # the client did not wait
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: scrapes every two seconds would bury what matters."""

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
