"""Hearing the channel state: base station and devices hear the same states, for the same times.

orchestrator ──XPUB──► SUB [ announced, in their order ──apply_at_s──► in force ]
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import zmq

from orchestrator.contracts import channel_state
from services.net.curve import secure_client
from services.settings import Settings

# Of the states that have been in force, as many are remembered.
HISTORY = 1024


class ChannelFeed:
    """The states that were announced and are not in force yet; used by one thread only."""

    def __init__(
        self,
        settings: Settings,
        own: str,
        refused: Callable[[ValueError], None],
        context: zmq.Context[zmq.Socket[bytes]],
    ) -> None:
        """Subscribe as `own` (a key's name); `refused` is told of what is no such state."""
        self.announced: list[channel_state.ChannelState] = []
        self.socket = context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, channel_state.MAX_STATE_BYTES)
        if settings.curve:
            secure_client(self.socket, settings, own, "orchestrator")
        self.socket.connect(f"tcp://{settings.orchestrator_host}:{channel_state.STATE_PORT}")
        self.socket.subscribe(b"")
        self._devices = settings.devices
        self._refused = refused
        self._newest = (-1, -1)
        self._past: deque[channel_state.ChannelState] = deque(maxlen=HISTORY)

    def take_in(self) -> None:
        """Read what has arrived."""
        while self.socket.poll(0):
            self._hear(self.socket.recv())

    def current(self) -> channel_state.ChannelState | None:
        """The state whose time has come last; None before the first."""
        while self.announced and self.announced[0].apply_at_s <= time.time():
            self._past.append(self.announced.pop(0))
        return self._past[-1] if self._past else None

    def since(self, start_s: float) -> list[channel_state.ChannelState]:
        """The states in force from a Unix time until now; none if that is too long ago to know."""
        self.current()
        known = list(self._past)
        while len(known) > 1 and known[1].apply_at_s <= start_s:
            del known[0]
        return known if known and known[0].apply_at_s <= start_s else []

    def _hear(self, data: bytes) -> None:
        try:
            heard = channel_state.decode(data)
            if len(heard.devices) != self._devices:
                raise ValueError(f"state has {len(heard.devices)} devices, not {self._devices}")
        except ValueError as error:
            self._refused(error)
            return
        if heard.order > self._newest:
            self._newest = heard.order
            # A new profile takes the place of what the old one had announced beyond its start.
            kept = [s for s in self.announced if s.apply_at_s < heard.apply_at_s]
            self.announced = [*kept, heard]
