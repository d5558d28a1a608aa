"""The link agent: hears the channel state, shapes the radio interface at its time, and reports.

orchestrator ──XPUB──► SUB [ wait until apply_at ] ──► Shaper ──► PUSH ──► orchestrator
"""

from __future__ import annotations

import contextlib
import threading
import time

import msgpack
import zmq

from orchestrator import state
from orchestrator.errors import StackError
from orchestrator.metrics import DeviceMetrics
from services.device.shaper import Shaper
from services.secure import secure_client
from services.settings import REPORT_PORT, STATE_PORT, Settings

REPORT_VERSION = 1
_SPIN_S = 0.0003


class LinkAgent(threading.Thread):
    """Keeps one device's link as the orchestrator wants it, from the first state it hears on."""

    def __init__(
        self,
        settings: Settings,
        device: int,
        shaper: Shaper,
        metrics: DeviceMetrics,
        context: zmq.Context[zmq.Socket[bytes]],
    ) -> None:
        super().__init__(name="link-agent", daemon=True)
        self.shaped = threading.Event()
        self.error: str | None = None
        self.current: state.ChannelState | None = None
        self._device = device
        self._shaper = shaper
        self._metrics = metrics
        self._pending: list[state.ChannelState] = []
        self._newest = (-1, -1)
        host = settings.orchestrator_host
        self._states = context.socket(zmq.SUB)
        self._reports = context.socket(zmq.PUSH)
        for socket, port in ((self._states, STATE_PORT), (self._reports, REPORT_PORT)):
            socket.setsockopt(zmq.LINGER, 0)
            if settings.curve:
                secure_client(socket, settings, f"device-{device}", "orchestrator")
            socket.connect(f"tcp://{host}:{port}")
        self._states.setsockopt(zmq.MAXMSGSIZE, state.MAX_STATE_BYTES)
        self._states.subscribe(b"")
        metrics.link_backend.info({"backend": shaper.backend})

    def run(self) -> None:
        """Forever: take states in, apply each at its deadline."""
        while True:
            if self._states.poll(self._wait_ms()):
                self._hear(self._states.recv())
            elif self._pending:
                self._apply(self._pending.pop(0))

    def _wait_ms(self) -> int:
        """Until shortly before the next deadline; the last fraction is slept off in `_apply`."""
        if not self._pending:
            return 1000
        return max(0, int((self._pending[0].apply_at_s - time.time()) * 1e3))

    def _hear(self, data: bytes) -> None:
        try:
            heard = state.decode(data)
            if self._device >= len(heard.devices):
                raise ValueError(f"state has {len(heard.devices)} devices")
        except ValueError as error:
            self._metrics.link_errors_total.inc()
            print(f"device-{self._device}: state refused: {error}", flush=True)
            return
        if heard.order <= self._newest:
            return
        self._newest = heard.order
        # A new profile takes the place of what the old one still had announced beyond its start.
        self._pending = [s for s in self._pending if s.apply_at_s < heard.apply_at_s] + [heard]

    def _apply(self, wanted: state.ChannelState) -> None:
        wait_until(wanted.apply_at_s)
        mine = wanted.devices[self._device]
        try:
            applied = self._shaper.apply(mine.down, mine.up)
            self.error = None
        except StackError as error:
            self.error = str(error)
            self._metrics.link_errors_total.inc()
        else:
            now = time.time()
            self.current = wanted
            self.shaped.set()
            self._metrics.interval_lateness_seconds.observe(max(0.0, now - wanted.apply_at_s))
            self._export("down", applied.down_bps)
            self._export("up", applied.up_bps)
        self._report(wanted)

    def _export(self, direction: str, rate_bps: float | None) -> None:
        gauge = self._metrics.link_applied_rate_bps
        if rate_bps is None:
            gauge.remove(direction)
        else:
            gauge.labels(direction).set(rate_bps)

    def _report(self, wanted: state.ChannelState) -> None:
        report = {
            "v": REPORT_VERSION,
            "device": self._device,
            "backend": self._shaper.backend,
            "epoch": wanted.epoch,
            "interval": wanted.interval,
            "applied_at_s": time.time(),
            "error": self.error and self.error[:256],
        }
        with contextlib.suppress(zmq.Again):  # the orchestrator is away
            self._reports.send(msgpack.packb(report), zmq.NOBLOCK)


def wait_until(deadline_s: float) -> None:
    """Sleep, then spin to a Unix time: plain sleeping is late by up to 0.1 ms."""
    while (left := deadline_s - time.time()) > 0:
        if left > _SPIN_S:
            time.sleep(left - _SPIN_S)
