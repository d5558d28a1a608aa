"""Shapes both directions of the radio interface: uplink at its root, downlink through an ifb.

    to the base station   ◄── [ radio: root 1: ] ◄── device process
    from the base station ──► [ radio: ingress ffff: ] ──mirred──► [ ifb-radio: root 1: ] ──► device

What is at root 1: is the backend's, see netem.py and tbf.py. Each update is read back, which also
shows that it is in force. What is queued stays, and goes at the new rate.

After an error the next update looks whether the tree is still there, and builds it anew where not:
the interface may be another one, as a container gets when it comes back to a network.
"""

from __future__ import annotations

import math
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from orchestrator.contracts.channel_state import Direction
from orchestrator.errors import StackError
from services.device.link import netem, tbf
from services.device.link.qdisc_kick import Waker
from services.device.link.tc_batch import Listing, TcBatch
from services.net.radio_interface import pin_segmentation, run

IFB = "ifb-radio"
_MATCH_ALL = ["parent", "ffff:", "protocol", "all", "u32", "match", "u32", "0", "0"]
_REDIRECT = ["action", "mirred", "egress", "redirect", "dev", IFB]
# tc rounds a rate to whole bytes a second.
_TOLERANCE_BPS = 8.0


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
    """Both directions, read back from the kernel; at `at_s` (Unix time) both were in force.

    `options` are those of every qdisc as tc shows them, for comparison only.
    """

    down: Queue
    up: Queue
    at_s: float
    options: list[Any]


class Shaper:
    """Owns the radio interface's qdiscs; they go when its network namespace does."""

    def __init__(self, find: Callable[[], str]) -> None:
        """Build the tree on the interface that `find` names; StackError when the kernel refuses."""
        self._find = find
        self._batch = TcBatch()
        self._before = (_NOTHING, _NOTHING)  # what queues had counted that are gone
        self._latest = self._before
        self._sound = True
        self._radio = find()
        self._backend: ModuleType | None = None
        self._build(self._radio)

    @property
    def backend(self) -> str:
        """`netem` or `tbf`: what the kernel has."""
        assert self._backend is not None, "it is found out first"
        return str(self._backend.NAME)

    @property
    def has_interface(self) -> bool:
        """Whether the interface that was shaped is still there: a system call, for any thread."""
        try:
            return socket.if_nametoindex(self._radio) == self._index
        except OSError:
            return False

    def apply(self, down: Direction, up: Direction) -> Applied:
        """Change both directions, read both back; StackError when they are not what they should be.

        After an error, the tree is built anew where it is gone.
        """
        if not self._sound:
            self._mend()
        assert self._backend is not None
        applied = self._exchange(
            f"qdisc change dev {dev} {qdisc}"
            for dev, direction in ((IFB, down), (self._radio, up))
            for qdisc in self._backend.qdiscs(direction)
        )
        for name, asked, queue in (("down", down, applied.down), ("up", up, applied.up)):
            _check_rate(name, asked, queue)
        self._wake_if_raised(IFB, applied.down)
        self._wake_if_raised(self._radio, applied.up)
        return applied

    def read(self) -> Applied:
        """Both directions as they are; StackError when the kernel does not say."""
        return self._exchange(())

    def _wake_if_raised(self, dev: str, queue: Queue) -> None:
        """Below twice the rate the first packet gains more by the full bucket than it waits for."""
        before_bps = self._rate_bps[dev]
        self._rate_bps[dev] = queue.rate_bps or math.inf
        if queue.backlog_bytes and self._rate_bps[dev] > 2 * before_bps:
            self._waker.wake(dev)

    def _exchange(self, changes: Iterable[str]) -> Applied:
        """Make changes, then read both directions back."""
        self._sound = False
        if not self.has_interface:  # one of the same name may have come, without queues
            raise StackError(f"the radio interface {self._radio} is gone")
        listings = self._batch.ask([*changes], self._shows())
        at_s = time.time()
        try:
            applied = self._read(at_s, *listings)
        except BaseException:  # what it says next may answer another question
            self._batch.end()
            raise
        self._latest = (applied.down, applied.up)
        self._sound = True
        return applied

    def _read(self, at_s: float, down: Listing, up: Listing, ingress: Listing) -> Applied:
        if _layout(down, up, ingress) != self._built:
            raise StackError(f"tc: the queues of {self._radio} and {IFB} are not those built")
        return Applied(
            down=_queue(down, self._before[0]),
            up=_queue(up, self._before[1]),
            at_s=at_s,
            options=[qdisc["options"] for qdisc in (*down, *up)],
        )

    def _shows(self) -> list[str]:
        """What tells all of the tree."""
        ingress = f"filter show dev {self._radio} parent ffff:"
        return [f"qdisc show dev {IFB}", f"qdisc show dev {self._radio}", ingress]

    def _mend(self) -> None:
        radio = self._find()
        if radio == self._radio:
            try:
                self.read()
                return
            except StackError:
                pass  # then not all of the tree is there
        self._build(radio)

    def _build(self, radio: str) -> None:
        """Put both trees up, not limiting anything yet."""
        self._before = self._latest
        for dev in {self._radio, radio}:
            for parent in ("root", "ingress"):
                _try("tc", "qdisc", "del", "dev", dev, parent)
        _try("ip", "link", "del", IFB)
        self._radio, self._index = radio, socket.if_nametoindex(radio)
        pin_segmentation(radio)
        run("ip", "link", "add", IFB, "type", "ifb")
        run("ip", "link", "set", "dev", IFB, "up")
        self._backend = self._backend or _probe()
        self._waker = Waker(radio)
        self._rate_bps = {IFB: math.inf, radio: math.inf}
        for dev in (IFB, radio):
            _add_tree(dev, self._backend)
        run("tc", "qdisc", "add", "dev", radio, "handle", "ffff:", "ingress")
        run("tc", "filter", "add", "dev", radio, *_MATCH_ALL, *_REDIRECT)
        self._batch.end()  # it knows interfaces by numbers that may be gone
        self._built = _layout(*self._batch.ask([], self._shows()))


_NOTHING = Queue(None, 0, 0, 0)


def _try(*command: str) -> None:
    """Run a command that may find nothing to do."""
    subprocess.run(command, capture_output=True, check=False)


def _layout(*listings: Listing) -> list[Any]:
    """Which qdiscs there are, and where packets are redirected to."""
    return [
        [
            item["kind"],
            item.get("handle"),
            [action.get("to_dev") for action in item.get("options", {}).get("actions", ())],
        ]
        for listing in listings
        for item in listing
    ]


def _queue(qdiscs: Listing, before: Queue) -> Queue:
    root = next(qdisc for qdisc in qdiscs if qdisc.get("root"))
    return Queue(
        rate_bps=tbf.rate_bps(root["options"]),
        packets=root["packets"] + before.packets,
        drops=root["drops"] + before.drops,
        backlog_bytes=root["backlog"],
    )


def _check_rate(name: str, asked: Direction, queue: Queue) -> None:
    asked_bps = min(asked.rate_bps or math.inf, tbf.UNSHAPED_BPS)
    rate_bps = queue.rate_bps or tbf.UNSHAPED_BPS
    if not math.isclose(rate_bps, asked_bps, abs_tol=_TOLERANCE_BPS):
        raise StackError(f"tc: {name} has {rate_bps:.0f} bit/s, not {asked_bps:.0f}")


def _probe() -> ModuleType:
    """The first backend that this kernel takes: found out by doing."""
    try:
        _add_tree(IFB, netem)
    except StackError:
        return tbf
    return netem


def _add_tree(dev: str, backend: ModuleType) -> None:
    """Put the backend's tree on a device, not limiting anything yet."""
    for qdisc in backend.qdiscs(Direction()):
        run("tc", "qdisc", "replace", "dev", dev, *qdisc.split())
