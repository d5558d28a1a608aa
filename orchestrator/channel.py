"""The radio channel: path loss, Rayleigh fading, and the rate of one direction of a link.

A fading gain depends on (seed, device, direction, interval) and on nothing else: not on how many
devices there are, nor on what was drawn before. Two runs with one seed see the same fading, and
any interval can be drawn without those before it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

DirectionName = Literal["down", "up"]

_DIRECTION_KEYS: dict[DirectionName, int] = {"down": 0, "up": 1}


def path_loss_db(distance_m: float, carrier_ghz: float) -> float:
    """PL(d) = 32.4 + 20·log10(f_carrier [GHz]) + 20·log10(d [m]), in dB."""
    return 32.4 + 20 * math.log10(carrier_ghz) + 20 * math.log10(distance_m)


def mean_gain(loss_db: float) -> float:
    """The mean amplitude gain 10^(−PL/20) behind a path loss."""
    return 10 ** (-loss_db / 20)


def noise_w_per_hz(noise_dbm_per_hz: float) -> float:
    """N0 in W/Hz from dBm/Hz."""
    return 10 ** ((noise_dbm_per_hz - 30) / 10)


def rate_bps(bandwidth_hz: float, power_w: float, gain: float, noise_w_per_hz: float) -> float:
    """R = B·log2(1 + P·g² / (N0·B)), Eq. 2 and 3, of one device's share B of the bandwidth."""
    return bandwidth_hz * math.log2(1 + power_w * gain**2 / (noise_w_per_hz * bandwidth_hz))


def rayleigh_gain(
    mean: float, *, seed: int, device: int, direction: DirectionName, interval: int
) -> float:
    """An amplitude gain, Rayleigh distributed with this mean (scale mean·√(2/π)); never 0.

    The uniform number behind it is the seed sequence's own hash of the four keys, which numpy
    keeps the same in every version, as it does not for its distributions.
    """
    key = (device, _DIRECTION_KEYS[direction], interval)
    word = int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])
    uniform = ((word >> 11) + 0.5) * 2.0**-53
    return mean * math.sqrt(2 / math.pi) * math.sqrt(-2 * math.log(uniform))
