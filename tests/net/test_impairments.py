"""Delay, jitter and loss: netem applies them, a token bucket ignores them."""

import math
from itertools import groupby

import pytest

from tests.net.conftest import WAYS, Link, Way

KIB = 1024


@pytest.mark.parametrize("rate", [{}, {"rate_bps": 50e6}])
def test_delay_is_added_in_its_own_direction_and_removed_again(
    link: Link, rate: dict[str, float]
) -> None:
    link.shape(rate, rate)
    plain_s = link.fastest_s(KIB, KIB)
    link.shape(rate | {"delay_s": 0.02}, rate)
    delayed_s = link.fastest_s(KIB, KIB)
    added_s = 0.02 if link.backend == "netem" else 0.0
    assert delayed_s[0] - plain_s[0] == pytest.approx(added_s, abs=4e-3)
    assert delayed_s[1] == pytest.approx(plain_s[1], abs=4e-3)
    link.shape(rate, rate)
    assert link.fastest_s(KIB, KIB)[0] == pytest.approx(plain_s[0], abs=4e-3)


@pytest.mark.parametrize("way", WAYS)
def test_jitter_spreads_the_delay_and_keeps_the_order(link: Link, way: Way) -> None:
    link.shape_both(rate_bps=50e6, delay_s=0.01, jitter_s=0.008)
    times_s = sorted(link.times_s(KIB, KIB)[WAYS.index(way)] for _ in range(41))
    if link.backend == "netem":
        # uniform from 2 to 18 ms
        assert times_s[4] < 0.009
        assert times_s[36] > 0.012
    else:
        assert times_s[20] < 0.009
    link.send(way, 500)
    assert [number for number, _ in link.arrivals(way)] == list(range(500))
    assert link.read()[way]["drops"] == 0


@pytest.mark.parametrize("way", WAYS)
def test_loss_has_the_rate_and_burst_length_of_gilbert_elliott(link: Link, way: Way) -> None:
    p, r, n = 0.05, 0.3, 20_000
    link.shape_both(loss_p=p, loss_r=r)
    link.send(way, n, size=64)
    arrived = {number for number, _ in link.arrivals(way)}
    # the kernel's own packets can be lost, too
    assert 0 <= link.read()[way]["drops"] - (n - len(arrived)) <= 5
    if link.backend == "tbf":
        assert len(arrived) == n
        return
    bursts = [len(list(run)) for got, run in groupby(i in arrived for i in range(n)) if not got]
    # Five standard deviations, from the variance of the mean of a two-state chain with memory
    # 1 - p - r, and from that of the mean of geometric burst lengths.
    rate = p / (p + r)
    rate_deviation = math.sqrt(rate * (1 - rate) / n * (2 - p - r) / (p + r))
    assert (n - len(arrived)) / n == pytest.approx(rate, abs=5 * rate_deviation)
    length_deviation = math.sqrt((1 - r) / len(bursts)) / r
    assert sum(bursts) / len(bursts) == pytest.approx(1 / r, abs=5 * length_deviation)
