"""Arrival schedules: options, drawn gaps, and trace files."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.errors import InputError
from orchestrator.replay.arrivals import CLOSED, choose


def starts_s(count: int, arrivals: str, **options: Any) -> list[float]:
    starts = choose(arrivals, **options).starts_s(count)
    assert starts is not None
    return starts


def test_a_closed_loop_has_no_schedule() -> None:
    assert CLOSED.starts_s(9) is None
    assert choose("closed").arrivals == CLOSED.arrivals
    assert CLOSED.arrivals.concurrency == 1
    assert choose("closed", concurrency=8).arrivals.concurrency == 8


def test_gaps_of_a_poisson_schedule_are_exponential() -> None:
    gaps = np.diff(starts_s(1000, "poisson", rate_per_s=50.0, seed=1))
    assert stats.kstest(gaps, stats.expon(scale=1 / 50).cdf).pvalue > 0.05


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 9.0])
def test_gaps_of_a_gamma_schedule_have_the_requested_rate_and_burstiness(
    burstiness: float,
) -> None:
    gaps = np.diff(starts_s(4000, "gamma", rate_per_s=5.0, burstiness=burstiness, seed=1))
    drawn = stats.gamma(burstiness, scale=1 / (5 * burstiness))
    assert stats.kstest(gaps, drawn.cdf).pvalue > 0.05
    assert np.mean(gaps) == pytest.approx(0.2, rel=0.1)
    assert np.std(gaps) / np.mean(gaps) == pytest.approx(burstiness**-0.5, rel=0.1)


def test_gamma_of_burstiness_1_is_poisson() -> None:
    poisson = starts_s(100, "poisson", rate_per_s=5.0, seed=3)
    assert starts_s(100, "gamma", rate_per_s=5.0, burstiness=1.0, seed=3) == poisson


@given(st.integers(0, 1 << 32), st.floats(0.01, 1000), st.floats(0.1, 10), st.integers(1, 50))
def test_a_seed_fixes_a_schedule_and_the_time_scale_stretches_it(
    seed: int, rate_per_s: float, time_scale: float, count: int
) -> None:
    def drawn(n: int, **options: Any) -> list[float]:
        return starts_s(n, "poisson", rate_per_s=rate_per_s, seed=seed, **options)

    once = drawn(count)
    assert once == drawn(count)
    assert once == drawn(count + 1)[:-1]  # fewer prompts get the beginning of the same schedule
    assert once[0] == 0
    assert once == sorted(once)
    assert drawn(count, time_scale=time_scale) == pytest.approx([time_scale * t for t in once])


def test_different_seeds_give_different_schedules() -> None:
    first, second = (starts_s(10, "poisson", rate_per_s=1.0, seed=seed) for seed in (1, 2))
    assert first != second


@pytest.mark.parametrize(
    ("arrivals", "options", "message"),
    [
        ("uniform", {}, "arrivals is 'uniform'; allowed: closed, poisson, gamma or trace:FILE"),
        ("trace", {}, "arrivals is 'trace'; allowed: "),
        ("poisson:x", {}, "arrivals is 'poisson:x'; allowed: "),
        ("poisson", {}, "rate: is missing; poisson arrivals need it"),
        ("gamma", {"rate_per_s": 1.0}, "burstiness: is missing; gamma arrivals need it"),
        ("closed", {"rate_per_s": 1.0}, "rate: means nothing with closed arrivals; allowed"),
        ("closed", {"seed": 1}, "seed: means nothing with closed arrivals; allowed with poi"),
        ("poisson", {"rate_per_s": 0.0}, "rate is 0; allowed: a number above 0"),
        ("poisson", {"rate_per_s": float("nan")}, "rate is nan; allowed: a number above 0"),
        ("poisson", {"rate_per_s": 1.0, "time_scale": -1.0}, "time scale is -1; allowed: a nu"),
        ("poisson", {"rate_per_s": 1.0, "burstiness": 2.0}, "burstiness: means nothing with"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arrivals: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as refused:
        choose(arrivals, **options)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    "options",
    [
        {"rate_per_s": 1e-320},
        {"rate_per_s": 1e-11},
        {"rate_per_s": 1.0, "time_scale": 1e300},
        {"rate_per_s": 1.0, "burstiness": 1e-320},
        {"rate_per_s": 1e-200, "burstiness": 1e-200},
    ],
)
def test_a_schedule_that_would_not_end_is_refused(options: dict[str, float]) -> None:
    kind = "gamma" if "burstiness" in options else "poisson"
    with pytest.raises(InputError) as refused:
        starts_s(99, kind, **options)
    assert str(refused.value).startswith(f"{kind} arrivals: the last of 99 requests would start ")


def test_a_trace_in_nanoseconds_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("1700000000000000000\n1700000001000000000\n")
    with pytest.raises(InputError, match=r"would start 1e\+09 s after the first; allowed: at most"):
        choose(f"trace:{trace}").starts_s(2)


def test_a_trace_begins_with_its_first_arrival(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text('100\n100.5\n{"timestamp_s": 100.5, "tokens": 7}\n1.03e2\n')
    assert starts_s(4, f"trace:{trace}") == [0, 0.5, 0.5, 3]
    assert starts_s(3, f"trace:{trace}", time_scale=2.0) == [0, 1, 1]
    record = choose(f"trace:{trace}").arrivals
    assert (record.trace, record.seed) == (str(trace), None)
    trace.write_text("0\n1")
    assert choose(f"trace:{trace}").arrivals.trace_sha256 != record.trace_sha256


def test_mooncake_s_times_are_milliseconds(tmp_path: Path) -> None:
    trace = tmp_path / "mooncake.jsonl"
    line = '{{"timestamp": {}, "input_length": 120, "output_length": 20, "hash_ids": [0]}}\n'
    trace.write_text("".join(line.format(at) for at in (3000, 3850, 3850, 7200)) + "\n\n")
    assert starts_s(4, f"trace:{trace}") == pytest.approx([0, 0.85, 0.85, 4.2])


@pytest.mark.parametrize("zone", ["", "+00:00", "Z"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_azure_s_times_are_dates(tmp_path: Path, zone: str, end: str) -> None:
    trace = tmp_path / "azure.csv"
    times = "2023-11-16 23:59:59.6805900", "2023-11-17 00:00:00", "2023-11-17 00:00:00.9"
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens", *(f"{at}{zone},120,20" for at in times)]
    trace.write_bytes(end.join([*rows, ""]).encode())
    assert starts_s(3, f"trace:{trace}") == pytest.approx([0, 0.31941, 1.21941], abs=1e-6)


def test_a_trace_may_be_compressed_in_the_home_folder_and_begin_with_a_byte_order_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "trace.txt.gz").write_bytes(gzip.compress("\ufeff0\r\n1.5\r\n\r\n".encode()))
    assert starts_s(2, "trace:~/trace.txt.gz") == [0, 1.5]


def test_a_trace_shorter_than_the_set_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("0\n1\n")
    with pytest.raises(InputError, match="has 2 arrivals for 3 prompts; allowed: as many at least"):
        choose(f"trace:{trace}").starts_s(3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; allowed: an arrival time a line"),
        ("0\n\n1\n", "line 2: '' is no arrival time; allowed: seconds from 0 on, {"),
        ("0\nsoon\n", "line 2: 'soon' is no arrival time; "),
        ("-1\n", "line 1: '-1' is no arrival time; "),
        ("nan\n", "line 1: 'nan' is no arrival time; "),
        ('{"timestamp": 1}\n', "line 1: '{\"timestamp\": 1}' is no arrival time; "),
        ('{"timestamp_s": "1"}\n', 'line 1: \'{"timestamp_s": "1"}\' is no arrival time; '),
        ('{"timestamp": "1", "input_length": 1}\n', 'line 1: \'{"timestamp": "1", '),
        ('{"timestamp": 61.25, "input_length": 1}\n', 'line 1: \'{"timestamp": 61.25, '),
        ('{"timestamp": 1e999, "input_length": 1}\n', 'line 1: \'{"timestamp": 1e999, '),
        ("TIMESTAMP,ContextTokens\n", "has no arrival after its first line; allowed: at least one"),
        ("TIMESTAMP,ContextTokens\nsoon,1\n", "line 2: 'soon,1' is no arrival time; "),
        ("TIMESTAMP,ContextTokens\n20240510,1\n", "line 2: '20240510,1' is no arrival time; "),
        ("n,TIMESTAMP\n1\n", "line 2: '1' is no arrival time; "),
        ('n,TIMESTAMP\n1,"2\n', "line 2: '1,\"2' is no arrival time; "),
        (
            "TIMESTAMP\n2024-05-10 00:00:01\n2024-05-10 00:00:00\n",
            "line 3: 1.7153e+09 s is before line 2's",
        ),
        ("[1]\n", "line 1: '[1]' is no arrival time; "),
        ("0\n2\n1.5\n", "line 3: 1.5 s is before line 2's 2 s; allowed: times in their order"),
        ("1" * 9999, "line 1: '11111"),
    ],
)
def test_a_damaged_trace_is_refused_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text(text)
    with pytest.raises(InputError) as refused:
        choose(f"trace:{trace}")
    error = str(refused.value)
    assert error.removeprefix(str(trace)).lstrip(",: ").startswith(message)
    assert len(error) < len(str(trace)) + 300


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt: No such file"):
        choose(f"trace:{tmp_path}/none.txt")
