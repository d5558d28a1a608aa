"""The channel state as the base station knows it: what devices apply, at the same times."""

from __future__ import annotations

import time

import zmq

from orchestrator import state
from orchestrator.metrics import BsMetrics
from services.secure import secure_client
from services.settings import STATE_PORT, Settings


class ChannelWatch:
    """Hears states and tells which one is in force; used by the engine's thread only."""

    def __init__(
        self, settings: Settings, metrics: BsMetrics, context: zmq.Context[zmq.Socket[bytes]]
    ) -> None:
        self.socket = context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, state.MAX_STATE_BYTES)
        if settings.curve:
            secure_client(self.socket, settings, "bs", "orchestrator")
        self.socket.connect(f"tcp://{settings.orchestrator_host}:{STATE_PORT}")
        self.socket.subscribe(b"")
        self._metrics = metrics
        self._devices = settings.devices
        self._states: list[state.ChannelState] = []

    def take_in(self) -> None:
        """Read what has arrived."""
        while self.socket.poll(0):
            try:
                heard = state.decode(self.socket.recv())
                if len(heard.devices) != self._devices:
                    raise ValueError(f"state has {len(heard.devices)} devices")
            except ValueError:
                self._metrics.refused_messages_total.labels("state").inc()
                continue
            if not self._states or heard.order > self._states[-1].order:
                self._states = [s for s in self._states if s.apply_at_s < heard.apply_at_s]
                self._states.append(heard)

    def current(self) -> state.ChannelState | None:
        """The state whose time has come last; None before the first."""
        now = time.time()
        while len(self._states) > 1 and self._states[1].apply_at_s <= now:
            self._states.pop(0)
        if self._states and self._states[0].apply_at_s <= now:
            return self._states[0]
        return None
