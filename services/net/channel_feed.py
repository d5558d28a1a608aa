"""The channel state feed: base station and devices receive the same states, for the same times.

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

# The number of past states that are kept.
HISTORY = 1024


class ChannelFeed:
    """The channel states that the orchestrator has announced; used by one thread only."""

    def __init__(
        self,
        settings: Settings,
        key: str,
        on_invalid: Callable[[ValueError], None],
        context: zmq.Context[zmq.Socket[bytes]],
    ) -> None:
        """Subscribe with a `key`; `on_invalid` receives the error of each invalid state."""
        self.announced: list[channel_state.ChannelState] = []
        self.socket = context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, channel_state.MAX_STATE_BYTES)
        if settings.curve:
            secure_client(self.socket, settings, key, "orchestrator")
        self.socket.connect(f"tcp://{settings.orchestrator_host}:{channel_state.STATE_PORT}")
        self.socket.subscribe(b"")
        self._devices = settings.devices
        self._on_invalid = on_invalid
        self._newest = (-1, -1)
        self._past: deque[channel_state.ChannelState] = deque(maxlen=HISTORY)

    def take_in(self) -> None:
        """Read the states that have arrived."""
        while self.socket.poll(0):
            self._hear(self.socket.recv())

    def current(self) -> channel_state.ChannelState | None:
        """Return the state in force; None before the first."""
        while self.announced and self.announced[0].apply_at_s <= time.time():
            self._past.append(self.announced.pop(0))
        return self._past[-1] if self._past else None

    def since(self, start_s: float) -> list[channel_state.ChannelState]:
        """Return the states in force since a Unix time; none if it is too long ago."""
        self.current()
        known = list(self._past)
        while len(known) > 1 and known[1].apply_at_s <= start_s:
            del known[0]
        return known if known and known[0].apply_at_s <= start_s else []

    def _hear(self, data: bytes) -> None:
        try:
            state = channel_state.decode(data)
            if len(state.devices) != self._devices:
                raise ValueError(f"state has {len(state.devices)} devices, not {self._devices}")
        except ValueError as error:
            self._on_invalid(error)
            return
        if state.order > self._newest:
            self._newest = state.order
            # A new profile replaces the states that the old one had announced for after its start.
            kept = [s for s in self.announced if s.apply_at_s < state.apply_at_s]
            self.announced = [*kept, state]
