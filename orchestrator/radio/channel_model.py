"""The radio channel: path loss, shadowing, Rayleigh fading, and one direction's rate.

A draw depends on (seed, device, direction, interval) only: not on the number of devices, nor on the
order in which intervals are computed. Two runs with one seed see the same channel. Shadowing is one
draw per (seed, device): an obstacle shadows both directions of a device.

Fading is independent in every interval (`rayleigh_gain`), or correlated from one to the next
(`CorrelatedFading`), a first-order Gauss-Markov process. It reproduces a Rayleigh distributed gain
in every interval, and the correlation ρ = J0(2π·f_D·T) of Clarke's model from one interval to the
next. It does not reproduce Clarke's correlation over k intervals, J0(2π·f_D·kT), which oscillates
about 0; here it is ρ^k, which only decays. Depth and rate of fades are right, the spectrum of a
long record is not.
"""

from __future__ import annotations

import cmath
import math
import threading
from collections import deque
from typing import Literal

import numpy as np

DirectionName = Literal["down", "up"]

_DIRECTION_KEYS: dict[DirectionName, int] = {"down": 0, "up": 1}
_SHADOWING_KEY = 2
# A contribution to the gain, far below its rounding error.
_FORGOTTEN = 1e-24

_LIGHT_M_PER_S = 299_792_458.0


def path_loss_db(distance_m: float, carrier_ghz: float) -> float:
    """Return PL(d) = 32.4 + 20·log10(f_carrier [GHz]) + 20·log10(d [m]), in dB."""
    return 32.4 + 20 * math.log10(carrier_ghz) + 20 * math.log10(distance_m)


def mean_gain(loss_db: float) -> float:
    """Return the mean amplitude gain 10^(−PL/20) of a path loss."""
    return 10 ** (-loss_db / 20)


def noise_w_per_hz(noise_dbm_per_hz: float) -> float:
    """Convert N0 from dBm/Hz to W/Hz."""
    return 10 ** ((noise_dbm_per_hz - 30) / 10)


def rate_bps(bandwidth_hz: float, power_w: float, gain: float, noise_w_per_hz: float) -> float:
    """Return R = B·log2(1 + P·g² / (N0·B)), Eq. 2 and 3, for one device's share B of the band."""
    return bandwidth_hz * math.log2(1 + power_w * gain**2 / (noise_w_per_hz * bandwidth_hz))


def rayleigh_gain(
    mean: float, *, seed: int, device: int, direction: DirectionName, interval: int
) -> float:
    """Draw an amplitude gain, Rayleigh distributed with this mean (scale mean·√(2/π)); never 0."""
    (uniform,) = _uniform(1, seed, device, _DIRECTION_KEYS[direction], interval)
    return mean * math.sqrt(2 / math.pi) * _amplitude(uniform)


def shadowing_db(deviation_db: float, *, seed: int, device: int) -> float:
    """Return a device's log-normal shadowing: zero-mean decibels on top of its path loss."""
    return deviation_db * _normal_pair(seed, device, _SHADOWING_KEY).real


def jakes_correlation(speed_m_per_s: float, carrier_ghz: float, lag_s: float) -> float:
    """Return ρ = J0(2π·f_D·T), f_D = v·f_c/c: Clarke's correlation of the gain after a time T."""
    from scipy.special import j0  # takes 0.3 s, and few commands need it

    doppler_hz = speed_m_per_s * carrier_ghz * 1e9 / _LIGHT_M_PER_S
    return float(j0(2 * math.pi * doppler_hz * lag_s))


def memory(rho: float) -> int:
    """Return the number of previous intervals that affect the last bit of a gain, for -1 ≤ ρ ≤ 1.

    0 if ρ is 0, and also if it is 1 or -1: then the gain never changes.
    """
    if abs(rho) in (0, 1):
        return 0
    return math.ceil(math.log(_FORGOTTEN) / math.log(abs(rho)))


class CorrelatedFading:
    """One direction's Rayleigh gain from interval to interval, correlated by `rho`.

        h_0 = w_0        h_i = ρ·h_{i-1} + √(1 - ρ²)·w_i        w_i complex normal, Box-Muller

    The amplitude of w_i is that of `rayleigh_gain`, so ρ = 0 draws the same gains. The following
    interval costs one draw. The latest gains are cached, because the broadcast is ahead of requests
    for the state in force. Any other interval costs as many draws as the memory is long: the effect
    of earlier draws is below the rounding of the gain. Instances are thread-safe.
    """

    _CACHED = 1024

    def __init__(self, rho: float, *, seed: int, device: int, direction: DirectionName) -> None:
        self._rho = rho
        self._memory = memory(rho)
        self._key = (seed, device, _DIRECTION_KEYS[direction])
        self._latest: deque[complex] = deque(maxlen=self._CACHED)
        self._next = 0
        self._lock = threading.Lock()

    def gain(self, mean: float, interval: int) -> float:
        """Return the amplitude gain in an interval, Rayleigh distributed with this mean."""
        return mean * math.sqrt(2 / math.pi) * abs(self.complex_gain(interval))

    def complex_gain(self, interval: int) -> complex:
        """Return h of an interval; real and imaginary part have variance 1."""
        if self._rho == 1:
            interval = 0  # it never changes
        with self._lock:
            if interval < self._next - len(self._latest) or interval > self._next + self._memory:
                self._restart_before(interval)
            while self._next <= interval:
                self._advance()
            return self._latest[interval - self._next]

    def _restart_before(self, interval: int) -> None:
        """Restart so that `interval` is next; gains before it are inexact and not kept."""
        self._latest.clear()
        self._next = max(0, interval - self._memory)
        while self._next < interval:
            self._advance()
        while len(self._latest) > 1:
            self._latest.popleft()

    def _advance(self) -> None:
        fresh = _normal_pair(*self._key, self._next)
        if self._latest:
            fresh = self._rho * self._latest[-1] + math.sqrt(1 - self._rho**2) * fresh
        self._latest.append(fresh)
        self._next += 1


def _uniform(count: int, seed: int, *key: int) -> list[float]:
    """Return `count` numbers in (0, 1) for a key.

    They come from the seed sequence's hash of seed and key, which is the same in every version of
    numpy; its distributions are not.
    """
    words = np.random.SeedSequence(seed, spawn_key=key).generate_state(count, np.uint64)
    return [((int(word) >> 11) + 0.5) * 2.0**-53 for word in words]


def _amplitude(uniform: float) -> float:
    """Return a Rayleigh distributed number of scale 1."""
    return math.sqrt(-2 * math.log(uniform))


def _normal_pair(seed: int, *key: int) -> complex:
    """Return two standard normal numbers as one complex number (Box-Muller)."""
    first, second = _uniform(2, seed, *key)
    return cmath.rect(_amplitude(first), 2 * math.pi * second)
