"""A process that serves HTTP as the base station does, and prints its port."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any

from services import settings
from services.bs import __main__ as station


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with an empty 200 response."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return
    await send(
        {"type": "http.response.start", "status": 200, "headers": [[b"content-length", b"0"]]}
    )
    await send({"type": "http.response.body"})


def print_port_once_open() -> None:
    """The reader connects at once."""
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", settings.BS_HTTP_PORT)):
            print(settings.BS_HTTP_PORT, flush=True)
            return
        time.sleep(0.01)


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        settings.BS_HTTP_PORT = free.getsockname()[1]
    threading.Thread(target=print_port_once_open, daemon=True).start()
    station.serve(app, None)
