"""The device's end of a shaped link, run inside a network namespace (see conftest.py).

Reads one JSON command per line from standard input and answers each with a line, {"error": …} if
the shaper fails:

    {"shape": {"down": …, "up": …}}    the kernel's settings, after shaping
    {"read": {}}                       the kernel's settings, unchanged
    {"send": {"n": …, "size": …}}      null, once the datagrams have been sent
    {"arrivals": {}}                   the datagrams that have arrived, [number, time] each

At the same time it serves messages. A request has 8 bytes (number of bytes that follow, number of
bytes to send back) and its data; the reply has the time at which the data had arrived, the time of
the reply, and its data.
"""

import dataclasses
import json
import socket
import struct
import sys
import threading
import time
from typing import Any

from orchestrator.contracts.channel_state import Direction
from orchestrator.errors import StackError
from services.device.link.shaper import Applied, Shaper
from services.net.radio_interface import interface
from tests.net import datagrams

PORT = 5000


def pin(connection: socket.socket) -> None:
    """Send without delay, and with the same congestion control on every host."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


def read_exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def serve(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    pin(connection)
    while header := connection.recv(8, socket.MSG_WAITALL):
        size, back = struct.unpack("!II", header)
        read_exactly(connection, size)
        received_s = time.monotonic()
        connection.sendall(struct.pack("!dd", received_s, time.monotonic()) + bytes(back))


def queues(applied: Applied) -> dict[str, Any]:
    return {"down": dataclasses.asdict(applied.down), "up": dataclasses.asdict(applied.up)}


def main(address: str, host: str) -> None:
    shaper = Shaper(lambda: interface(address))
    listener = socket.create_server((address, PORT))
    threading.Thread(target=serve, args=[listener], daemon=True).start()
    arrivals = datagrams.Arrivals(address)

    def answer(command: str, options: dict[str, Any]) -> Any:
        match command:
            case "shape":
                down, up = Direction(**options["down"]), Direction(**options["up"])
                return queues(shaper.apply(down, up))
            case "read":
                return queues(shaper.read())
            case "send":
                return datagrams.send(host, **options)
            case "arrivals":
                return arrivals.seen
        raise ValueError(command)

    print(json.dumps({"backend": shaper.backend}), flush=True)
    for line in sys.stdin:
        for command, options in json.loads(line).items():
            try:
                reply = answer(command, options)
            except StackError as error:
                reply = {"error": str(error)}
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
