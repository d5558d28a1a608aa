"""Airtime of messages: segments, and a rate that changes during the transfer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.moe.airtime import airtime_s, wire_bits
from services.net import wire


def test_every_segment_carries_its_headers() -> None:
    assert wire_bits(1448) == 8 * 1514
    assert wire_bits(1449) == 8 * (1449 + 2 * 66)


def test_zmtp_and_curve_add_bytes_to_each_frame() -> None:
    assert wire.bytes_on_tcp([b"x" * 100, b"x" * 70_000], curve=False) == 70_100 + 2 + 9
    assert wire.bytes_on_tcp([b"x" * 100, b"x" * 70_000], curve=True) == 70_100 + 66 + 2 + 9
    assert wire.bytes_on_tcp([b"x" * 230], curve=True) == 230 + 33 + 9


def test_a_changed_rate_applies_to_the_rest_of_the_transfer() -> None:
    schedule = [(0.0, 1e6), (1.0, 2e6), (2.0, None)]
    assert airtime_s(5e5, 0.0, schedule) == pytest.approx(0.5)
    assert airtime_s(5e5, 0.75, schedule) == pytest.approx(0.25 + 0.125)
    assert airtime_s(9e9, 1.5, schedule) == pytest.approx(0.5)  # no limit from 2 s on
    assert airtime_s(1e6, 7.0, [(0.0, 1e6)]) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="empty"):
        airtime_s(1, 0, [])


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.floats(1e3, 1e8)), min_size=1, max_size=20),
    st.floats(1, 1e8),
)
def test_the_bits_sent_during_the_airtime_are_those_of_the_message(
    steps: list[tuple[float, float]], bits: float
) -> None:
    schedule, begin_s = [], 0.0
    for length_s, rate_bps in steps:
        schedule.append((begin_s, rate_bps))
        begin_s += length_s
    end_s = airtime_s(bits, 0.0, schedule)
    ends = [*(start for start, _ in schedule[1:]), float("inf")]
    sent = sum(
        rate * max(0.0, min(end_s, until) - start)
        for (start, rate), until in zip(schedule, ends, strict=True)
    )
    assert sent == pytest.approx(bits, rel=1e-6)
