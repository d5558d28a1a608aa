"""The measurement behind `wdmoe link verify`: the base station probes, the orchestrator shapes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, TypeAlias

from orchestrator.client.applied import wait_applied
from orchestrator.client.client import Client
from orchestrator.client.restore import restored
from orchestrator.contracts.http import Direction, Link, Probes, Queues, Status
from orchestrator.contracts.verification import Loss, Series, Verification
from orchestrator.errors import StackError
from orchestrator.moe.airtime import SEGMENT_BYTES
from orchestrator.radio import profiles
from orchestrator.verify.result import Unshaped, summarise

# The base station's answers to /probe, by device and size.
_Probes: TypeAlias = dict[tuple[int, int], Probes]

SIZES_BYTES = (1 << 10, 1 << 13, 1 << 16)
DIRECTIONS: tuple[Literal["down", "up"], ...] = ("down", "up")
COUNT = 41
# The unshaped time of the smallest message is subtracted from all others: measure it best.
COST_COUNT = 100
SERIES_S = 20.0
# Do not count messages before TCP has settled on a new rate.
WARM_UP = 3
# Measure a share of lost packets over this many bursts, or this many packets if fewer.
LOSS_BURSTS, LOSS_PACKETS = 40, 40_000
REPORTED_S = 30.0
# How often `verify_links` calls `on_step` for each link.
STEPS = 2 * len(SIZES_BYTES) + 1


def verify_links(
    client: Client,
    status: Status,
    links: list[Link],
    on_step: Callable[[], Any],
) -> Verification:
    """Probe some links of the orchestrator's `status`, shaped and then unshaped.

    The stack is restored afterwards.

    Raises:
        StackError: a device does not answer.
    """

    def probe_all(smallest: int) -> _Probes:
        found = {}
        for link in links:
            for size in SIZES_BYTES:
                most = smallest if size == SIZES_BYTES[0] else COUNT
                found[link.device, size] = _measure(client, link.device, size, most)
                on_step()
        return found

    shaped = probe_all(COUNT)
    losses = []
    for link in links:
        losses += _losses(client, link)
        on_step()
    with restored(client):
        _stop_shaping(client, len(status.links), [link.device for link in links])
        unshaped = probe_all(COST_COUNT)
    return Verification(
        verified_at=datetime.now().astimezone().isoformat(timespec="seconds"),
        profile=status.profile,
        profile_sha256=status.profile_sha256,
        backends=sorted({link.backend for link in links if link.backend}),
        series=[
            _series(link, name, size, shaped, unshaped)
            for link in links
            for name in DIRECTIONS
            for size in SIZES_BYTES
        ],
        losses=losses,
    )


def _measure(client: Client, device: int, size_bytes: int, most: int) -> Probes:
    """Send `most` probes of a size, or as many as a slow link answers in SERIES_S."""
    first = client.probe(device, size_bytes, WARM_UP)
    both_s = first.down[-1].measured_s + first.up[-1].measured_s
    return client.probe(device, size_bytes, max(5, min(most, int(SERIES_S / both_s))))


def _series(
    link: Link,
    name: Literal["down", "up"],
    size_bytes: int,
    shaped: _Probes,
    unshaped: _Probes,
) -> Series:
    device = link.device
    found = shaped[device, size_bytes]

    smallest, same = unshaped[device, SIZES_BYTES[0]], unshaped[device, size_bytes]
    return summarise(
        device,
        name,
        size_bytes,
        found.wire_bits,
        getattr(link, name).delay_s if link.backend == "netem" else 0.0,
        [(probe.measured_s, probe.expected_s) for probe in getattr(found, name)],
        _unshaped(same, name),
        _unshaped(smallest, name),
    )


def _unshaped(probes: Probes, name: str) -> Unshaped:
    return Unshaped([probe.measured_s for probe in getattr(probes, name)], probes.loopback_s)


def _stop_shaping(client: Client, count: int, devices: list[int]) -> None:
    """Shape none of the stack's `count` links, and wait until `devices` have applied that."""
    links = "[" + ", ".join(["{down: {}, up: {}}"] * count) + "]"
    text = f"description: not shaped\nfading: {{kind: none}}\ndevices: {links}\n"
    profile = profiles.parse(text, "not-shaped", "not-shaped")
    wait_applied(client, client.use_profile(profile), devices)


def _losses(client: Client, link: Link) -> list[Loss]:
    """Send until the requested losses have to show, and count them."""
    lossy = {name: getattr(link, name) for name in DIRECTIONS if getattr(link, name).loss_p}
    if not lossy or link.backend != "netem":
        return []
    # A burst begins with probability p at each packet that is not lost.
    rarest = min(direction.loss_p * (1 - _loss(direction)) for direction in lossy.values())
    packets = min(LOSS_PACKETS, LOSS_BURSTS / max(rarest, 1e-9))
    before = _queues(client, link.device)
    for _ in range(max(1, round(packets * SEGMENT_BYTES / SIZES_BYTES[-1] / 20))):
        client.probe(link.device, SIZES_BYTES[-1], 20)
    after = _queues(client, link.device)
    return [
        Loss(
            device=link.device,
            direction=name,
            asked=_loss(direction),
            packets=getattr(after, name).packets - getattr(before, name).packets,
            lost=getattr(after, name).drops - getattr(before, name).drops,
        )
        for name, direction in lossy.items()
    ]


def _loss(direction: Direction) -> float:
    """Share of packets lost in the long run by a Gilbert-Elliott chain: p / (p + r)."""
    return direction.loss_p / (direction.loss_p + direction.loss_r)


def _queues(client: Client, device: int) -> Queues:
    """Return a device's queues from a report made after the call."""
    began_s = time.monotonic()
    while True:
        link = client.status().links[device]
        elapsed_s = time.monotonic() - began_s
        age_s = link.reported_age_s
        if link.queues is not None and age_s is not None and age_s < elapsed_s:
            return link.queues
        if elapsed_s > REPORTED_S:
            raise StackError(f"device-{device} did not report its queues within {REPORTED_S:.0f} s")
        time.sleep(0.05)
