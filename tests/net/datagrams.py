"""Numbered UDP datagrams over the link, to record which arrive, in which order, and when."""

import socket
import struct
import threading
import time

PORT = 5001
FULL_BYTES = 1472
# Bytes on the wire of a datagram of FULL_BYTES: UDP, IP and Ethernet headers.
FULL_WIRE_BYTES = 1514
_NUMBER = struct.Struct("!I")
# Linux socket options for root, which Python does not name.
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
# Large enough that neither end's socket buffer limits or drops a test's datagrams.
_BUFFER_BYTES = 1 << 26


def send(address: str, n: int, size: int = FULL_BYTES) -> None:
    """Send n datagrams of `size` bytes, numbered from 0, as fast as the host can."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
        for number in range(n):
            sender.sendto(_NUMBER.pack(number).ljust(size, b"\0"), (address, PORT))


class Arrivals(threading.Thread):
    """Receives datagrams until closed; `seen` has (number, CLOCK_MONOTONIC [s]) of each."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[int, float]] = []
        self._open = True
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.settimeout(0.1)
        self._socket.bind((address, PORT))
        self.start()

    def run(self) -> None:
        with self._socket:
            while self._open:
                try:
                    data = self._socket.recv(FULL_BYTES)
                except TimeoutError:
                    continue
                self.seen.append((_NUMBER.unpack_from(data)[0], time.monotonic()))

    def close(self) -> None:
        self._open = False
        self.join()
