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

from orchestrator.contracts.channel_state import Direction
from orchestrator.moe.airtime import airtime_s, wire_bits
from services.bs.experts.dispatcher import Dispatcher
from services.bs.experts.loopback import Loopback
from services.net import wire
from services.net.channel_feed import ChannelFeed

# Nobody else is served while a probe is on its way.
MAX_PROBE_S = 60.0


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
    """A series of probes to make; `deliver` is called from the engine's thread.

    Attributes:
        deliver: takes the probes, or why there are none.
        cancelled: set from any thread when nobody waits for them any more.
        probes: those made so far; None before the first.
    """

    device: int
    size_bytes: int
    count: int
    deliver: Callable[[Probes | str], None]
    cancelled: bool = False
    probes: Probes | None = None


class Prober:
    """Used by the engine's thread, between requests."""

    def __init__(self, dispatcher: Dispatcher, channel: ChannelFeed, curve: bool) -> None:
        self._dispatcher = dispatcher
        self._channel = channel
        self._curve = curve
        self._loopback = Loopback(curve)

    def advance(self, request: ProbeRequest) -> Probes | str | None:
        """Make one more probe of a series: the series if that was its last, None if it was not.

        A text is why there is no more of it: the device is not there, falls silent, or is too slow.
        """
        q, pad = request.device, wire.padding(0, request.size_bytes)
        sample = wire.encode(wire.Probed(0, pad, 0.0, 0.0))
        bits = wire_bits(wire.bytes_on_tcp(sample, self._curve))
        if request.probes is None:
            request.probes = Probes(bits, [], [], [])
        probes = request.probes
        if len(probes.down) >= request.count:
            return probes
        if (takes_s := self._both_s(q, bits)) > MAX_PROBE_S:
            return (
                f"size_bytes: {request.size_bytes} take {takes_s:.0f} s on the link of device-{q} "
                f"as it is now; allowed: up to {MAX_PROBE_S:.0f} s"
            )
        time.sleep(wire.PROBE_PAUSE_S)
        probes.loopback_s.append(self._loopback.time_s(sample))
        time.sleep(wire.PROBE_PAUSE_S)
        sent_unix_s = time.time()
        answer = self._dispatcher.probe(q, pad, lambda: request.cancelled)
        if answer is None:
            return f"device-{q} does not answer"
        sent_s, probed, arrived_s = answer
        states = self._channel.since(sent_unix_s)

        back_unix_s = sent_unix_s + probed.sent_s - sent_s
        down_s = _expected_s(bits, sent_unix_s, [(s.apply_at_s, s.devices[q].down) for s in states])
        up_s = _expected_s(bits, back_unix_s, [(s.apply_at_s, s.devices[q].up) for s in states])
        probes.down.append(Timing(probed.received_s - sent_s, down_s))
        probes.up.append(Timing(arrived_s - probed.sent_s, up_s))
        return probes if len(probes.down) == request.count else None

    def _both_s(self, q: int, bits: int) -> float:
        """What a probe takes if the state in force stays [s]; 0 if none is known."""
        state = self._channel.current()
        if state is None:
            return 0.0
        links = (state.devices[q].down, state.devices[q].up)
        return sum(bits / link.rate_bps + link.delay_s for link in links if link.rate_bps)


def _expected_s(
    bits: int, start_s: float, links: Sequence[tuple[float, Direction]]
) -> float | None:
    """Time on the air from a Unix time on, and the delay; None if the link then is not known."""
    if not links:
        return None
    return airtime_s(bits, start_s, [(s, link.rate_bps) for s, link in links]) + links[0][1].delay_s
