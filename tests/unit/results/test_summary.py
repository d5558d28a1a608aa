"""The summary of a run's requests, checked by hand, and the lines of the requests."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contracts.http import Status
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.time_parts import PARTS
from orchestrator.contracts.timings import Experts, Timings
from orchestrator.results.distribution import percentiles
from orchestrator.results.run_folder import to_line
from orchestrator.results.schema import Request, Run
from orchestrator.results.summary import Summary, summarise
from tests.harness import answers
from tests.harness.recorded_runs import WLR, run


def test_percentiles_by_hand() -> None:
    five = percentiles([10.0, 1.0, 3.0, 2.0, 4.0])
    assert (five.n, five.mean_s, five.p50_s) == (5, 4.0, 3.0)
    # Of 0 … 19 the 95th percentile is at rank 0.95 · 19 = 18.05, the 90th at 17.1.
    twenty = percentiles([float(value) for value in range(20)])
    assert (twenty.p90_s, twenty.p95_s) == pytest.approx((17.1, 18.05))
    # Of 0 … 99 the 99th is at rank 0.99 · 99 = 98.01.
    assert percentiles([float(value) for value in range(100)]).p99_s == pytest.approx(98.01)
    assert percentiles([]).p50_s is None


@pytest.mark.parametrize(("field", "least"), [("p90_s", 10), ("p95_s", 20), ("p99_s", 100)])
def test_too_few_values_have_no_percentile(field: str, least: int) -> None:
    values = [float(value) for value in range(least)]
    assert getattr(percentiles(values), field) is not None
    assert getattr(percentiles(values[1:]), field) is None


def request(number: int, score: float | None = 1.0, **changed: Any) -> Request:
    """Return a request; they start one per second and take 0.5 s. Without a score it has failed."""
    failed = score is None
    fields: dict[str, Any] = {
        **dict.fromkeys(PARTS, 0.0001),
        "time_to_first_token_s": 0.1,
        "end_to_end_s": 0.4,
        "policy": WLR,
        "epoch": 1,
    }
    return Request(
        id=number,
        prompt_id=f"p-{number}",
        completion=" 12",
        answer="12",
        expected="12",
        score=score,
        intended_start_s=1000.0 + number,
        actual_start_s=1000.0 + number,
        time_to_first_token_s=None if failed else 0.1 * (number + 1),
        end_to_end_s=0.5,
        http_s=None if failed else 0.1,
        timings=None if failed else answers.timings(**{**fields, **changed}),
        error="gone" if failed else None,
    )


RUN = run("near-far", WLR, items=4)


def summed(requests: list[Request], run: Run = RUN, after: Status | None = None) -> Summary:
    return summarise(run, requests, replace(run.stack, channel=after or run.channel))


def test_a_summary_by_hand() -> None:
    requests = [
        request(0, downlink_s=0.1, eq8_s=0.3, overruns=1),
        request(1, 0.0, downlink_s=0.2, compute_s=0.3),
        request(2, None),
        request(3, downlink_s=0.6),
    ]
    summary = summed(requests)
    assert (summary.n, summary.errors, summary.backends) == (4, 1, ["tbf"])
    assert summary.accuracy == pytest.approx(2 / 3)
    assert summary.time_to_first_token.p50_s == pytest.approx(0.2)
    assert summary.split["downlink_s"].mean_s == pytest.approx(0.3)
    assert summary.split["downlink_s"].p50_s == pytest.approx(0.2)
    assert summary.split["http_s"].mean_s == pytest.approx(0.1)
    assert set(summary.split) == {*PARTS, "http_s", "backoff_s"}
    assert summary.eq8.mean_s == pytest.approx((0.3 + 2 * 0.0002) / 3)
    assert summary.batched.mean_s == pytest.approx(0.0001)
    assert summary.eq8_measured.p50_s == pytest.approx(0.5001)
    # 3 · 2 tokens between the start of the first request and the end of the last, 3.5 s later.
    assert summary.tokens_per_s == pytest.approx(6 / 3.5)
    assert summary.overruns_share == pytest.approx(1 / 24)
    assert [line.split()[0] for line in summary.warnings] == ["1", "4.2%"]


def test_times_of_a_token_and_of_the_dispatch() -> None:
    late = request(1, completion_tokens=5).model_copy(
        update={"actual_start_s": 1001.3, "end_to_end_s": 2.2, "score_norm": 0.0}
    )
    single = request(2, completion_tokens=1).model_copy(update={"score_norm": 1.0})
    summary = summed([request(0, completion_tokens=2), late, single, request(3, None)])
    # (0.5 - 0.1) / 1 and (2.2 - 0.2) / 4; a single token has no time per token.
    assert summary.time_per_output_token.n == 2
    assert summary.time_per_output_token.mean_s == pytest.approx(0.45)
    assert summary.dispatch_delay.n == 4
    assert summary.dispatch_delay.mean_s == pytest.approx(0.3 / 4)
    assert (summary.accuracy_norm, summary.scored) == (0.5, 3)
    # In flight from 1000 to 1000.5, 1001.3 to 1003.2, 1002 to 1002.5, and 1003 to 1003.5.
    assert summary.in_flight.most == 2
    assert summary.in_flight.mean == pytest.approx((0.5 + 1.9 + 0.5 + 0.5) / 3.5)
    assert summary.requests_per_s == pytest.approx(3 / 3.5)


def test_goodput_counts_a_failed_request_as_not_good() -> None:
    slow = request(1).model_copy(update={"end_to_end_s": 2.0})
    requests = [request(0), slow, request(2, None), request(3)]
    good = summarise(RUN, requests, RUN.stack, goodput_limit_s=0.5).goodput
    assert good is not None
    assert (good.limit_s, good.n, good.share) == (0.5, 2, 0.5)
    assert good.per_s == pytest.approx(2 / 3.5)
    assert summed(requests).goodput is None


def test_intervals_contain_their_values() -> None:
    requests = [
        request(n, float(n % 4 > 0)).model_copy(update={"end_to_end_s": 0.1 * (n + 1)})
        for n in range(40)
    ]
    summary = summed(requests)
    for value, interval in (
        (summary.accuracy, summary.accuracy_interval),
        (summary.end_to_end.mean_s, summary.end_to_end.mean_interval_s),
        (summary.end_to_end.p50_s, summary.end_to_end.p50_interval_s),
        (summary.end_to_end.p95_s, summary.end_to_end.p95_interval_s),
    ):
        assert value is not None
        assert interval is not None
        assert interval[0] < value < interval[1]
    # Wilson's: (p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    z, p, n = 1.959964, 0.75, 40
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert summary.accuracy_interval == pytest.approx((middle - half, middle + half), rel=1e-5)
    assert summed(requests[:1]).end_to_end.mean_interval_s is None


def test_the_interval_of_all_right_or_all_wrong_is_not_empty() -> None:
    z, n = 1.959964, 20
    for score, expected in ((1.0, (n / (n + z * z), 1.0)), (0.0, (0.0, z * z / (n + z * z)))):
        summary = summed([request(k, score) for k in range(n)])
        assert summary.accuracy_interval == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_the_batched_model_counts_a_shared_step_as_measured_times_do() -> None:
    def served(batched_s: float, eq8_s: float) -> Request:
        times = {"downlink_s": 0.1, "compute_s": 0.2, "uplink_s": 0.1, "wait_s": 0.0}
        return request(0, **times, batched_s=batched_s, eq8_s=eq8_s)

    alone = summed([served(batched_s=0.4, eq8_s=0.4)])
    shared = summed([served(batched_s=0.4, eq8_s=0.05) for _ in range(8)])
    assert alone.measured_over_batched == pytest.approx(1.0)
    assert shared.measured_over_batched == pytest.approx(1.0)
    assert summed([request(0, None)]).measured_over_batched is None


def test_a_run_of_failures_has_no_latency_and_no_accuracy() -> None:
    summary = summed([request(0, None)])
    assert (summary.errors, summary.accuracy, summary.end_to_end.p50_s) == (1, None, None)
    assert summary.tokens_per_s is None


def test_a_policy_of_another_version_has_a_label() -> None:
    assert PolicySpec(name="mine", params={"depth": 3}).label == "mine depth=3"


finite = st.floats(allow_nan=False, allow_infinity=False)
parameter = finite | st.integers(-1000, 1000) | st.booleans() | st.text(max_size=5)
devices = st.integers(0, 999_999).map(str)
counts = st.dictionaries(devices, st.integers(0, 1 << 40), max_size=3)
timings = st.builds(
    Timings,
    **{name: finite for name in Timings.model_fields if name.endswith("_s")},
    experts=st.builds(Experts, used=counts, dropped=counts, outage=counts, deselected=counts),
    policy=st.builds(
        PolicySpec, params=st.dictionaries(st.text(max_size=3), parameter, max_size=2)
    ),
)
lines = st.builds(
    Request,
    score=st.none() | finite,
    intended_start_s=finite,
    actual_start_s=finite,
    time_to_first_token_s=st.none() | finite,
    end_to_end_s=finite,
    http_s=st.none() | finite,
    timings=st.none() | timings,
)


@given(lines)
def test_a_line_holds_a_complete_request(line: Request) -> None:
    written = to_line(line)
    assert written.splitlines() == [written]
    assert Request.model_validate_json(written) == line
