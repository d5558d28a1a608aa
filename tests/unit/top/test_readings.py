"""Rates and quantiles from repeated readings of counters."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from orchestrator.metrics import bs_metrics
from orchestrator.metrics.buckets import SECONDS_BUCKETS
from orchestrator.top.exposition import Numbers, increase, quantile, read, total
from orchestrator.top.history import MINUTE_S, History, message_s
from orchestrator.top.poller import COUNTERS, Reading

TOKENS = "wdmoe_tokens_total"
ONE = frozenset({("kind", "prompt")})


def tokens(value: float) -> Numbers:
    return {TOKENS: {ONE: value}}


def reading(at_s: float, counters: Numbers | None) -> Reading:
    return Reading(at_s, counters, None, None, None, ())


def test_only_the_wanted_metrics_are_read_by_their_full_names() -> None:
    page = (
        "# HELP wdmoe_tokens_total Tokens\n# TYPE wdmoe_tokens_total counter\n"
        'wdmoe_tokens_total{kind="prompt"} 3.0\nwdmoe_tokens_total{kind="completion"} 4\n'
        "wdmoe_tokens_total_of_others 7\nwdmoe_up 1\nwdmoe_interval 5\n"
    )
    numbers = read(page, [TOKENS, "wdmoe_interval"])
    assert numbers.keys() == {TOKENS, "wdmoe_interval"}
    assert total(numbers, TOKENS) == 7
    assert total(numbers, TOKENS, kind="prompt") == 3
    assert total(numbers, TOKENS, kind="else") == total(numbers, "nothing") == 0


def test_the_base_station_exports_every_counter_of_the_view() -> None:
    registry = CollectorRegistry()
    bs_metrics(registry)
    known = {name for metric in registry.collect() for name in _sample_names(metric.name)}
    assert set(COUNTERS) <= known


def _sample_names(name: str) -> list[str]:
    return [f"{name}{end}" for end in ("_total", "_bucket", "_sum")]


def test_a_page_in_another_format_is_an_error() -> None:
    with pytest.raises(ValueError, match="three"):
        read("wdmoe_tokens_total three", [TOKENS])


@given(st.lists(st.integers(0, 1000), min_size=2), st.integers(1, 100))
def test_increases_add_up_to_the_count_even_over_a_restart(
    amounts: list[int], restart: int
) -> None:
    counter, before, counted = 0.0, tokens(0), 0.0
    for number, amount in enumerate(amounts):
        if number == restart:
            counter = 0.0
        # A restart is not noticed, as in Prometheus, if the counter has passed its old value.
        overtook = number == restart and amount >= before[TOKENS][ONE]
        counter += amount
        counted += total(increase(before, tokens(counter)), TOKENS)
        counted += before[TOKENS][ONE] if overtook else 0.0
        before = tokens(counter)
    assert counted == sum(amounts)


def test_a_new_series_began_at_0() -> None:
    assert total(increase({}, tokens(5)), TOKENS) == 5


@given(st.lists(st.floats(0.0001, 100), min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_of_the_observation(values: list[float], q: float) -> None:
    registry = CollectorRegistry()
    histogram = Histogram("h", "", buckets=SECONDS_BUCKETS, registry=registry)
    for value in values:
        histogram.observe(value)
    numbers = read(generate_latest(registry).decode(), ["h_bucket"])
    estimate = quantile(q, numbers, "h_bucket")
    exact = sorted(values)[math.ceil(q * len(values)) - 1]
    bounds = [0.0, *SECONDS_BUCKETS]
    lower = max(bound for bound in bounds if bound < exact)
    upper = min((bound for bound in bounds if bound >= exact), default=lower)
    assert estimate is not None
    assert lower <= estimate <= upper


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("wdmoe_tokens_total NaN", "is nan"),
        ("wdmoe_tokens_total +Inf", "is inf"),
        ("wdmoe_tokens_total 1e300", "is 1e"),
        ("wdmoe_tokens_total 1e-300", "is 1e"),
        ('h_bucket{gt="3"} 1', "no bound"),
        ('h_bucket{le="NaN"} 1', "no bound"),
        ('h_bucket{le="three"} 1', "three"),
    ],
)
def test_impossible_numbers_are_an_error(page: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read(page, [TOKENS, "h_bucket"])


_PIECES = ["{", "}", '"', "=", ",", "le", "device", " ", "\\", "\n", "1", "-1", "NaN", "1e9", "#"]


@given(st.sampled_from([TOKENS, "h_bucket"]), st.lists(st.sampled_from(_PIECES)))
def test_any_page_is_read_or_refused(name: str, pieces: list[str]) -> None:
    try:
        numbers = read(name + "".join(pieces), [TOKENS, "h_bucket"])
    except ValueError:
        return
    quantile(0.5, numbers, "h_bucket")
    message_s(numbers)


def test_a_histogram_without_values_has_no_quantile() -> None:
    assert quantile(0.5, {}, "h") is None
    assert quantile(0.5, {"h": {frozenset({("le", "+Inf")}): 0.0}}, "h") is None


def test_the_history_holds_one_minute() -> None:
    history = History()
    for second in range(101):
        history.add(reading(second, tokens(2 * second)))
    took_s, numbers = history.over(MINUTE_S, [TOKENS])
    assert (took_s, total(numbers, TOKENS)) == (60, 120)
    took_s, numbers = history.over(5, [TOKENS])
    assert (took_s, total(numbers, TOKENS)) == (5, 10)


def test_counts_during_a_gap_belong_to_the_step_that_ends_it() -> None:
    history = History()
    for second, counters in enumerate([tokens(1), tokens(3), None, None, tokens(9)]):
        history.add(reading(float(second), counters))
    assert [step.counted is None for step in history.steps] == [False, True, True, False]
    took_s, numbers = history.over(MINUTE_S, [TOKENS])
    assert (took_s, total(numbers, TOKENS)) == (4, 8)


def test_before_the_second_reading_the_history_is_empty() -> None:
    history = History()
    assert history.over(5, [TOKENS]) == (0.0, {})
    history.add(reading(0, tokens(3)))
    assert history.over(5, [TOKENS]) == (0.0, {})
