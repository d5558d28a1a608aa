"""Times a link with messages of a given size, next to what the channel states account for.

bs ──Probe, size──► device ──Probed, size──► bs
   │    down     │          │     up      │        each measured_s beside its expected_s

Less than expected is possible: a bare token bucket (backend tbf) lets the first bytes through at
once, which ends a message up to a bucket's time on the air early.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.airtime import airtime_s, wire_bits
from orchestrator.state import Direction
from services import wire
from services.bs.dispatch import Dispatcher
from services.bs.loopback import Loopback
from services.channel import ChannelFeed


@dataclass(frozen=True)
class Timing:
    """One message in one direction [s]; `expected_s` None: the rates meanwhile are not known."""

    measured_s: float
    expected_s: float | None


@dataclass(frozen=True)
class Probes:
    """What became of a series of probes.

    `wire_bits` is a message's as the link's queue counts it; `loopback_s` what the same message
    takes without a link, as often.
    """

    wire_bits: int
    down: list[Timing]
    up: list[Timing]
    loopback_s: list[float]


@dataclass
class ProbeRequest:
    """A series of probes to make; `deliver` is called from the engine's thread."""

    device: int
    size_bytes: int
    count: int
    deliver: Callable[[Probes | None], None]


class Prober:
    """Used by the engine's thread, between requests."""

    def __init__(self, dispatcher: Dispatcher, channel: ChannelFeed, curve: bool) -> None:
        self._dispatcher = dispatcher
        self._channel = channel
        self._curve = curve
        self._loopback = Loopback(curve)

    def run(self, request: ProbeRequest) -> Probes | None:
        """Probe a device again and again; None if it is not there, or falls silent."""
        q, pad = request.device, wire.padding(0, request.size_bytes)
        sample = wire.encode(wire.Probed(0, pad, 0.0, 0.0))
        bits = wire_bits(wire.bytes_on_tcp(sample, self._curve))
        probes = Probes(bits, [], [], [])
        for _ in range(request.count):
            time.sleep(wire.PROBE_PAUSE_S)
            probes.loopback_s.append(self._loopback.time_s(sample))
            time.sleep(wire.PROBE_PAUSE_S)
            sent_unix_s = time.time()
            answer = self._dispatcher.probe(q, pad)
            if answer is None:
                return None
            sent_s, probed, arrived_s = answer
            states = self._channel.since(sent_unix_s)

            back_unix_s = sent_unix_s + probed.sent_s - sent_s
            down_s = _expected_s(
                bits, sent_unix_s, [(s.apply_at_s, s.devices[q].down) for s in states]
            )
            up_s = _expected_s(bits, back_unix_s, [(s.apply_at_s, s.devices[q].up) for s in states])
            probes.down.append(Timing(probed.received_s - sent_s, down_s))
            probes.up.append(Timing(arrived_s - probed.sent_s, up_s))
        return probes


def _expected_s(
    bits: int, start_s: float, links: Sequence[tuple[float, Direction]]
) -> float | None:
    """Time on the air from a Unix time on, and the delay; None if the link then is not known."""
    if not links:
        return None
    return airtime_s(bits, start_s, [(s, link.rate_bps) for s, link in links]) + links[0][1].delay_s
