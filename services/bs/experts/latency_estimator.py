"""The latency of a token on each device: t_q of Eq. 6, analytic, measured, or the larger.

Analytic: from the channel state and the devices' speeds (`orchestrator.moe.latency_model`).
Compute: from the speeds alone, the baseline that knows nothing of the radio. Measured:
per device, messages' times y (from sent to answered) against their tokens n, as y = a + b·n, where
a is what a message costs however small it is, and b what each token adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchestrator.contracts.channel_state import ChannelState
from orchestrator.moe.checkpoint import ModelInfo
from orchestrator.moe.latency_model import Floats, device_latency_s
from services.net import wire

# A message's weight in the fit halves with every HALF_LIFE later ones of its device.
HALF_LIFE = 20
# With fewer messages, a device is judged by Eq. 6.
ENOUGH = 8
# What was measured longer ago says nothing about a channel that fades, and a device that a policy
# avoids for what was measured is not measured again: after that time it is judged by Eq. 6.
STALE_S = 10.0
# Weight [tokens²] of the computed b in the fit. Messages of one size cannot separate a
# from b, and then only this does; with tokens that differ by more than a few it is negligible.
PRIOR = 1.0

_DECAY = 0.5 ** (1 / HALF_LIFE)
_UNKNOWN = (math.nan, math.nan)


@dataclass
class Fit:
    """One device's messages: sums over them, weighted by age, of 1, n, n², y [s] and n·y."""

    messages: int = 0
    heard_s: float = -math.inf
    w: float = 0.0
    n: float = 0.0
    nn: float = 0.0
    y: float = 0.0
    ny: float = 0.0

    def add(self, tokens: int, took_s: float, now_s: float) -> None:
        """Add an answered message."""
        self.messages += 1
        self.heard_s = now_s
        self.w = _DECAY * self.w + 1
        self.n = _DECAY * self.n + tokens
        self.nn = _DECAY * self.nn + tokens * tokens
        self.y = _DECAY * self.y + took_s
        self.ny = _DECAY * self.ny + tokens * took_s

    def is_poor(self, now_s: float) -> bool:
        """Return whether there are too few messages, or only old ones."""
        return self.messages < ENOUGH or now_s - self.heard_s > STALE_S

    def line(self, prior_s: float) -> tuple[float, float]:
        """a and b [s], neither negative; `prior_s` is b as Eq. 6 has it.

        The least of Σ w·(y − a − b·n)² + PRIOR·(b − prior)².
        """
        spread = max(self.nn - self.n * self.n / self.w, 0.0)
        together = self.ny - self.n * self.y / self.w
        token_s = max((together + PRIOR * prior_s) / (spread + PRIOR), 0.0)
        fixed_s = (self.y - token_s * self.n) / self.w
        # Where a would be negative, the best line goes through the origin.
        return (fixed_s, token_s) if fixed_s >= 0 else (0.0, self.ny / self.nn)


class LatencyEstimator:
    """The estimates of all devices; for the engine's thread only."""

    def __init__(self, info: ModelInfo, wire_dtype: str) -> None:
        """Without emulation a token has the size and the cost of the model that is served."""
        self._bits = float(8 * wire.payload_bytes(wire_dtype, 1, info.hidden_size))
        self._flop = 6.0 * info.hidden_size * info.intermediate_size
        self._fits = [Fit() for _ in range(info.experts)]
        self._learned_under: ChannelState | None = None
        self._lines: tuple[Floats, Floats] | None = None
        self._drawn_s = -math.inf
        self._state: ChannelState | None = None
        self._analytic_s = self._compute_s = np.zeros(info.experts)

    def analytic_s(self, state: ChannelState | None) -> Floats:
        """Eq. 6 for one token on each device [s], of the emulated model if there is one.

        Shape (E,); infinite in outage, 0 where nothing is shaped or no state is known. The same
        array again for the same state: states are immutable, and last for many layers.
        """
        self._compute(state)
        return self._analytic_s

    def compute_s(self, state: ChannelState | None) -> Floats:
        """The middle term of Eq. 6 alone, L_comp/C_q; otherwise as `analytic_s`."""
        self._compute(state)
        return self._compute_s

    def _compute(self, state: ChannelState | None) -> None:
        if state is self._state:
            return
        self._state = state
        if state is None:
            self._analytic_s = self._compute_s = np.zeros(len(self._fits))
            return
        bits, flop = self._bits, self._flop
        if state.emulate is not None:
            bits, flop = state.emulate.bits_per_token, state.emulate.flop_per_token
        self._analytic_s = device_latency_s(state, bits=bits, flop=flop)
        self._compute_s = device_latency_s(state, bits=0.0, flop=flop)

    def learn(
        self, q: int, tokens: int, took_s: float, now_s: float, state: ChannelState | None
    ) -> None:
        """Learn from a message of `tokens` tokens that was answered `took_s` after it was sent.

        Under another profile than the last one's, or after a switch that gave links other rates,
        all that was measured before is forgotten.
        """
        if self._is_of_other_links(state):
            self._fits = [Fit() for _ in self._fits]
            self._lines = None
        self._learned_under = state
        self._fits[q].add(tokens, took_s, now_s)

    def fit(self, state: ChannelState | None, now_s: float) -> None:
        """Draw the lines through what was learned so far, for `latency_s` to use.

        Separate, because there is time for it while the devices compute.
        """
        lines = [
            _UNKNOWN if fit.is_poor(now_s) or prior_s == math.inf else fit.line(prior_s)
            for fit, prior_s in zip(self._fits, self.analytic_s(state).tolist(), strict=True)
        ]
        fixed_s, token_s = np.array(lines).T
        self._lines = fixed_s, token_s
        self._drawn_s = now_s

    def latency_s(
        self,
        source: Literal["compute", "measured", "larger"],
        state: ChannelState | None,
        tokens: Floats,
        now_s: float,
    ) -> Floats:
        """t_q [s], shape (E,), for a layer that would send a device `tokens` (E,) tokens.

        Measured, it is b + a / max(1, tokens): each token bears its share of the message's cost. A
        device of which too little is known is judged by Eq. 6. In outage it is infinite.
        """
        if source == "compute":
            return self.compute_s(state)
        analytic_s = self.analytic_s(state)
        other = state is not None and self._is_of_other_links(state)
        if self._lines is None or other or now_s - self._drawn_s > STALE_S:
            return analytic_s
        fixed_s, token_s = self._lines
        measured_s = token_s + fixed_s / np.maximum(tokens, 1.0)
        known = np.isfinite(measured_s) & np.isfinite(analytic_s)
        measured_s = np.where(known, measured_s, analytic_s)
        return measured_s if source == "measured" else np.maximum(measured_s, analytic_s)

    def _is_of_other_links(self, state: ChannelState | None) -> bool:
        """Whether a switch, not fading that went on, lies between what was measured and a state."""
        before = self._learned_under
        if state is before:
            return False
        if state is None or before is None or state.profile_sha256 != before.profile_sha256:
            return True
        return state.epoch != before.epoch and state.devices != before.devices
