"""The radio channel: path loss, shadowing, Rayleigh fading, and one direction's rate.

A draw depends on (seed, device, direction, interval) and on nothing else: not on how many devices
there are, nor on the order in which intervals are asked for. Two runs with one seed see the same
channel. Shadowing is one draw per (seed, device): what shadows a device shadows both directions.

Fading is drawn afresh for every interval (`rayleigh_gain`), or correlated from one to the next
(`CorrelatedFading`), a first-order Gauss-Markov process. What that does give: a gain that is
Rayleigh distributed in every interval, and the correlation ρ = J0(2π·f_D·T) of Clarke's model from
one interval to the next. What it does not: Clarke's correlation over k intervals, J0(2π·f_D·kT),
which oscillates about 0; here it is ρ^k, which only decays. How deep fades are and how fast they
come is right, the spectrum of a long record is not.
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
# Of a gain, far below the rounding of its numbers.
_FORGOTTEN = 1e-24

_LIGHT_M_PER_S = 299_792_458.0


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
    """An amplitude gain, Rayleigh distributed with this mean (scale mean·√(2/π)); never 0."""
    (uniform,) = _uniform(1, seed, device, _DIRECTION_KEYS[direction], interval)
    return mean * math.sqrt(2 / math.pi) * _amplitude(uniform)


def shadowing_db(deviation_db: float, *, seed: int, device: int) -> float:
    """A device's log-normal shadowing: decibels on top of its path loss, of mean 0."""
    return deviation_db * _normal_pair(seed, device, _SHADOWING_KEY).real


def jakes_correlation(speed_m_per_s: float, carrier_ghz: float, lag_s: float) -> float:
    """ρ = J0(2π·f_D·T) with f_D = v·f_c/c: Clarke's correlation of the gain after a time T."""
    from scipy.special import j0  # 0.3 s, which commands without a moving device need not wait

    doppler_hz = speed_m_per_s * carrier_ghz * 1e9 / _LIGHT_M_PER_S
    return float(j0(2 * math.pi * doppler_hz * lag_s))


def memory(rho: float) -> int:
    """How many intervals before matter to a gain's last bit, where ρ is from -1 to 1.

    0 if ρ is 0, and if it is 1 or -1, when the gain never changes.
    """
    if abs(rho) in (0, 1):
        return 0
    return math.ceil(math.log(_FORGOTTEN) / math.log(abs(rho)))


class CorrelatedFading:
    """One direction's Rayleigh gain from interval to interval, correlated by `rho`.

        h_0 = w_0        h_i = ρ·h_{i-1} + √(1 - ρ²)·w_i        w_i complex normal, Box-Muller

    w_i's amplitude is that of `rayleigh_gain`, so ρ = 0 draws the same gains. Going on by an
    interval costs one draw. The latest gains are remembered, because who broadcasts is ahead of who
    asks what is in force. Any other interval costs as many draws as the process has a memory: what
    was before them is less than the rounding of its gain. Threads may share one.
    """

    _REMEMBERED = 1024

    def __init__(self, rho: float, *, seed: int, device: int, direction: DirectionName) -> None:
        self._rho = rho
        self._memory = memory(rho)
        self._key = (seed, device, _DIRECTION_KEYS[direction])
        self._latest: deque[complex] = deque(maxlen=self._REMEMBERED)
        self._next = 0
        self._lock = threading.Lock()

    def gain(self, mean: float, interval: int) -> float:
        """The amplitude gain in an interval, Rayleigh distributed with this mean."""
        return mean * math.sqrt(2 / math.pi) * abs(self.complex_gain(interval))

    def complex_gain(self, interval: int) -> complex:
        """h of an interval; real and imaginary part have variance 1."""
        if self._rho == 1:
            interval = 0  # it never changes
        with self._lock:
            if interval < self._next - len(self._latest) or interval > self._next + self._memory:
                self._begin_before(interval)
            while self._next <= interval:
                self._advance()
            return self._latest[interval - self._next]

    def _begin_before(self, interval: int) -> None:
        """Be ready for an interval; those before it would not be right, and are not remembered."""
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
    """Numbers in (0, 1) that belong to a key.

    They are the seed sequence's own hash of seed and key, which numpy keeps the same in every
    version, as it does not for its distributions.
    """
    words = np.random.SeedSequence(seed, spawn_key=key).generate_state(count, np.uint64)
    return [((int(word) >> 11) + 0.5) * 2.0**-53 for word in words]


def _amplitude(uniform: float) -> float:
    """Rayleigh distributed, of scale 1."""
    return math.sqrt(-2 * math.log(uniform))


def _normal_pair(seed: int, *key: int) -> complex:
    """Two standard normal numbers as one complex, by Box and Muller."""
    first, second = _uniform(2, seed, *key)
    return cmath.rect(_amplitude(first), 2 * math.pi * second)
