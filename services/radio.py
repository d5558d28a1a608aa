"""This container's radio interface: which one it is, and what is pinned on it.

The radio interface is told from the control interface by its address: it is the one from which
the base station's radio address is reached. Names such as eth0 and eth1 may swap at any start.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

from orchestrator.errors import StackError

# As in services.wire, which would bring torch to every user of this module.
MAX_MESSAGE_BYTES = 1 << 28
# A queue that holds the largest message drops nothing; no full segment carries less than 1 KiB.
MAX_PACKETS = MAX_MESSAGE_BYTES // 1024


def local_address(peer: str, wait_s: float = 60.0) -> str:
    """The own IPv4 address from which `peer` (a name) is reached; waits until it resolves."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((peer, 9))
                return str(probe.getsockname()[0])
        except OSError as error:
            if time.monotonic() > deadline:
                raise StackError(f"{peer}: no route after {wait_s:.0f} s ({error})") from None
            time.sleep(0.2)


def interface(address: str) -> str:
    """The interface that carries an own address."""
    links = json.loads(run("ip", "-json", "-4", "address", "show"))
    for link in links:
        if any(info.get("local") == address for info in link["addr_info"]):
            return str(link["ifname"])
    raise StackError(f"no interface has the address {address}")


def pin_segmentation(name: str) -> None:
    """Let every TCP segment be a packet of its own, so that a queue sees what a radio would.

    `ethtool -K gso off` does not do it for local TCP; a limit of one segment does.
    """
    run("ip", "link", "set", "dev", name, "gso_max_segs", "1")


def congestion_control() -> str:
    """The TCP congestion control that this container's connections use."""
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def run(*command: str) -> str:
    """Run a network tool; StackError with its first line when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise StackError(f"{' '.join(command)}: {lines[0]}")
    return done.stdout
