"""The stack's own cost of a message: the same bytes through ZeroMQ and CURVE, on loopback.

    radio      encrypt all ─► packet ─► packet ─► … ─► packet ─► decrypt all
    loopback   encrypt all ─────────────► one ────────────────► decrypt all

A large message's packets are worked on while others are on the air, but it is encrypted before the
first of them leaves and decrypted after the last has come: no air hides that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import zmq

from services.net import wire

_ADDRESS = "tcp://127.0.0.1"


class Loopback:
    """Two sockets of this process; used by one thread only."""

    def __init__(self, curve: bool) -> None:
        # Not the radio's: no keys are checked. And the process's, which outlives its sockets: a
        # context that is collected together with them waits for them forever.
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._here, self._there = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        if curve:
            public, secret = zmq.curve_keypair()
            for socket in (self._here, self._there):
                socket.curve_publickey, socket.curve_secretkey = public, secret
            self._here.curve_server = True
            self._there.curve_serverkey = public
        port = self._here.bind_to_random_port(_ADDRESS)
        self._there.connect(f"{_ADDRESS}:{port}")

    def time_s(self, frames: Sequence[wire.Buffer]) -> float:
        """How long a message takes from one socket to the other."""
        sent_s = time.monotonic()
        self._there.send_multipart(frames)
        self._here.recv_multipart(copy=False)
        return time.monotonic() - sent_s
