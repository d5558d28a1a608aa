"""The terminal's view of a run: its content and its width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from orchestrator.contracts.time_parts import PARTS
from orchestrator.results import table
from orchestrator.results.schema import Arrivals, Fading
from orchestrator.results.summary import Summary, summarise
from tests.unit.results.test_summary import RUN, request, summed


def shown(summary: Summary) -> str:
    text = io.StringIO()
    Console(file=text, width=table.WIDTH).print(table.render([summary]))
    return text.getvalue()


@pytest.mark.parametrize(
    ("fading", "beside"),
    [
        (Fading(begins="one", interval_s=None), True),
        (Fading(begins="one", interval_s=0.05), False),
        (Fading(begins="each", interval_s=None), False),
        (None, False),
    ],
)
def test_a_single_realisation_is_noted_beside_the_numbers(
    fading: Fading | None, beside: bool
) -> None:
    summary = summed([request(0)], RUN.model_copy(update={"fading": fading}))
    lines = shown(summary).splitlines()
    row = next(index for index, line in enumerate(lines) if "facts" in line)
    assert lines[row + 1].startswith("near-far ")
    assert lines[row + 2].startswith("one realisation") is beside
    assert max(map(len, lines)) <= 100


def test_the_table_fits_100_columns() -> None:
    slow = request(0, **dict.fromkeys(PARTS, 99.9)).model_copy(update={"end_to_end_s": 999.9})
    summary = summed([slow]).model_copy(update={"profile": "rayleigh-100m"})
    lines = shown(summary).splitlines()
    assert max(map(len, lines)) <= 100
    row = next(index for index, line in enumerate(lines) if "facts" in line)
    first = "facts wlr θ=0.2 1 100.0 100 999900 99900 99900 99900 700200"
    assert lines[row].split() == first.split()
    assert lines[row + 1].split()[:3] == ["rayleigh-100m", "tbf", "0"]


def test_times_and_load_of_many_slow_requests_fit_100_columns() -> None:
    requests = [
        request(n, float(n % 3 > 0)).model_copy(
            update={
                "end_to_end_s": 900.0 + n,
                "time_to_first_token_s": 800.0 + n,
                "actual_start_s": 1000.0 + 2 * n,
                "score_norm": 1.0,
            }
        )
        for n in range(100)
    ]
    arrivals = Arrivals(kind="gamma", rate_per_s=1.0, burstiness=0.123456, concurrency=None)
    run = RUN.model_copy(update={"arrivals": arrivals, "warmup": 10})
    text = shown(summarise(run, requests, RUN.stack, goodput_limit_s=950.5))
    assert max(map(len, text.splitlines())) <= 100
    (times,) = (line.split() for line in text.splitlines() if line.startswith("End to end "))
    assert times[3:] == ["100", "949500", "949500", "989100", "994050", "998010"]
    assert "Arrivals: gamma, 1 requests/s, burstiness 0.123456, after 10 to warm up" in text
    assert "Within 950.5 s: 51 of 100" in text
    assert "Accuracy by normalised likelihood, %: 100.0 [96.3, 100.0]" in text


def test_a_run_of_failures_has_dashes() -> None:
    lines = shown(summed([request(0, None)])).splitlines()
    (row,) = (line.split() for line in lines if line.startswith("facts"))
    assert row[3:] == ["1"] + 7 * ["–"]
