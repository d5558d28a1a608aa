"""The paper's latency model, Eq. 6 to 8, for all devices and tokens at once.

Like the paper, it leaves out extra delay, queues and the computation at the base station.
The last axis of arrays is that of devices, of length n; device q holds expert q of every layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.contracts.channel_state import ChannelState

Floats = NDArray[np.float64]


def or_infinite(values: Sequence[float | None]) -> Floats:
    """Return rates or speeds, shape (n,); None (not shaped, not emulated) becomes infinite: 0 s."""
    return np.array([math.inf if value is None else value for value in values], dtype=np.float64)


def token_latency_s(
    bits: float, flop: float, *, down_bps: ArrayLike, up_bps: ArrayLike, flops: ArrayLike
) -> Floats:
    """Return t_{j,q} = L_comm/R_q^d + L_comp/C_q + L_comm/R_q^u, Eq. 6 [s], of a token per device.

    Args:
        bits: L_comm, Eq. 5 [bit].
        flop: L_comp, Eq. 4 [FLOP].
        down_bps: R_q^d [bit/s], shape (n,).
        up_bps: R_q^u [bit/s], shape (n,).
        flops: C_q [FLOP/s], shape (n,).
    """
    latency: Floats = np.divide(bits, down_bps) + np.divide(flop, flops) + np.divide(bits, up_bps)
    return latency


def device_latency_s(state: ChannelState, *, bits: float, flop: float) -> Floats:
    """Return Eq. 6 for each device in a channel state, shape (n,) [s]; infinite if out of reach."""
    devices = state.devices
    latency = token_latency_s(
        bits,
        flop,
        down_bps=or_infinite([device.down.rate_bps for device in devices]),
        up_bps=or_infinite([device.up.rate_bps for device in devices]),
        flops=or_infinite([device.flops for device in devices]),
    )
    return np.where([device.reachable for device in devices], latency, math.inf)


def layer_latency_s(latency_s: ArrayLike, used: ArrayLike) -> Floats:
    """Return t_j = max over the experts used of t_{j,q}, Eq. 7 [s]; 0 for a token that uses none.

    Args:
        latency_s: t_{j,q}, shape (…, n) or (n,).
        used: whether token j uses expert q, boolean, shape (…, n).

    Returns:
        Shape (…), one value per token.
    """
    layer: Floats = np.max(np.where(used, latency_s, 0.0), axis=-1)
    return layer


def prompt_latency_s(layers_s: ArrayLike) -> float:
    """Return t_prompt = Σ_j Σ_i t_j^i, Eq. 8 [s], over all tokens and layers (any shape)."""
    return float(np.sum(layers_s))


def batched_latency_s(latency_s: Floats, tokens: ArrayLike) -> float:
    """Return max_q n_q · t_q [s]: Eq. 7 for a layer whose device q gets n_q tokens in one message.

    Args:
        latency_s: t_q, shape (n,); infinite for devices that cannot be used.
        tokens: n_q, shape (n,).
    """
    counts = np.asarray(tokens)
    # A device without tokens takes no time, even if its latency is infinite.
    return float(
        np.max(np.multiply(counts, latency_s, where=counts > 0, out=np.zeros(len(counts))))
    )
