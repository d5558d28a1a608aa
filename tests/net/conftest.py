"""A link between two network namespaces: this process, a veth pair, a shaped device.

this namespace [ veth, 10.77.0.1 ] ═════ [ veth, 10.77.0.2: Shaper ] namespace of the device
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

import pytest

from services.net.radio_interface import pin_segmentation, run
from tests.net import datagrams
from tests.net.device_end import PORT, pin, read_exactly

NAMESPACE = "wdmoe-test"
HOST_END, DEVICE_END = "wdmoe-host", "wdmoe-device"
HOST_ADDRESS, DEVICE_ADDRESS = "10.77.0.1", "10.77.0.2"

Way: TypeAlias = Literal["down", "up"]
WAYS: tuple[Way, Way] = ("down", "up")


class Link:
    """One shaped link and its far end."""

    def __init__(self) -> None:
        command = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-m", "tests.net.device_end"]
        self._end = subprocess.Popen(
            [*command, DEVICE_ADDRESS, HOST_ADDRESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.backend: str = self._answer()["backend"]
        self._connection = socket.create_connection((DEVICE_ADDRESS, PORT))
        pin(self._connection)
        self._arrivals = datagrams.Arrivals(HOST_ADDRESS)

    def shape(
        self, down: Mapping[str, float] | None = None, up: Mapping[str, float] | None = None
    ) -> Any:
        """Shape both directions; return the kernel's settings, as `Applied`."""
        return self._ask("shape", down=down or {}, up=up or {})

    def shape_both(self, **direction: float) -> Any:
        """Shape both directions alike."""
        return self.shape(direction, direction)

    def read(self) -> Any:
        """Return the kernel's settings, as `Applied`."""
        return self._ask("read")

    def times_s(self, size: int, back: int) -> tuple[float, float]:
        """Return the transmission times of `size` bytes down and `back` bytes up."""
        sent_s = time.monotonic()
        self._connection.sendall(struct.pack("!II", size, back) + bytes(size))
        received_s, answered_s = struct.unpack("!dd", read_exactly(self._connection, 16))
        read_exactly(self._connection, back)
        return received_s - sent_s, time.monotonic() - answered_s

    def fastest_s(self, size: int, back: int, n: int = 9) -> tuple[float, float]:
        """Return the shortest times of n messages, down and up: a busy host only adds to them."""
        measured = [self.times_s(size, back) for _ in range(n)]
        down, up = (min(values) for values in zip(*measured, strict=True))
        return down, up

    def send(self, way: Way, n: int, size: int = datagrams.FULL_BYTES) -> None:
        """Send n numbered datagrams of `size` bytes as fast as the host can."""
        if way == "down":
            datagrams.send(DEVICE_ADDRESS, n, size)
        else:
            self._ask("send", n=n, size=size)

    def arrivals(self, way: Way, quiet_s: float = 0.2) -> list[tuple[int, float]]:
        """Return number and time [s] of each datagram so far, once none has come for `quiet_s`."""
        seen: list[tuple[int, float]] = []
        while True:
            before = len(seen)
            time.sleep(quiet_s)
            seen = self._ask("arrivals") if way == "down" else list(self._arrivals.seen)
            if len(seen) == before:
                return seen

    def change_by_hand(self, way: Way, qdisc: str) -> None:
        """Run `tc qdisc change` without the shaper."""
        dev = "ifb-radio" if way == "down" else DEVICE_END
        run("tc", "-n", NAMESPACE, "qdisc", "change", "dev", dev, *qdisc.split())

    def qdiscs(self) -> list[dict[str, Any]]:
        """Return every qdisc in the device's namespace."""
        listing: list[dict[str, Any]] = json.loads(
            run("tc", "-n", NAMESPACE, "-json", "qdisc", "show")
        )
        return listing

    def close(self) -> None:
        """Stop the far end."""
        self._arrivals.close()
        self._connection.close()
        assert self._end.stdin is not None
        self._end.stdin.close()
        assert self._end.wait(timeout=20) == 0

    def _ask(self, what: str, **wanted: Any) -> Any:
        assert self._end.stdin is not None
        self._end.stdin.write(json.dumps({what: wanted}) + "\n")
        self._end.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._end.stdout is not None
        return json.loads(self._end.stdout.readline())


@pytest.fixture
def link() -> Iterator[Link]:
    subprocess.run(["ip", "netns", "del", NAMESPACE], capture_output=True, check=False)
    run("ip", "netns", "add", NAMESPACE)
    try:
        run("ip", "link", "add", HOST_END, "type", "veth", "peer", "name", DEVICE_END)
        run("ip", "link", "set", DEVICE_END, "netns", NAMESPACE)
        run("ip", "address", "add", f"{HOST_ADDRESS}/30", "dev", HOST_END)
        # no IPv6: a test would count its announcements
        run("ip", "link", "set", HOST_END, "addrgenmode", "none", "up")
        pin_segmentation(HOST_END)
        inside = ("ip", "-n", NAMESPACE)
        run(*inside, "address", "add", f"{DEVICE_ADDRESS}/30", "dev", DEVICE_END)
        run(*inside, "link", "set", DEVICE_END, "addrgenmode", "none", "up")
        run(*inside, "link", "set", "lo", "up")
        made = Link()
        yield made
        made.close()
    finally:
        # deleting a namespace releases the other end only after a while
        run("ip", "link", "del", HOST_END)
        run("ip", "netns", "del", NAMESPACE)
