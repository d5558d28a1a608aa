"""Shapes both directions of the radio interface: uplink at its root, downlink through an ifb.

    to the base station   ◄── [ radio: root 1: ] ◄── device process
    from the base station ──► [ radio: ingress ffff: ] ──mirred──► [ ifb-radio: root 1: ] ──► device

What is at root 1: is the backend's, see netem.py and tbf.py. One `tc -batch` lives as long as the
shaper: an update costs a line, not a process. Each update is read back, which also tells that it is
in force. What is queued stays, and goes at the new rate.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType

from orchestrator.errors import StackError
from orchestrator.state import Direction
from services.device import netem, tbf
from services.device.wake import Waker
from services.radio import pin_segmentation, run

IFB = "ifb-radio"
_MATCH_ALL = ["parent", "ffff:", "protocol", "all", "u32", "match", "u32", "0", "0"]
_REDIRECT = ["action", "mirred", "egress", "redirect", "dev", IFB]


@dataclass(frozen=True)
class Queue:
    """One direction as the kernel has it."""

    rate_bps: float | None
    """The rate in force [bit/s]; None: not limited."""
    packets: int
    """Packets sent since the shaper began."""
    drops: int
    """Packets dropped since then; tc does not tell emulated losses from those of a full queue."""
    backlog_bytes: int
    """What waits in the queue."""


@dataclass(frozen=True)
class Applied:
    """Both directions, read back from the kernel; at `at_s` (Unix time) both were in force."""

    down: Queue
    up: Queue
    at_s: float


class Shaper:
    """Owns the radio interface's qdiscs; they go when its network namespace does."""

    def __init__(self, radio: str) -> None:
        """Build the tree on interface `radio`; StackError when the kernel refuses it."""
        self._radio = radio
        self._batch: subprocess.Popen[str] | None = None
        self._clear()
        pin_segmentation(radio)
        run("ip", "link", "add", IFB, "type", "ifb")
        run("ip", "link", "set", "dev", IFB, "up")
        self._backend = _probe()
        self._waker = Waker(radio)
        self._rate_bps = {IFB: math.inf, radio: math.inf}
        _build(radio, self._backend)
        run("tc", "qdisc", "add", "dev", radio, "handle", "ffff:", "ingress")
        run("tc", "filter", "add", "dev", radio, *_MATCH_ALL, *_REDIRECT)

    @property
    def backend(self) -> str:
        """`netem` or `tbf`: what the kernel has."""
        return str(self._backend.NAME)

    def apply(self, down: Direction, up: Direction) -> Applied:
        """Change both directions, read both back; StackError when the kernel refuses."""
        applied = self._tell(
            f"qdisc change dev {dev} {qdisc}"
            for dev, direction in ((IFB, down), (self._radio, up))
            for qdisc in self._backend.qdiscs(direction)
        )
        self._wake_if_raised(IFB, applied.down)
        self._wake_if_raised(self._radio, applied.up)
        return applied

    def read(self) -> Applied:
        """Both directions as they are; StackError when the kernel does not say."""
        return self._tell(())

    def _wake_if_raised(self, dev: str, queue: Queue) -> None:
        """Below twice the rate the first packet gains more by the full bucket than it waits for."""
        before_bps = self._rate_bps[dev]
        self._rate_bps[dev] = queue.rate_bps or math.inf
        if queue.backlog_bytes and self._rate_bps[dev] > 2 * before_bps:
            self._waker.wake(dev)

    def _tell(self, changes: Iterable[str]) -> Applied:
        """Make changes, then read both directions back."""
        batch = self._batch or self._start()
        lines = [*changes, f"qdisc show dev {IFB}", f"qdisc show dev {self._radio}"]
        assert batch.stdin is not None
        try:
            batch.stdin.write("\n".join(lines) + "\n")
            batch.stdin.flush()
        except BrokenPipeError:
            pass  # tc's last words are still to be read
        down, at_s = self._line(batch), time.time()
        return Applied(down=_queue(down), up=_queue(self._line(batch)), at_s=at_s)

    def _start(self) -> subprocess.Popen[str]:
        self._batch = subprocess.Popen(
            ["tc", "-json", "-statistics", "-batch", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self._batch

    def _line(self, batch: subprocess.Popen[str]) -> str:
        """What tc says next; StackError when that is no answer."""
        assert batch.stdout is not None
        line = batch.stdout.readline()
        if not line.startswith("["):
            batch.kill()
            batch.wait()
            self._batch = None
            raise StackError(f"tc: {line.strip() or 'ended without a word'}")
        return line

    def _clear(self) -> None:
        for command in (
            ("tc", "qdisc", "del", "dev", self._radio, "root"),
            ("tc", "qdisc", "del", "dev", self._radio, "ingress"),
            ("ip", "link", "del", IFB),
        ):
            subprocess.run(command, capture_output=True, check=False)  # there may be nothing


def _queue(line: str) -> Queue:
    root = next(q for q in json.loads(line) if q.get("root"))
    return Queue(tbf.rate_bps(root["options"]), root["packets"], root["drops"], root["backlog"])


def _probe() -> ModuleType:
    """The first backend that this kernel takes: found out by doing."""
    try:
        _build(IFB, netem)
    except StackError:
        _build(IFB, tbf)
        return tbf
    return netem


def _build(dev: str, backend: ModuleType) -> None:
    """Put the backend's tree on a device, not limiting anything yet."""
    for qdisc in backend.qdiscs(Direction()):
        run("tc", "qdisc", "replace", "dev", dev, *qdisc.split())
