"""The prober: times a link with messages of one size, beside the times expected of the channel.

bs ──Probe, size──► device ──Probed, size──► bs
   │    down     │          │     up      │        each measured_s beside its expected_s

A message can be faster than expected: a token bucket (backend tbf) passes the first bytes at once,
so that it ends earlier by up to the bucket's time on the air.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.contracts.channel_state import Direction
from orchestrator.contracts.http import Probes, ProbeTime
from orchestrator.moe.airtime import airtime_s, wire_bits
from services.bs.experts.dispatcher import Dispatcher
from services.bs.experts.loopback import Loopback
from services.net import wire
from services.net.channel_feed import ChannelFeed

# No request is served while a probe is under way.
MAX_PROBE_S = 60.0


@dataclass
class ProbeSeries:
    """A series of probes to make; `deliver` is called from the engine's thread.

    Attributes:
        deliver: takes the probes, or why there are none.
        cancelled: set from any thread when the client has left.
        probes: those made so far; None before the first.
    """

    device: int
    size_bytes: int
    count: int
    deliver: Callable[[Probes | str], None]
    cancelled: bool = False
    probes: Probes | None = None


class Prober:
    """The maker of probes; for the engine's thread, between requests."""

    def __init__(self, dispatcher: Dispatcher, channel: ChannelFeed, curve: bool) -> None:
        self._dispatcher = dispatcher
        self._channel = channel
        self._curve = curve
        self._loopback = Loopback(curve)

    def advance(self, request: ProbeSeries) -> Probes | str | None:
        """Make one more probe of a series; return the series after its last one, else None.

        A text is why the series ends early: the device is absent, falls silent, or is too slow.
        """
        q, pad = request.device, wire.padding(0, request.size_bytes)
        sample = wire.encode(wire.Probed(0, pad, 0.0, 0.0))
        bits = wire_bits(wire.bytes_on_tcp(sample, self._curve))
        if request.probes is None:
            request.probes = Probes(wire_bits=bits, down=[], up=[], loopback_s=[])
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
        probes.down.append(ProbeTime(measured_s=probed.received_s - sent_s, expected_s=down_s))
        probes.up.append(ProbeTime(measured_s=arrived_s - probed.sent_s, expected_s=up_s))
        return probes if len(probes.down) == request.count else None

    def _both_s(self, q: int, bits: int) -> float:
        """Return the time of a probe under the state in force [s]; 0 if none is known."""
        state = self._channel.current()
        if state is None:
            return 0.0
        links = (state.devices[q].down, state.devices[q].up)
        return sum(bits / link.rate_bps + link.delay_s for link in links if link.rate_bps)


def _expected_s(
    bits: int, start_s: float, links: Sequence[tuple[float, Direction]]
) -> float | None:
    """Return time on the air from a Unix time on, plus delay; None if the link is unknown."""
    if not links:
        return None
    return airtime_s(bits, start_s, [(s, link.rate_bps) for s, link in links]) + links[0][1].delay_s
