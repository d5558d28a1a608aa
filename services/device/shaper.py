"""Shapes both directions of the radio interface: uplink at its root, downlink through an ifb.

    to the base station   ◄── [ radio: root 1: netem|tbf ] ◄── device process
    from the base station ──► [ radio: ingress ffff: ] ──mirred──► [ ifb-radio: root 1: ] ──► device

One `tc -batch` lives as long as the shaper: an update costs a line, not a process. Each update is
read back, which also tells that it is in force.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from types import ModuleType

from orchestrator.errors import StackError
from orchestrator.state import Direction
from services.device import netem, tbf
from services.radio import pin_segmentation, run

IFB = "ifb-radio"
_MATCH_ALL = ["parent", "ffff:", "protocol", "all", "u32", "match", "u32", "0", "0"]
_REDIRECT = ["action", "mirred", "egress", "redirect", "dev", IFB]


@dataclass(frozen=True)
class Applied:
    """The rates read back from the kernel [bit/s]; None: not limited."""

    down_bps: float | None
    up_bps: float | None


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
        _set_root(radio, self._backend)
        run("tc", "qdisc", "add", "dev", radio, "handle", "ffff:", "ingress")
        run("tc", "filter", "add", "dev", radio, *_MATCH_ALL, *_REDIRECT)

    @property
    def backend(self) -> str:
        """`netem` or `tbf`: what the kernel has."""
        return str(self._backend.NAME)

    def apply(self, down: Direction, up: Direction) -> Applied:
        """Change both directions at once; packets already queued stay. Returns what is in force."""
        batch = self._batch or self._start()
        lines = [
            f"qdisc change dev {IFB} root handle 1: {self._backend.qdisc(down)}",
            f"qdisc change dev {self._radio} root handle 1: {self._backend.qdisc(up)}",
            f"qdisc show dev {IFB}",
            f"qdisc show dev {self._radio}",
        ]
        assert batch.stdin is not None
        try:
            batch.stdin.write("\n".join(lines) + "\n")
            batch.stdin.flush()
        except BrokenPipeError:
            pass  # tc's last words are still to be read
        return Applied(self._read_rate(batch), self._read_rate(batch))

    def _start(self) -> subprocess.Popen[str]:
        self._batch = subprocess.Popen(
            ["tc", "-json", "-batch", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self._batch

    def _read_rate(self, batch: subprocess.Popen[str]) -> float | None:
        assert batch.stdout is not None
        line = batch.stdout.readline()
        if not line.startswith("["):
            batch.kill()
            batch.wait()
            self._batch = None
            raise StackError(f"tc: {line.strip() or 'ended without a word'}")
        root = next(q for q in json.loads(line) if q.get("root"))
        rate: float | None = self._backend.rate_bps(root["options"])
        return rate

    def _clear(self) -> None:
        for command in (
            ("tc", "qdisc", "del", "dev", self._radio, "root"),
            ("tc", "qdisc", "del", "dev", self._radio, "ingress"),
            ("ip", "link", "del", IFB),
        ):
            subprocess.run(command, capture_output=True, check=False)  # there may be nothing


def _probe() -> ModuleType:
    """The first backend that this kernel takes: found out by doing."""
    try:
        _set_root(IFB, netem)
    except StackError:
        _set_root(IFB, tbf)
        return tbf
    return netem


def _set_root(dev: str, backend: ModuleType) -> None:
    """Put the backend's qdisc on a device, not limiting anything yet."""
    qdisc = backend.qdisc(Direction()).split()
    run("tc", "qdisc", "replace", "dev", dev, "root", "handle", "1:", *qdisc)
