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
from services.channel import ChannelFeed
from services.device.shaper import Shaper
from services.device.wait import wait_until
from services.secure import secure_client
from services.settings import Settings

REPORT_VERSION = 1


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
        own = f"device-{device}"
        self._feed = ChannelFeed(settings, own, self._refused, context)
        self._reports = context.socket(zmq.PUSH)
        self._reports.setsockopt(zmq.LINGER, 0)
        if settings.curve:
            secure_client(self._reports, settings, own, "orchestrator")
        self._reports.connect(f"tcp://{settings.orchestrator_host}:{state.REPORT_PORT}")
        metrics.link_backend.info({"backend": shaper.backend})

    def run(self) -> None:
        """Forever: take states in, apply each at its deadline."""
        while True:
            announced = self._feed.announced
            if self._feed.socket.poll(_wait_ms(announced[0]) if announced else None):
                self._feed.take_in()
            else:
                self._apply(announced.pop(0))

    def _refused(self, error: ValueError) -> None:
        self._metrics.link_errors_total.inc()
        print(f"device-{self._device}: state refused: {error}", flush=True)

    def _apply(self, wanted: state.ChannelState) -> None:
        wait_until(wanted.apply_at_s, time.time)
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


def _wait_ms(announced: state.ChannelState) -> int:
    """Until shortly before its time; the last fraction is waited for in `_apply`."""
    return max(0, int((announced.apply_at_s - time.time()) * 1e3))
