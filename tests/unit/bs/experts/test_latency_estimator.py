"""The base station's latency estimate: what is computed, what is measured, and which applies."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.contracts.channel_state import ChannelState, DeviceState, Direction, Emulation
from orchestrator.moe.checkpoint import ModelInfo
from orchestrator.moe.latency_model import batched_latency_s
from services.bs.experts.latency_estimator import ENOUGH, STALE_S, LatencyEstimator

INFO = ModelInfo(layers=2, experts=3, top_k=2, hidden_size=16, intermediate_size=24, vocab_size=40)
LINK = Direction(rate_bps=1e8)
EMULATE = Emulation(hidden_size=4096, intermediate_size=14336, bits_per_element=16)
STATE = ChannelState(
    *(1, 0, 0.0, "test", "0" * 64),
    devices=tuple(DeviceState(LINK, LINK, flops) for flops in (1e11, 2e11, 4e11)),
    emulate=EMULATE,
)
EQ6_S = [2 * 65_536 / 1e8 + EMULATE.flop_per_token / flops for flops in (1e11, 2e11, 4e11)]
ONE = np.ones(3)


def messages(
    estimate: LatencyEstimator, count: int, fixed_s: float, token_s: float, noise: float = 0.0
) -> None:
    """Learn answers of device 0 at time 0, of 1 to 40 tokens, with a relative error; then fit."""
    draw = random.Random(5)
    for _ in range(count):
        n = draw.randint(1, 40)
        took_s = (fixed_s + token_s * n) * (1 + noise * draw.uniform(-1, 1))
        estimate.learn(0, n, took_s, 0.0, STATE)
    estimate.fit(STATE, 0.0)


def lines(estimate: LatencyEstimator) -> tuple[float, float]:
    """Return a and b of device 0, from the estimates for messages of 1 and 1,000,000 tokens."""
    at = {n: float(estimate.latency_s("measured", STATE, np.full(3, n), 0.0)[0]) for n in (1, 1e6)}
    return at[1] - at[1e6], at[1e6]


def test_the_computed_latency_is_eq_6_of_the_emulated_model() -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    assert estimate.analytic_s(STATE).tolist() == pytest.approx(EQ6_S, rel=1e-12)
    assert estimate.analytic_s(None).tolist() == [0, 0, 0]


def test_without_emulation_the_latency_is_eq_6_of_the_served_model() -> None:
    served = LatencyEstimator(INFO, "fp16").analytic_s(replace(STATE, emulate=None))
    expected = 2 * 16 * 16 / 1e8 + 6 * 16 * 24 / 1e11
    assert served[0] == pytest.approx(expected, rel=1e-12)


@given(st.floats(1e-4, 0.05), st.floats(1e-4, 0.05))
@settings(max_examples=50)
def test_the_fixed_and_the_per_token_part_are_separated(fixed_s: float, token_s: float) -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, 200, fixed_s, token_s)
    a, b = lines(estimate)
    # The computed value, 5 ms, counts as one token's worth in the fit.
    assert a == pytest.approx(fixed_s, abs=1e-2 * (fixed_s + token_s + EQ6_S[0]))
    assert b == pytest.approx(token_s, abs=1e-3 * (token_s + EQ6_S[0]))


def test_both_parts_are_found_in_noise_of_ten_percent() -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, 400, fixed_s=0.02, token_s=0.004, noise=0.1)
    a, b = lines(estimate)
    assert a == pytest.approx(0.02, rel=0.35)
    assert b == pytest.approx(0.004, rel=0.1)


def test_the_fit_follows_a_change() -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, 300, fixed_s=0.002, token_s=0.001)
    messages(estimate, 200, fixed_s=0.02, token_s=0.01)
    assert lines(estimate) == pytest.approx((0.02, 0.01), rel=0.05)


@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0, 10)), min_size=ENOUGH, max_size=60))
def test_neither_part_is_ever_negative(taken: list[tuple[int, float]]) -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    for n, took_s in taken:
        estimate.learn(0, n, took_s, 0.0, STATE)
    estimate.fit(STATE, 0.0)
    a, b = lines(estimate)
    assert a >= -1e-9
    assert b >= 0


def test_equal_messages_give_the_latency_that_was_measured() -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    for took_s in (0.011, 0.009) * ENOUGH:
        estimate.learn(0, 1, took_s, 0.0, STATE)
    estimate.fit(STATE, 0.0)
    assert estimate.latency_s("measured", STATE, ONE, 0.0)[0] == pytest.approx(0.01, rel=0.01)


def test_the_latency_of_a_device_is_computed_until_enough_was_measured() -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, ENOUGH - 1, 0.02, 0.1)
    assert estimate.latency_s("measured", STATE, ONE, 0.0).tolist() == pytest.approx(EQ6_S)
    messages(estimate, 1, 0.02, 0.1)
    measured = estimate.latency_s("measured", STATE, ONE, 0.0).tolist()
    assert measured[0] == pytest.approx(0.12, rel=0.1)
    assert measured[1:] == pytest.approx(EQ6_S[1:])


def test_stale_measurements_are_not_used() -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, 50, 0.02, 0.1)
    late_s = STALE_S + 1
    assert estimate.latency_s("measured", STATE, ONE, late_s).tolist() == pytest.approx(EQ6_S)
    estimate.fit(STATE, late_s)
    assert estimate.latency_s("measured", STATE, ONE, late_s).tolist() == pytest.approx(EQ6_S)


def test_another_profile_is_measured_afresh() -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, 50, 0.02, 0.1)
    other = replace(STATE, profile_sha256="1" * 64)
    assert estimate.latency_s("measured", other, ONE, 0.0).tolist() == pytest.approx(EQ6_S)
    estimate.learn(0, 1, 0.5, 0.0, other)
    estimate.fit(other, 0.0)
    assert estimate.latency_s("measured", other, ONE, 0.0).tolist() == pytest.approx(EQ6_S)


def faded(epoch: int, interval: int, rate_bps: float) -> ChannelState:
    """The same profile's devices over other links."""
    link = Direction(rate_bps=rate_bps)
    devices = tuple(DeviceState(link, link, device.flops) for device in STATE.devices)
    return replace(STATE, epoch=epoch, interval=interval, devices=devices)


def test_a_switch_to_another_draw_is_measured_afresh() -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, 50, 0.02, 0.1)
    other = faded(epoch=2, interval=1, rate_bps=1e7)
    computed_s = estimate.analytic_s(other).tolist()
    assert estimate.latency_s("measured", other, ONE, 0.0).tolist() == computed_s
    estimate.learn(0, 1, 0.5, 0.0, other)
    estimate.fit(other, 0.0)
    assert estimate.latency_s("measured", other, ONE, 0.0).tolist() == computed_s


@pytest.mark.parametrize(
    "state",
    [replace(STATE, epoch=2), faded(epoch=1, interval=1, rate_bps=1e7)],
    ids=["another policy", "fading that goes on"],
)
def test_measurements_hold_until_a_switch_changes_the_links(state: ChannelState) -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, 50, 0.02, 0.1)
    assert estimate.latency_s("measured", state, ONE, 0.0)[0] == pytest.approx(0.12, rel=0.1)


def test_larger_takes_the_larger_latency_of_each_device() -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, 50, 0.0, 0.02)
    for _ in range(ENOUGH):
        estimate.learn(1, 1, 1e-4, 0.0, STATE)
    estimate.fit(STATE, 0.0)
    larger = estimate.latency_s("larger", STATE, ONE, 0.0)
    assert larger[0] == pytest.approx(0.02, rel=0.01)
    assert larger[1:].tolist() == pytest.approx(EQ6_S[1:])


def test_compute_latency_does_not_depend_on_the_radio() -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, 50, 0.02, 0.1)
    for state in (STATE, faded(epoch=1, interval=1, rate_bps=1e3)):
        assert estimate.latency_s("compute", state, ONE, 0.0).tolist() == pytest.approx(
            [EMULATE.flop_per_token / flops for flops in (1e11, 2e11, 4e11)]
        )


@pytest.mark.parametrize("source", ["compute", "measured", "larger"])
def test_the_latency_is_infinite_during_an_outage_only(source: str) -> None:
    estimate = LatencyEstimator(INFO, "fp16")
    messages(estimate, 50, 0.02, 0.1)
    gone = replace(STATE, devices=(replace(STATE.devices[0], reachable=False), *STATE.devices[1:]))
    assert estimate.latency_s(source, gone, ONE, 0.0)[0] == math.inf  # type: ignore[arg-type]
    estimate.fit(gone, 0.0)
    back = estimate.latency_s(source, STATE, ONE, 0.0)[0]  # type: ignore[arg-type]
    computed_s = EMULATE.flop_per_token / 1e11
    assert back == pytest.approx(computed_s if source == "compute" else EQ6_S[0])


def test_a_batched_layer_takes_as_long_as_its_slowest_device() -> None:
    assert batched_latency_s(np.array([0.01, 0.02, math.inf]), [5, 3, 0]) == pytest.approx(0.06)
    assert batched_latency_s(np.array([0.01, 0.02]), [0, 0]) == 0
