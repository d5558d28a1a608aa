"""Timelines: the state in force at each time; a policy switch leaves the channel unchanged."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contracts.channel_state import ChannelState, DeviceState, PolicyState
from orchestrator.control.timeline import LEAD_S, Timeline
from orchestrator.radio import profiles
from orchestrator.radio.profiles import Profile
from tests.harness.control_plane import FAST, STILL

START_S = 1.7e9


def profile(text: str) -> Profile:
    return profiles.parse(text, "p", "p.yaml")


FADING, FIXED = profile(FAST), profile(STILL)
UNFADED = profile(FAST.replace("kind: rayleigh", "kind: none"))
SLOW = profile(FAST.replace("0.05", "0.3"))


def test_a_plan_is_a_function_of_time() -> None:
    plan = Timeline(FADING, epoch=4, start_s=1000.0)
    assert [plan.interval_at(t) for t in (0, 999.99, 1000, 1000.051, 1001.01)] == [0, 0, 0, 1, 20]
    assert plan.begin_s(20) == 1001.0
    assert plan.state(20).order == (4, 20)
    assert plan.lead_s == pytest.approx(0.125)  # announced halfway between two beginnings
    assert list(plan.due(0, 1000.0 - LEAD_S)) == [0]
    assert list(plan.due(1, 1000.0 - LEAD_S)) == []
    assert list(plan.due(1, 1000.001)) == [1, 2]
    assert list(plan.due(1, 1000.026)) == [1, 2, 3]
    assert list(plan.due(3, 1060.001)) == [1200, 1201, 1202]  # the host slept for a minute
    assert Timeline(FIXED, 4, 1000.0).interval_at(1e9) == 0
    assert Timeline(UNFADED, 4, 1000.0).interval_at(1e9) == 0


def test_fading_may_begin_anywhere() -> None:
    plan = Timeline(UNFADED, 1, 1000.0).with_profile(FADING, first=700, now_s=2000.0)
    assert plan.start_s == 2000.0 + LEAD_S
    assert [plan.interval_at(plan.start_s + t) for t in (-5, 0.01, 0.06)] == [700, 700, 701]
    assert list(plan.due(700, 2000.0)) == [700]
    assert plan.begin_s(702) == pytest.approx(plan.start_s + 0.1)
    assert plan.state(702).devices == FADING.devices(702)
    # A profile with a single, endless interval uses the draw of that number.
    still = plan.with_profile(FIXED, first=700, now_s=2001.0)
    assert still.interval_at(1e9) == 700
    assert list(still.due(700, 2000.9)) == [700]  # the clock was set back: still announced
    assert still.state(700).devices == FIXED.devices(700) != FIXED.devices(0)


def test_a_policy_does_not_wait_for_the_end_of_a_long_interval() -> None:
    longest = profile(FAST.replace("0.05", "600"))
    before = Timeline(longest, 1, 1000.0)
    plan = before.with_policy(PolicyState("top1"), unannounced=1, now_s=1021.0)
    assert list(plan.due(plan.first, 1021.0)) == [0]
    assert plan.state(0).apply_at_s == 1021.0 + LEAD_S
    assert plan.state(0).devices == before.state(0).devices
    assert plan.state(1).apply_at_s == before.state(1).apply_at_s == 1600.0
    # Interval 1 was announced, and begins before the policy does.
    plan = plan.with_policy(PolicyState("topk"), unannounced=2, now_s=1599.95)
    assert list(plan.due(plan.first, 1599.95)) == [1]
    assert plan.state(1).apply_at_s == 1599.95 + LEAD_S
    assert plan.with_profile(SLOW, first=0, now_s=1601.0).state(0).apply_at_s == 1601.0 + LEAD_S


def applied(plan: Timeline, switches_s: Sequence[float]) -> list[ChannelState]:
    """Return the states that a receiver applies in two seconds with policy switches."""
    states: list[ChannelState] = []
    order = (0, -1)
    ticks = [(START_S - LEAD_S + step / 200, False) for step in range(400)]

    def unannounced() -> int:
        return order[1] + 1 if order[0] == plan.epoch else plan.first

    for now_s, switch in sorted([*ticks, *((START_S + s, True) for s in switches_s)]):
        if switch:
            plan = plan.with_policy(PolicyState("top1"), unannounced(), now_s)
        for interval in plan.due(unannounced(), now_s):
            announced = plan.state(interval)
            assert announced.order > order
            states = [s for s in states if s.apply_at_s < announced.apply_at_s]
            states.append(announced)
            order = announced.order
    return states


@given(st.lists(st.floats(0, 1.7), max_size=6), st.integers(0, 1 << 39))
def test_a_policy_switch_never_changes_the_channel(switches_s: list[float], first: int) -> None:
    plan = Timeline(FADING, epoch=1, start_s=START_S, first=first)
    plain, switched = applied(plan, []), applied(plan, switches_s)
    assert [(s.interval, s.devices) for s in switched] == [(s.interval, s.devices) for s in plain]
    for state, expected in zip(switched, plain, strict=True):
        assert state.apply_at_s == pytest.approx(expected.apply_at_s, rel=0, abs=1e-5)
    assert len({s.interval for s in switched}) == len(switched)


@given(st.lists(st.floats(0, 1.7), max_size=6))
def test_a_policy_switch_within_a_long_interval_never_changes_the_channel(
    switches_s: list[float],
) -> None:
    def in_force(states: list[ChannelState], time_s: float) -> tuple[DeviceState, ...]:
        return [s for s in states if s.apply_at_s <= time_s][-1].devices

    plan = Timeline(SLOW, epoch=1, start_s=START_S)
    plain, switched = applied(plan, []), applied(plan, switches_s)
    for begin_s in [s.apply_at_s for s in (*plain, *switched)]:
        for time_s in (max(START_S, begin_s - 1e-5), begin_s + 1e-5):
            assert in_force(switched, time_s) == in_force(plain, time_s)
    if switches_s:
        began_s = min(s.apply_at_s for s in switched if s.policy.name == "top1")
        assert START_S + min(switches_s) <= began_s <= START_S + min(switches_s) + LEAD_S


@given(st.lists(st.floats(0, 1.7), max_size=6))
def test_a_fixed_channel_stays_the_same(switches_s: list[float]) -> None:
    def devices(states: list[ChannelState]) -> set[tuple[DeviceState, ...]]:
        return {s.devices for s in states}

    plan = Timeline(FIXED, epoch=1, start_s=START_S, first=5)
    switched = applied(plan, switches_s)
    assert devices(switched) == devices(applied(plan, [])) == {FIXED.devices(5)}
    if switches_s:
        began_s = [s.apply_at_s for s in switched]
        assert began_s == sorted(began_s)
        # All switches requested between two announcements begin together.
        assert began_s[-1] == pytest.approx(START_S + max(switches_s) + LEAD_S, abs=0.005)


@given(
    st.lists(
        st.tuples(st.floats(START_S, START_S + 1), st.sampled_from([FADING, FIXED, None])),
        min_size=1,
        max_size=20,
    )
)
def test_every_switch_is_a_later_epoch(switches: list[tuple[float, Profile | None]]) -> None:
    plan = Timeline(FADING, epoch=1, start_s=START_S)
    for now_s, other in switches:
        policy = plan.policy
        if other is None:
            policy = PolicyState("wlr", {"theta": 0.1})
            after = plan.with_policy(policy, plan.first, now_s)
            assert after.profile is plan.profile
        else:
            after = plan.with_profile(other, 0, now_s)
        assert after.epoch > plan.epoch
        assert after.epoch >= int(1000 * now_s)  # as it would be after a restart at that moment
        assert after.policy == policy
        plan = after
