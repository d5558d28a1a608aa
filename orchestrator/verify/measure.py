"""The measuring behind `wdmoe link verify`: the base station probes, the orchestrator shapes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, TypeAlias

from orchestrator.cli import common
from orchestrator.client.applied import wait_applied
from orchestrator.client.client import Client
from orchestrator.client.restore import restored
from orchestrator.contracts.verification import Loss, Series, Verification
from orchestrator.errors import StackError
from orchestrator.moe.airtime import SEGMENT_BYTES
from orchestrator.radio import profiles
from orchestrator.verify.result import Unshaped, summarise

# What the base station answers to /probe, by device and size.
_Probes: TypeAlias = dict[tuple[int, int], dict[str, Any]]

SIZES_BYTES = (1 << 10, 1 << 13, 1 << 16)
DIRECTIONS: tuple[Literal["down", "up"], ...] = ("down", "up")
COUNT = 41
# The smallest message without shaping is taken off all others: it has to be known best.
COST_COUNT = 100
SERIES_S = 20.0
# What comes before TCP has settled on a new rate is not counted.
WARM_UP = 3
# A share of lost packets is told from so many bursts, or after so many packets.
LOSS_BURSTS, LOSS_PACKETS = 40, 40_000
REPORTED_S = 30.0
# How often `verify_links` calls `on_step` for each link.
STEPS = 2 * len(SIZES_BYTES) + 1


def verify_links(
    client: Client,
    status: dict[str, Any],
    links: list[dict[str, Any]],
    on_step: Callable[[], Any],
) -> Verification:
    """Probe some links of the orchestrator's `status`, as they are and then not shaped.

    The stack is restored afterwards. StackError: a device does not answer.
    """

    def probe_all(smallest: int) -> _Probes:
        found = {}
        for link in links:
            for size in SIZES_BYTES:
                most = smallest if size == SIZES_BYTES[0] else COUNT
                found[link["device"], size] = _measure(link["device"], size, most)
                on_step()
        return found

    shaped = probe_all(COUNT)
    losses = []
    for link in links:
        losses += _losses(link)
        on_step()
    with restored(client):
        _stop_shaping(client, len(status["links"]), [link["device"] for link in links])
        unshaped = probe_all(COST_COUNT)
    return Verification(
        verified_at=datetime.now().astimezone().isoformat(timespec="seconds"),
        profile=status["profile"],
        profile_sha256=status["profile_sha256"],
        backends=sorted({link["backend"] for link in links}),
        series=[
            _series(link, name, size, shaped, unshaped)
            for link in links
            for name in DIRECTIONS
            for size in SIZES_BYTES
        ],
        losses=losses,
    )


def _probe(device: int, size_bytes: int, count: int) -> dict[str, Any]:
    body = {"device": device, "size_bytes": size_bytes, "count": count}
    return common.ask_bs("/probe", body, timeout_s=600)


def _measure(device: int, size_bytes: int, most: int) -> dict[str, Any]:
    """`most` probes of a size, or as many as a slow link answers in SERIES_S."""
    first = _probe(device, size_bytes, WARM_UP)
    both_s = sum(first[name][-1]["measured_s"] for name in DIRECTIONS)
    return _probe(device, size_bytes, max(5, min(most, int(SERIES_S / both_s))))


def _series(
    link: dict[str, Any],
    name: Literal["down", "up"],
    size_bytes: int,
    shaped: _Probes,
    unshaped: _Probes,
) -> Series:
    device = link["device"]
    found = shaped[device, size_bytes]

    smallest, same = unshaped[device, SIZES_BYTES[0]], unshaped[device, size_bytes]
    return summarise(
        device,
        name,
        size_bytes,
        found["wire_bits"],
        link[name]["delay_s"] if link["backend"] == "netem" else 0.0,
        [(one["measured_s"], one["expected_s"]) for one in found[name]],
        _unshaped(same, name),
        _unshaped(smallest, name),
    )


def _unshaped(probes: dict[str, Any], name: str) -> Unshaped:
    return Unshaped([one["measured_s"] for one in probes[name]], probes["loopback_s"])


def _stop_shaping(client: Client, count: int, devices: list[int]) -> None:
    """Shape none of the stack's `count` links, and wait until `devices` have applied that."""
    links = "[" + ", ".join(["{down: {}, up: {}}"] * count) + "]"
    text = f"description: not shaped\nfading: {{kind: none}}\ndevices: {links}\n"
    profile = profiles.parse(text, "not-shaped", "not-shaped")
    wait_applied(client, client.use_profile(profile), devices)


def _losses(link: dict[str, Any]) -> list[Loss]:
    """Send until the losses that were asked for have to show, and count them."""
    asked = {name: _loss(link[name]) for name in DIRECTIONS if link[name]["loss_p"]}
    if not asked or link["backend"] != "netem":
        return []
    # A burst begins with probability p at each packet that is not lost.
    rarest = min(link[name]["loss_p"] * (1 - loss) for name, loss in asked.items())
    packets = min(LOSS_PACKETS, LOSS_BURSTS / max(rarest, 1e-9))
    before = _queues(link["device"])
    for _ in range(max(1, round(packets * SEGMENT_BYTES / SIZES_BYTES[-1] / 20))):
        _probe(link["device"], SIZES_BYTES[-1], 20)
    after = _queues(link["device"])
    return [
        Loss(
            device=link["device"],
            direction=name,
            asked=loss,
            packets=after[name]["packets"] - before[name]["packets"],
            lost=after[name]["drops"] - before[name]["drops"],
        )
        for name, loss in asked.items()
    ]


def _loss(direction: dict[str, Any]) -> float:
    """Share of packets lost in the long run by a Gilbert-Elliott chain: p / (p + r)."""
    p, r = direction["loss_p"], direction["loss_r"]
    return float(p / (p + r))


def _queues(device: int) -> dict[str, Any]:
    """A device's queues as reported from now on."""
    asked_s = time.monotonic()
    while True:
        link = common.ask_orchestrator("/status")["links"][device]
        elapsed_s = time.monotonic() - asked_s
        if link["reported_age_s"] < elapsed_s:
            queues: dict[str, Any] = link["queues"]
            return queues
        if elapsed_s > REPORTED_S:
            raise StackError(f"device-{device} did not report its queues within {REPORTED_S:.0f} s")
        time.sleep(0.05)
