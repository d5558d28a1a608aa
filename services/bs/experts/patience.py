"""The deadline of a device's answer; a device that misses it is given up."""

from __future__ import annotations

from orchestrator.contracts.channel_state import ChannelState
from orchestrator.moe.checkpoint import ModelInfo
from services.bs.experts.latency_estimator import Fit

# How many times longer than expected an answer may take.
FACTOR = 2.0
# The assumed speed of a device with too few measurements: a processor core that several devices
# share is faster.
LEAST_FLOPS = 1e9


class Patience:
    """The patience with each device; for the engine's thread only.

    time-out + FACTOR · (link, both ways + the larger of emulated and measured computing time)
    """

    def __init__(self, timeout_s: float, info: ModelInfo) -> None:
        self._timeout_s = timeout_s
        self._token_s = 6.0 * info.hidden_size * info.intermediate_size / LEAST_FLOPS
        self._fits = [Fit() for _ in range(info.experts)]

    def of_s(
        self, q: int, tokens: int, size: int, channel: ChannelState | None, now_s: float
    ) -> float:
        """Return how long device q may take for `size` bytes each way, and computing [s]."""
        expected_s, emulated_s = 0.0, 0.0
        if channel is not None:
            link = channel.devices[q]
            for direction in (link.down, link.up):
                if direction.rate_bps:
                    expected_s += 8 * size / direction.rate_bps
                expected_s += direction.delay_s + direction.jitter_s
            if channel.emulate is not None and link.flops:
                emulated_s = tokens * channel.emulate.flop_per_token / link.flops
        expected_s += max(emulated_s, self._compute_s(q, tokens, now_s))
        return self._timeout_s + FACTOR * expected_s

    def learn(self, q: int, tokens: int, compute_s: float, now_s: float) -> None:
        """Record that device q computed `tokens` tokens in `compute_s`."""
        self._fits[q].add(tokens, compute_s, now_s)

    def _compute_s(self, q: int, tokens: int, now_s: float) -> float:
        """Estimate by the fitted line; with too few messages, at least by LEAST_FLOPS."""
        fit, least_s = self._fits[q], tokens * self._token_s
        if not fit.messages:
            return least_s
        fixed_s, token_s = fit.line(self._token_s)
        fitted_s = fixed_s + tokens * token_s
        return max(fitted_s, least_s) if fit.is_poor(now_s) else fitted_s
