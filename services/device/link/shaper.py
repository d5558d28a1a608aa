"""Shapes both directions of the radio interface: uplink at its root, downlink through an ifb.

    to the base station   ◄── [ radio: root 1: ] ◄── device process
    from the base station ──► [ radio: ingress ffff: ] ──mirred──► [ ifb-radio: root 1: ] ──► device

The backend defines what is at root 1:, see netem.py and tbf.py. Each update is read back, which
shows that it is in force. Queued packets stay, and leave at the new rate.

After an error the next update checks whether the tree is still there, and otherwise rebuilds it: a
container that comes back to a network gets a new interface.
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
    """The queue of one direction, as the kernel reports it."""

    rate_bps: float | None
    """The rate in force [bit/s]; None: unlimited."""
    packets: int
    """Packets sent since the shaper began."""
    drops: int
    """Packets dropped since then; tc counts emulated losses and a full queue alike."""
    backlog_bytes: int
    """Bytes that wait in the queue."""


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
    """The owner of the radio interface's qdiscs, which vanish with its network namespace."""

    def __init__(self, find: Callable[[], str]) -> None:
        """Build the tree on the interface that `find` returns; StackError if the kernel refuses."""
        self._find = find
        self._batch = TcBatch()
        self._before = (_NOTHING, _NOTHING)  # the counts of queues that are gone
        self._latest = self._before
        self._sound = True
        self._radio = find()
        self._backend: ModuleType | None = None
        self._build(self._radio)

    @property
    def backend(self) -> str:
        """`netem`, or `tbf` if the kernel has no netem."""
        assert self._backend is not None, "the first build finds it"
        return str(self._backend.NAME)

    @property
    def has_interface(self) -> bool:
        """Whether the shaped interface is still there; one system call, for any thread."""
        try:
            return socket.if_nametoindex(self._radio) == self._index
        except OSError:
            return False

    def apply(self, down: Direction, up: Direction) -> Applied:
        """Change both directions and read them back; StackError if they are not as requested.

        After an error, the tree is rebuilt if it is gone.
        """
        if not self._sound:
            self._mend()
        assert self._backend is not None
        applied = self._exchange(
            f"qdisc change dev {dev} {qdisc}"
            for dev, direction in ((IFB, down), (self._radio, up))
            for qdisc in self._backend.qdiscs(direction)
        )
        for name, direction, queue in (("down", down, applied.down), ("up", up, applied.up)):
            _check_rate(name, direction, queue)
        self._wake_if_raised(IFB, applied.down)
        self._wake_if_raised(self._radio, applied.up)
        return applied

    def read(self) -> Applied:
        """Return both directions as they are; StackError if the kernel does not report them."""
        return self._exchange(())

    def _wake_if_raised(self, dev: str, queue: Queue) -> None:
        """Wake a queue whose rate has more than doubled.

        Below that, the first packet gains more by the full bucket than it loses by waiting.
        """
        before_bps = self._rate_bps[dev]
        self._rate_bps[dev] = queue.rate_bps or math.inf
        if queue.backlog_bytes and self._rate_bps[dev] > 2 * before_bps:
            self._waker.wake(dev)

    def _exchange(self, changes: Iterable[str]) -> Applied:
        """Make changes, then read both directions back."""
        self._sound = False
        if not self.has_interface:  # a new one may have the same name, but no queues
            raise StackError(f"the radio interface {self._radio} is gone")
        listings = self._batch.ask([*changes], self._shows())
        at_s = time.time()
        try:
            applied = self._read(at_s, *listings)
        except BaseException:  # its next output may belong to an earlier command
            self._batch.end()
            raise
        self._latest = (applied.down, applied.up)
        self._sound = True
        return applied

    def _read(self, at_s: float, down: Listing, up: Listing, ingress: Listing) -> Applied:
        if _layout(down, up, ingress) != self._built:
            raise StackError(f"tc: the queues of {self._radio} and {IFB} differ from those built")
        return Applied(
            down=_queue(down, self._before[0]),
            up=_queue(up, self._before[1]),
            at_s=at_s,
            options=[qdisc["options"] for qdisc in (*down, *up)],
        )

    def _shows(self) -> list[str]:
        """Return the commands that show the whole tree."""
        ingress = f"filter show dev {self._radio} parent ffff:"
        return [f"qdisc show dev {IFB}", f"qdisc show dev {self._radio}", ingress]

    def _mend(self) -> None:
        radio = self._find()
        if radio == self._radio:
            try:
                self.read()
                return
            except StackError:
                pass  # parts of the tree are missing
        self._build(radio)

    def _build(self, radio: str) -> None:
        """Build both trees, without any limit yet."""
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
        self._batch.end()  # it refers to interfaces by numbers that may be gone
        self._built = _layout(*self._batch.ask([], self._shows()))


_NOTHING = Queue(None, 0, 0, 0)


def _try(*command: str) -> None:
    """Run a command that may find nothing to do."""
    subprocess.run(command, capture_output=True, check=False)


def _layout(*listings: Listing) -> list[Any]:
    """Return the qdiscs, and where packets are redirected to."""
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


def _check_rate(name: str, direction: Direction, queue: Queue) -> None:
    wanted_bps = min(direction.rate_bps or math.inf, tbf.UNSHAPED_BPS)
    rate_bps = queue.rate_bps or tbf.UNSHAPED_BPS
    if not math.isclose(rate_bps, wanted_bps, abs_tol=_TOLERANCE_BPS):
        raise StackError(f"tc: {name} has {rate_bps:.0f} bit/s, not {wanted_bps:.0f}")


def _probe() -> ModuleType:
    """Return the first backend that this kernel accepts, by trying."""
    try:
        _add_tree(IFB, netem)
    except StackError:
        return tbf
    return netem


def _add_tree(dev: str, backend: ModuleType) -> None:
    """Put the backend's tree on a network device, without any limit yet."""
    for qdisc in backend.qdiscs(Direction()):
        run("tc", "qdisc", "replace", "dev", dev, *qdisc.split())
