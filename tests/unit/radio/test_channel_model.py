"""Path loss, fading and rate compared with the paper."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from orchestrator.radio import channel_model
from orchestrator.radio.channel_model import CorrelatedFading, DirectionName

NOISE = channel_model.noise_w_per_hz(-174)
SHARE_HZ = 12.5e6


def rate_at(distance_m: float, power_w: float) -> float:
    gain = channel_model.mean_gain(channel_model.path_loss_db(distance_m, 3.5))
    return channel_model.rate_bps(SHARE_HZ, power_w, gain, NOISE)


def test_check_values_of_the_paper() -> None:
    assert rate_at(100, 10) == pytest.approx(248e6, rel=2e-3)
    assert rate_at(100, 0.2) == pytest.approx(178e6, rel=3e-3)


# Computed with 40 decimal digits, without this code.
@pytest.mark.parametrize(
    ("distance_m", "down_bps", "up_bps"),
    [
        (20, 306_152_793.3912420, 235_604_628.4634045),
        (100, 248_104_609.3591557, 177_557_343.0713593),
        (500, 190_056_865.4833552, 119_532_050.0620362),
    ],
)
def test_rates_of_three_devices(distance_m: float, down_bps: float, up_bps: float) -> None:
    assert rate_at(distance_m, 10) == pytest.approx(down_bps, rel=1e-9)
    assert rate_at(distance_m, 0.2) == pytest.approx(up_bps, rel=1e-9)


distances = st.floats(1, 1e5)
powers = st.floats(1e-6, 1e3)


@given(distances, st.floats(1.001, 10), powers)
def test_rate_falls_with_distance(distance_m: float, farther: float, power_w: float) -> None:
    assert rate_at(distance_m, power_w) > rate_at(distance_m * farther, power_w) > 0


@given(distances, powers, st.floats(1.001, 10))
def test_rate_grows_with_power(distance_m: float, power_w: float, stronger: float) -> None:
    assert rate_at(distance_m, power_w) < rate_at(distance_m, power_w * stronger)


def draw(mean: float = 1.0, **key: int) -> float:
    where = {"seed": 7, "device": 0, "interval": 0, **key}
    return channel_model.rayleigh_gain(mean, direction="down", **where)


def fading(
    rho: float, *, seed: int = 7, device: int = 0, direction: DirectionName = "down"
) -> CorrelatedFading:
    return CorrelatedFading(rho, seed=seed, device=device, direction=direction)


def follows_rayleigh(gains: NDArray[np.float64], mean: float) -> bool:
    """Return the outcome of a Kolmogorov-Smirnov test at the level of 1 %."""
    scale = mean * math.sqrt(2 / math.pi)
    return bool(stats.kstest(gains, stats.rayleigh(scale=scale).cdf).pvalue > 0.01)


def test_draws_are_rayleigh_with_the_given_mean() -> None:
    gains = np.array([draw(2.0, interval=i) for i in range(100_000)])
    # Standard errors: 0.17 % of the mean, 0.32 % of the mean square.
    assert gains.mean() == pytest.approx(2.0, rel=0.005)
    assert (gains**2).mean() == pytest.approx(4 / math.pi * 4.0, rel=0.01)
    assert gains.min() > 0
    assert follows_rayleigh(gains, 2.0)
    assert not follows_rayleigh(gains, 2.02)  # the test detects an error of 1 %
    assert abs(np.corrcoef(gains[:-1], gains[1:])[0, 1]) < 0.01


def test_links_and_directions_are_drawn_independently() -> None:
    keys = range(4000)
    first_device = [draw(interval=i) for i in keys]
    other_device = [draw(interval=i, device=1) for i in keys]
    uplink = [
        channel_model.rayleigh_gain(1.0, seed=7, device=0, direction="up", interval=i) for i in keys
    ]
    assert np.abs(np.corrcoef([first_device, other_device, uplink]) - np.eye(3)).max() < 0.06


def test_correlated_links_and_directions_are_drawn_independently() -> None:
    processes = [fading(0.5), fading(0.5, device=1), fading(0.5, direction="up")]
    gains = [[process.complex_gain(i) for i in range(4000)] for process in processes]
    # Correlated in time, so the standard error is that of 2400 draws, 0.02.
    assert np.abs(np.corrcoef(gains) - np.eye(3)).max() < 0.06


def test_a_draw_depends_on_its_keys_only() -> None:
    assert draw(device=2, interval=1_000_000) == draw(device=2, interval=1_000_000)
    assert len({draw(), draw(seed=8), draw(device=1), draw(interval=1)}) == 4
    # Recorded once: a release that draws differently breaks every recorded comparison.
    assert draw() == pytest.approx(0.5255265372497245, rel=1e-12)
    third = fading(0.5).complex_gain(3)
    assert third == pytest.approx(0.09874888559235659 - 0.39617455253286415j, rel=1e-12)
    assert channel_model.shadowing_db(8.0, seed=7, device=1) == pytest.approx(
        6.967174804707812, rel=1e-12
    )


def test_without_correlation_the_gains_are_the_independent_draws() -> None:
    process = fading(0.0)
    for interval in range(50):
        assert process.gain(2.0, interval) == pytest.approx(draw(2.0, interval=interval), rel=1e-12)


def test_a_correlated_gain_does_not_depend_on_the_order_of_calls() -> None:
    intervals = list(range(1500))  # more than a process caches
    process = fading(0.9)
    in_order = [process.complex_gain(i) for i in intervals]
    shuffled = fading(0.9)
    for interval in np.random.default_rng(1).permutation(intervals)[:20].tolist():
        assert shuffled.complex_gain(interval) == in_order[interval]
    assert process.complex_gain(0) == in_order[0]
    assert process.complex_gain(1499) == in_order[1499]


@pytest.mark.parametrize("rho", [0.0, 0.53, -0.4, 0.97])
def test_a_far_interval_is_exact_and_quick_to_draw(rho: float) -> None:
    process = fading(rho)
    in_order = [process.complex_gain(i) for i in range(6000)][5999]
    assert fading(rho).complex_gain(5999) == in_order
    fading(rho).complex_gain(1 << 39)  # from 0 on it would take months


@pytest.mark.parametrize(("rho", "intervals"), [(0.0, 0), (0.1, 24), (-0.1, 24), (1.0, 0)])
def test_the_memory_of_a_process_follows_from_its_correlation(rho: float, intervals: int) -> None:
    assert channel_model.memory(rho) == intervals


def test_a_static_device_keeps_its_gain() -> None:
    process = fading(1.0)
    assert process.complex_gain(1 << 39) == process.complex_gain(0)


# Slow pedestrians at 3.5 GHz, intervals of 50 ms: f_D·T from 0.12 to 0.35.
@pytest.mark.parametrize("speed_m_per_s", [0.2, 0.4, 0.6])
def test_the_gain_of_a_moving_device_has_clarke_s_correlation(speed_m_per_s: float) -> None:
    rho = channel_model.jakes_correlation(speed_m_per_s, carrier_ghz=3.5, lag_s=0.05)
    x = 2 * math.pi * speed_m_per_s * 3.5e9 / 299_792_458 * 0.05
    angles = (np.arange(64) + 0.5) * math.pi / 64
    assert rho == pytest.approx(np.cos(x * np.sin(angles)).mean(), abs=1e-12)  # J0's integral
    process = fading(rho)
    h = np.array([process.complex_gain(i) for i in range(20_000)])
    power = (np.abs(h) ** 2).mean()
    lag_1 = (h[1:] * h[:-1].conj()).mean() / power
    lag_3 = (h[3:] * h[:-3].conj()).mean() / power
    assert abs(lag_1 - rho) < 0.01
    assert abs(lag_3 - rho**3) < 0.02
    assert follows_rayleigh(np.abs(h[::20]), math.sqrt(math.pi / 2))


@pytest.mark.parametrize(("speed_m_per_s", "expected"), [(0.0, 1.0), (0.6556716, 0.0)])
def test_the_correlation_is_1_without_motion_and_0_at_the_first_zero(
    speed_m_per_s: float, expected: float
) -> None:
    assert channel_model.jakes_correlation(speed_m_per_s, 3.5, 0.05) == pytest.approx(
        expected, abs=1e-5
    )


def test_shadowing_is_normal_in_decibels_and_independent_of_fading() -> None:
    shadows = np.array([channel_model.shadowing_db(6.0, seed=7, device=q) for q in range(4000)])
    assert stats.kstest(shadows / 6.0, "norm").pvalue > 0.01
    first_fades = [draw(device=q) for q in range(4000)]
    assert abs(np.corrcoef(shadows, first_fades)[0, 1]) < 0.05
    assert channel_model.shadowing_db(0.0, seed=7, device=0) == 0
