"""A process that serves HTTP as the base station does, and traces two requests."""

from __future__ import annotations

import time
from typing import Any

from services import settings
from services.bs import __main__ as station
from services.bs.tracing import otlp


def trace(operation: str) -> None:
    """Trace a request that ends at once."""
    assert traces is not None, "the environment names a collector"
    request = traces.begin({}, operation, time.monotonic(), {})
    assert request is not None, "every request is sampled"
    request.end(time.monotonic())


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Trace one request at startup and one at shutdown."""
    await receive()
    trace("first")
    await send({"type": "lifespan.startup.complete"})
    print("serving", flush=True)
    await receive()
    trace("last")
    await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    settings.BS_HTTP_PORT = 0
    otlp._LAST_S = 300.0  # a busy host's exporter takes its time
    traces = station.otlp("tiny")
    station.serve(app, traces)
