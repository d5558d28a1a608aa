"""Compare Eq. 6 with a channel that changes meanwhile: `python -m benchmarks.fading [PROFILE]`.

Needs no stack. Eq. 6 takes the rates at which a message begins; here each message also goes over
the rates of every interval that it lasts, as on the links. Requests start at random times, and each
token has two random experts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.contracts.channel_state import Emulation
from orchestrator.errors import InputError
from orchestrator.moe.latency_model import batched_latency_s, token_latency_s
from orchestrator.radio import profiles

INTERVALS = 4000
REQUESTS = 1000
LAYERS = 4
REQUEST_SIZES = ((14, 6), (22, 4))  # tokens of the prompt, steps


class Channel:
    """A profile's first `INTERVALS` intervals, one after another for ever."""

    def __init__(self, name: str) -> None:
        """InputError if the profile does not fade or emulates no computing."""
        profile = profiles.find(name)
        emulate = profile.spec.emulate
        if profile.interval_s is None or emulate is None:
            raise InputError(f"profile {name}: allowed: one with fading, emulate and flops")
        states = [profile.devices(interval) for interval in range(INTERVALS)]
        self.interval_s = profile.interval_s
        self.rates_bps = np.array(
            [[(each.down.rate_bps, each.up.rate_bps) for each in state] for state in states],
            dtype=np.float64,
        )
        self.flops = np.array([device.flops for device in states[0]], dtype=np.float64)
        cost = Emulation(**emulate.model_dump())
        self.bits, self.flop = cost.bits_per_token, cost.flop_per_token

    def at(self, time_s: float) -> NDArray[np.float64]:
        """Return the rates at a time, shape (devices, 2)."""
        found: NDArray[np.float64] = self.rates_bps[int(time_s / self.interval_s) % INTERVALS]
        return found

    def arrival_s(self, device: int, direction: int, bits: float, time_s: float) -> float:
        """Return when a message that begins at `time_s` has been sent."""
        while True:
            rate_bps = self.at(time_s)[device, direction]
            end_s = (int(time_s / self.interval_s) + 1) * self.interval_s
            if bits <= rate_bps * (end_s - time_s):
                return float(time_s + bits / rate_bps)
            bits -= rate_bps * (end_s - time_s)
            time_s = end_s

    def layer_s(self, tokens: Sequence[int], time_s: float) -> tuple[float, float]:
        """Return a layer's time over the changing rates, and by Eq. 6 and 7 with those of now."""
        ends = [time_s]
        for device, count in enumerate(tokens):
            if count:
                at_s = self.arrival_s(device, 0, count * self.bits, time_s)
                at_s += count * self.flop / self.flops[device]
                ends.append(self.arrival_s(device, 1, count * self.bits, at_s))
        down, up = self.at(time_s).T
        latency_s = token_latency_s(
            self.bits, self.flop, down_bps=down, up_bps=up, flops=self.flops
        )
        return max(ends) - time_s, batched_latency_s(latency_s, tokens)


def requests(channel: Channel, prompt_tokens: int, steps: int) -> NDArray[np.float64]:
    """Return both times of `REQUESTS` requests, shape (REQUESTS, 2) [s]."""
    rng = np.random.default_rng(1)
    devices = len(channel.flops)
    found = np.zeros((REQUESTS, 2))
    for times_s in found:
        start_s = rng.uniform(0, INTERVALS * channel.interval_s)
        for count in (prompt_tokens, *[1] * (steps - 1)):
            for _ in range(LAYERS):
                experts = [rng.choice(devices, 2, replace=False) for _ in range(count)]
                tokens = np.bincount(np.concatenate(experts), minlength=devices)
                times_s += channel.layer_s(tokens.tolist(), start_s + times_s[0])
    return found


def main() -> None:
    """Print, for each size of request, the ratio of both times."""
    channel = Channel(sys.argv[1] if len(sys.argv) > 1 else "block-fading")
    print("prompt tokens, steps: time over changing rates / by Eq. 6 and 7")
    for prompt_tokens, steps in REQUEST_SIZES:
        sent_s, modelled_s = requests(channel, prompt_tokens, steps).T
        print(
            f"{prompt_tokens}, {steps}: of the means {sent_s.mean() / modelled_s.mean():.2f}, "
            f"median {np.median(sent_s / modelled_s):.2f} ({REQUESTS} requests)"
        )


if __name__ == "__main__":
    main()
