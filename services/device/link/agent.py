"""The link agent: receives channel states, shapes the radio interface on time, and reports.

orchestrator ──XPUB──► SUB [ wait until apply_at ] ──► Shaper ──► PUSH ──► orchestrator
                           └ once a second: read the queues ──────┘

A failure is counted, reported and retried; meanwhile `fault` returns it, and the device does not
serve.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import zmq

from orchestrator.contracts import channel_state, device_report
from orchestrator.contracts.device_report import DeviceReport, QueueReport
from orchestrator.errors import StackError
from orchestrator.metrics import DeviceMetrics
from services.device.link.scheduling import ask_for_short_slices
from services.device.link.shaper import Applied, Queue, Shaper
from services.device.link.tc_batch import ANSWER_S
from services.net.channel_feed import ChannelFeed
from services.net.curve import secure_client
from services.settings import Settings

REPORT_MS = 1000
# Between two attempts to repair a link; each may start a dozen processes.
RETRY_MS = 500
# Longer than any wait of the agent while there is no fault.
STUCK_S = REPORT_MS / 1e3 + 2 * ANSWER_S
# All devices apply a state at the same moment: work that can wait leaves them the processor.
AFTERWARDS_S = 0.004


class LinkAgent(threading.Thread):
    """The thread that keeps a device's link as the channel state says, from the first state on."""

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
        self.faults = 0
        self._error: str | None = None
        self._alive_s = time.monotonic()
        self.current: channel_state.ChannelState | None = None
        self._wanted: channel_state.ChannelState | None = None
        self._device = device
        self._shaper = shaper
        self._metrics = metrics
        key_name = f"device-{device}"
        self._feed = ChannelFeed(settings, key_name, self._count_invalid, context)
        self._reports = context.socket(zmq.PUSH)
        self._reports.setsockopt(zmq.LINGER, 0)
        if settings.curve:
            secure_client(self._reports, settings, key_name, "orchestrator")
        self._reports.connect(f"tcp://{settings.orchestrator_host}:{channel_state.REPORT_PORT}")
        self._due_s = self._applied_at_s = self._retry_s = 0.0
        self._options: list[Any] = []
        self._lossless = {"down": True, "up": True}
        self._queues = {"down": QueueReport(), "up": QueueReport()}
        for name in self._queues:  # a counter begins at 0, not with the first dropped packet
            metrics.link_queue_drops_total.labels(name)
        metrics.link_backend.info({"backend": shaper.backend})

    def fault(self) -> str | None:
        """Return why the link does not match the state in force; None if it does. From any thread.

        `faults` counts them: if it has not changed, there was none in between.
        """
        if self._error is not None:
            return self._error
        if not self.shaped.is_set():
            return "no channel state was applied yet"
        if not self._shaper.has_interface:  # the agent itself will notice a little later
            return "the radio interface is gone"
        stuck_s = time.monotonic() - self._alive_s
        return f"the link agent has been stuck for {stuck_s:.0f} s" if stuck_s > STUCK_S else None

    def run(self) -> None:
        """Receive states, apply each at its deadline, and read the queues meanwhile, forever."""
        ask_for_short_slices()
        while True:
            self._alive_s = time.monotonic()
            try:
                self._turn()
            except zmq.ContextTerminated:
                return
            except Exception as error:  # a dead thread would leave the link as it is, unnoticed
                self._failed(error)

    def _turn(self) -> None:
        announced = self._feed.announced
        wait_ms = _wait_ms(announced[0]) if announced else REPORT_MS
        patience_ms = REPORT_MS if self._error is None else RETRY_MS
        if self._feed.socket.poll(min(wait_ms, patience_ms)):
            self._feed.take_in()
        elif announced and wait_ms <= patience_ms:
            self._wanted = announced.pop(0)
            if self._error is None or time.monotonic() >= self._retry_s:
                self._apply(self._wanted)
        elif self._wanted is not None and self._error is not None:
            self._apply(self._wanted)
        elif self.current is not None:
            self._observe(self.current)

    def _count_invalid(self, error: ValueError) -> None:
        self._metrics.link_errors_total.inc()
        print(f"device-{self._device}: state refused: {error}", flush=True)

    def _apply(self, wanted: channel_state.ChannelState) -> None:
        mine = wanted.devices[self._device]
        # A device that has just started applies at once a state that is already in force.
        self._due_s = wanted.apply_at_s if self.current else max(wanted.apply_at_s, time.time())
        # Sleep, do not spin: eight devices spinning to one deadline delay each other.
        time.sleep(max(0.0, self._due_s - time.time()))
        applied = self._shaper.apply(mine.down, mine.up)
        self._applied_at_s, self._options = applied.at_s, applied.options
        self._metrics.interval_lateness_seconds.observe(self._applied_at_s - self._due_s)
        self._error, self.current = None, wanted
        self.shaped.set()
        time.sleep(AFTERWARDS_S)
        self._show(wanted, applied)

    def _observe(self, in_force: channel_state.ChannelState) -> None:
        applied = self._shaper.read()
        if applied.options != self._options:
            raise StackError("tc: the queues were changed by something else")
        self._show(in_force, applied)

    def _failed(self, error: Exception) -> None:
        text = str(error) if isinstance(error, StackError) else repr(error)
        if text != self._error:
            print(f"device-{self._device}: link: {text}", flush=True)
        self._error = text
        self.faults += 1
        self._retry_s = time.monotonic() + RETRY_MS / 1e3
        self._metrics.link_errors_total.inc()
        time.sleep(AFTERWARDS_S)  # a failure that repeats at once leaves others the processor
        if self._wanted is not None:
            self._report(self._wanted)

    def _show(self, in_force: channel_state.ChannelState, applied: Applied) -> None:
        """Export and report the kernel's counters of both queues."""
        mine = in_force.devices[self._device]
        self._show_queue("down", mine.down, applied.down)
        self._show_queue("up", mine.up, applied.up)
        self._report(in_force)

    def _show_queue(self, name: str, wanted: channel_state.Direction, queue: Queue) -> None:
        if queue.rate_bps is None:
            with contextlib.suppress(KeyError):  # there may have been no rate before
                self._metrics.link_applied_rate_bps.remove(name)
        else:
            self._metrics.link_applied_rate_bps.labels(name).set(queue.rate_bps)
        self._metrics.link_queue_backlog_bytes.labels(name).set(queue.backlog_bytes)
        before = self._queues[name]
        dropped = queue.drops - before.drops
        # tc counts an emulated loss and a full queue alike
        lossless, self._lossless[name] = self._lossless[name], wanted.loss_p == 0
        overflows = dropped if lossless and self._lossless[name] else 0
        self._metrics.link_queue_drops_total.labels(name).inc(overflows)
        self._queues[name] = QueueReport(
            packets=queue.packets,
            drops=queue.drops,
            overflows=before.overflows + overflows,
            backlog_bytes=queue.backlog_bytes,
        )

    def _report(self, wanted: channel_state.ChannelState) -> None:
        report = DeviceReport(
            device=self._device,
            backend=self._shaper.backend,
            epoch=wanted.epoch,
            interval=wanted.interval,
            apply_at_s=self._due_s,
            applied_at_s=self._applied_at_s,
            error=self._error and self._error[:256],
            down=self._queues["down"],
            up=self._queues["up"],
        )
        with contextlib.suppress(zmq.Again):  # the orchestrator is away
            self._reports.send(device_report.encode(report), zmq.NOBLOCK)


def _wait_ms(announced: channel_state.ChannelState) -> int:
    """Return the time until shortly before it applies [ms]; `_apply` waits for the rest."""
    return max(0, int((announced.apply_at_s - time.time()) * 1e3))
