"""How long a token takes on each device: t_q of Eq. 6, computed, measured, or the larger of both.

Computed: from the channel state and the devices' speeds (`orchestrator.latency`). Measured: per
device, messages' times y (from sent to answered) against their tokens n, as y = a + b·n, where a
is what a message costs however small it is, and b what each token adds.
"""

from __future__ import annotations

import math

import numpy as np

from orchestrator.checkpoint import ModelInfo
from orchestrator.latency import Floats, device_latency_s
from orchestrator.selection import LatencySource
from orchestrator.state import ChannelState
from services import wire

# A message's weight in the fit halves with every HALF_LIFE later ones of its device.
HALF_LIFE = 20
# Fewer messages than that say too little about a device.
ENOUGH = 8
# What was measured longer ago says nothing about a channel that fades, and a device that a policy
# avoids for what was measured is not measured again: after that time it is judged by Eq. 6.
STALE_S = 10.0
# Weight [tokens²] of the computed b in the fit. Messages that all have as many tokens do not tell a
# from b, and then only this does; with tokens that differ by more than a few it is negligible.
PRIOR = 1.0

_DECAY = 0.5 ** (1 / HALF_LIFE)


class LatencyEstimate:
    """The estimate for every device; used by the engine's thread only."""

    def __init__(self, info: ModelInfo, wire_dtype: str) -> None:
        """Without emulation a token has the size and the cost of the model that is served."""
        self._bits = float(8 * wire.payload_bytes(wire_dtype, 1, info.hidden_size))
        self._flop = 6.0 * info.hidden_size * info.intermediate_size
        self._zeros = np.zeros(info.experts)
        self._state: ChannelState | None = None
        self._analytic = self._zeros
        self._forget("")

    def analytic_s(self, state: ChannelState | None) -> Floats:
        """Eq. 6 for one token on each device [s], of the emulated model if there is one.

        Shape (E,); infinite in outage, 0 where nothing is shaped or no state is known.
        """
        if state is None:
            return self._zeros
        if state is not self._state:  # states are immutable, and last for many layers
            bits, flop = self._bits, self._flop
            if state.emulate is not None:
                bits, flop = state.emulate.bits_per_token, state.emulate.flop_per_token
            self._analytic = device_latency_s(state, bits=bits, flop=flop)
            self._state = state
        return self._analytic

    def learn(
        self, q: int, tokens: int, took_s: float, now_s: float, state: ChannelState | None
    ) -> None:
        """A message of `tokens` tokens was answered `took_s` after it was sent.

        Under another profile than the last one's, all that was measured before is forgotten.
        """
        profile = "" if state is None else state.profile_sha256
        if profile != self._profile:
            self._forget(profile)
        new = (1.0, tokens, tokens * tokens, took_s, tokens * took_s)
        self._sums[q] = [_DECAY * old + one for old, one in zip(self._sums[q], new, strict=True)]
        self._messages[q] += 1
        self._heard_s[q] = now_s

    def latency_s(
        self, source: LatencySource, state: ChannelState | None, tokens: Floats, now_s: float
    ) -> Floats:
        """t_q [s], shape (E,), for a layer that would send a device `tokens` (E,) tokens.

        Measured, it is b + a / max(1, tokens): each token bears its share of the message's cost. A
        device of which too little is known is judged by Eq. 6. In outage it is infinite.
        """
        analytic = self.analytic_s(state)
        if source == "analytic" or (state is not None and state.profile_sha256 != self._profile):
            return analytic
        known = np.array(self._messages) >= ENOUGH
        known &= now_s - np.array(self._heard_s) < STALE_S
        known &= np.isfinite(analytic)
        if not known.any():
            return analytic
        fixed_s, token_s = self._fit(np.where(known, analytic, 0.0))
        measured = np.where(known, token_s + fixed_s / np.maximum(tokens, 1.0), analytic)
        return measured if source == "measured" else np.maximum(measured, analytic)

    def _fit(self, prior_s: Floats) -> tuple[Floats, Floats]:
        """a and b of every device [s], neither negative; `prior_s` is b as Eq. 6 has it.

        Least squares over messages weighted by age, Σ w·(y − a − b·n)² + PRIOR·(b − prior)².
        Devices without a message get 0.
        """
        w, n, nn, y, ny = np.array(self._sums).T
        w, nn = np.maximum(w, 1e-9), np.maximum(nn, 1e-9)
        spread = np.maximum(nn - n * n / w, 0.0)
        slope = np.maximum((ny - n * y / w + PRIOR * prior_s) / (spread + PRIOR), 0.0)
        fixed = (y - slope * n) / w
        # Where a would be negative, the best line goes through the origin.
        return np.maximum(fixed, 0.0), np.where(fixed < 0, ny / nn, slope)

    def _forget(self, profile: str) -> None:
        self._profile = profile
        self._sums = [[0.0] * 5 for _ in self._zeros]
        self._messages = [0] * len(self._zeros)
        self._heard_s = [-math.inf] * len(self._zeros)
