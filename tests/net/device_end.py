"""The device's end of a shaped link, run inside a network namespace (see conftest.py).

Reads one JSON line per change of the link from standard input and answers with what the kernel says
is in force. Meanwhile it serves messages: 8 bytes of request (how much follows, how much to send
back), then the time at which all had arrived, the time of the answer, and the answer.
"""

import dataclasses
import json
import socket
import struct
import sys
import threading
import time

from orchestrator.state import Direction
from services.device.shaper import Shaper
from services.radio import interface


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
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        size, back = struct.unpack("!II", read_exactly(connection, 8))
        read_exactly(connection, size)
        received_s = time.monotonic()
        connection.sendall(struct.pack("!dd", received_s, time.monotonic()) + bytes(back))


def main(address: str) -> None:
    shaper = Shaper(interface(address))
    listener = socket.create_server((address, 5000))
    threading.Thread(target=serve, args=[listener], daemon=True).start()
    print(json.dumps({"backend": shaper.backend}), flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        applied = shaper.apply(Direction(**wanted["down"]), Direction(**wanted["up"]))
        print(json.dumps(dataclasses.asdict(applied)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
