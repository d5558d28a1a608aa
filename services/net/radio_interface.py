"""This container's radio interface: which one it is, and its TCP segmentation.

The radio interface is the one whose network has the base station's radio address. Names such as
eth0 and eth1 may swap at any start.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

from orchestrator.errors import StackError

# As in services.net.wire, which would import torch for every user of this module.
MAX_MESSAGE_BYTES = 1 << 28
# A queue that holds the largest message drops nothing; no full segment carries less than 1 KiB.
MAX_PACKETS = MAX_MESSAGE_BYTES // 1024
_TOOL_TIMEOUT_S = 10.0


def resolve(name: str, wait_s: float = 60.0) -> str:
    """Return the IPv4 address of a name; wait until it has one."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return socket.gethostbyname(name)
        except OSError as error:
            if time.monotonic() > deadline:
                raise StackError(f"{name}: no address after {wait_s:.0f} s ({error})") from None
            time.sleep(0.2)


def interface_towards(address: str) -> str:
    """Return the interface whose network has a peer's address; StackError if none has."""
    (route,) = json.loads(run("ip", "-json", "route", "get", address))
    if "gateway" in route:
        raise StackError(f"{address}: on no network of this container")
    return str(route["dev"])


def interface(address: str) -> str:
    """Return the interface that has a local address; StackError if none has."""
    links = json.loads(run("ip", "-json", "-4", "address", "show"))
    for link in links:
        if any(info.get("local") == address for info in link["addr_info"]):
            return str(link["ifname"])
    raise StackError(f"no interface has the address {address}")


def pin_segmentation(name: str) -> None:
    """Make every TCP segment a packet of its own, so that a queue sees what a radio would.

    `ethtool -K gso off` does not do it for local TCP; a limit of one segment does.
    """
    run("ip", "link", "set", "dev", name, "gso_max_segs", "1")


def congestion_control() -> str:
    """Return the TCP congestion control that this container's connections use."""
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def run(*command: str) -> str:
    """Run a network tool and return its output; StackError with its first line if it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TOOL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise StackError(f"{' '.join(command)}: not done in {_TOOL_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise StackError(f"{' '.join(command)}: {lines[0]}")
    return done.stdout
