"""A process that serves HTTP as the base station does, and prints its port."""

from __future__ import annotations

import socket
from typing import Any

from services import settings
from services.bs import __main__ as station


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers all requests alike."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        print(settings.BS_HTTP_PORT, flush=True)
        await receive()
        return
    await send(
        {"type": "http.response.start", "status": 200, "headers": [[b"content-length", b"0"]]}
    )
    await send({"type": "http.response.body"})


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        settings.BS_HTTP_PORT = free.getsockname()[1]
    station.serve(app, None)
