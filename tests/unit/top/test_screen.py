"""The screen: it fits every terminal, and shows what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from orchestrator.contracts.http import Replay, RunningRequest
from orchestrator.top.format import milliseconds, number, share, sparkline
from orchestrator.top.screen import KEYS, draw
from orchestrator.top.table import COLUMNS, devices, fitting
from orchestrator.top.view import DeviceRow, View

ROW = DeviceRow(
    device=0,
    state="admitted",
    asked_down_bps=248e6,
    asked_up_bps=9.3e6,
    got_down_bps=230e6,
    got_up_bps=8.1e6,
    airtime_down=0.12,
    airtime_up=0.34,
    compute=0.56,
    tokens_per_s=123.4,
    deselected_per_s=0.0,
    lost_per_s=0.0,
    slowest=0.25,
    message_s=0.0213,
    messages_s=[None, 0.01, 0.02],
    overruns=0.0,
    lateness_s=0.0003,
    link_fault=None,
)
REQUEST = RunningRequest(
    id="cmpl-0123456789abcdef",
    sequences=1,
    prompt_tokens=45,
    completion_tokens=3,
    max_tokens=14,
    age_s=0.25,
)
VIEW = View(
    model="bundled (4 layers, 8 experts, top 2)",
    profile="near-far",
    policy="wlr θ=0.2",
    degraded=False,
    replay=Replay(
        prompts="facts",
        planned=20,
        done=12,
        failed=0,
        scored=12,
        score_sum=11,
        accuracy=0.9167,
        running=True,
    ),
    running=[REQUEST],
    waiting=[],
    ended=57,
    p50_s=0.321,
    p95_s=0.355,
    prompt_tokens_per_s=35.2,
    completion_tokens_per_s=12.1,
    devices=[replace(ROW, device=q) for q in range(8)],
    faults=[],
)


def lines(view: View | None, width: int = 80, height: int = 24, message: str = "") -> list[str]:
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as captured:
        console.print(draw(view, width, height, 1.0, message))
    return captured.get().splitlines()


@settings(deadline=None)
@given(
    st.integers(32, 200), st.integers(1, 60), st.integers(0, 20), st.integers(0, 90), st.booleans()
)
def test_the_screen_has_the_terminals_size_and_the_keys_on_the_last_line(
    width: int, height: int, devices: int, requests: int, silent: bool
) -> None:
    view = replace(
        VIEW,
        devices=[replace(ROW, device=q, link_fault="tc: no" * silent) for q in range(devices)],
        running=[REQUEST] * requests,
        faults=["the base station does not answer at http://127.0.0.1:8000"] * silent,
    )
    drawn = lines(None if silent and not devices else view, width, height, "x" * 300)
    assert len(drawn) == max(height, 2)
    assert all(cell_len(line) <= width for line in drawn)
    assert drawn[-1].rstrip("… ").strip() in KEYS


@pytest.mark.parametrize("width", [1, 5, 20])
def test_a_terminal_that_is_too_small_shows_what_fits(width: int) -> None:
    drawn = lines(VIEW, width, 5)
    assert len(drawn) <= 5
    assert all(cell_len(line) <= width for line in drawn)


def test_80_columns_omit_only_what_is_shown_elsewhere() -> None:
    dropped = [column.head.split() for column in COLUMNS if column not in fitting(80)]
    assert dropped == [["got", "↓"], ["bit/s", "↑"], ["over", "run"], ["late", "ms"]]
    assert fitting(120) == list(COLUMNS)


@given(st.integers(1, 200))
def test_a_narrower_terminal_has_a_subset_of_the_columns_in_the_same_order(width: int) -> None:
    wider = fitting(width + 1)
    assert [column for column in wider if column in fitting(width)] == fitting(width)


def test_a_devices_row_has_its_numbers() -> None:
    row = next(line for line in lines(VIEW, 130) if line.startswith("  3 "))
    assert row.split() == [
        *("3", "admitted", "248M", "9.3M", "230M", "8.1M", "12%", "34%", "56%", "123", "0", "0"),
        *("25%", "0%", "0.3", "21.3", "▅█"),
    ]


def test_a_doubtful_device_is_marked() -> None:
    odd = replace(ROW, overruns=0.02, lateness_s=0.02, link_fault="tc: no such device")
    drawn = lines(replace(VIEW, devices=[odd]))
    assert "link of device-0: tc: no such device" in drawn
    assert " OLE " in next(line for line in drawn if line.startswith("  0 "))
    assert ROW.marks == ""


def test_replay_requests_and_latency_are_shown() -> None:
    drawn = lines(VIEW)
    assert drawn[:4] == [
        "profile near-far   policy wlr θ=0.2   model bundled (4 layers, 8 experts, top 2)",
        "replay   facts 12 of 20, 91.7 % right",
        "requests 1 running, 0 waiting; last minute 57 ended, p50 321, p95 355 ms",
        "tokens   35.2/s read, 12.1/s made in the last minute",
    ]
    assert "cmpl-012345678 running      45      3 of 14    0.2 s" in drawn


def test_an_ended_replay_is_marked_and_shows_its_failures() -> None:
    none: dict[str, Any] = {"scored": 0, "score_sum": 0.0, "accuracy": None}
    ended = Replay(prompts="facts", planned=20, done=9, failed=2, running=False, **none)
    drawn = lines(replace(VIEW, replay=ended))
    assert drawn[1] == "replay   facts 9 of 20, 2 failed (ended)"


def test_an_unknown_value_is_a_dash() -> None:
    unknown = replace(ROW, asked_down_bps=None, message_s=None, messages_s=[], slowest=None)
    drawn = lines(replace(VIEW, profile=None, running=None, p50_s=None, devices=[unknown]))
    assert drawn[0].startswith("profile –   policy wlr")
    assert drawn[2].startswith("requests – running, 0 waiting; last minute 57 ended, p50 –, p95")
    assert drawn[7].startswith("  0 admitted     –  9.3M")


def test_text_from_the_stack_is_not_markup() -> None:
    assert "profile [red]x[/red]" in lines(replace(VIEW, profile="[red]x[/red]"))[0]


def test_no_text_from_the_network_reaches_the_terminal_as_a_control_sequence() -> None:
    odd = "\x1b[2J\x9b1m\u202e\n\t"
    replay = VIEW.replay and VIEW.replay.model_copy(update={"prompts": odd})
    row = replace(ROW, link_fault=odd)
    view = replace(VIEW, profile=odd, policy=odd, model=odd, replay=replay, faults=[odd])
    view = replace(view, running=[REQUEST.model_copy(update={"id": odd})], devices=[row])
    drawn = lines(view, message=odd)
    assert len(drawn) == 24
    assert all(line.isprintable() for line in drawn)


def test_the_head_of_the_bars_is_the_time_span_they_show() -> None:
    def head(width: int, step_s: float) -> str:
        table = devices(VIEW.devices, width, step_s)
        return str(table.columns[-1].header).split("\n")[1]

    assert [head(300, step_s) for step_s in (0.2, 1, 2, 60)] == ["12 s", "60 s", "60 s", "60 s"]


@given(st.floats(0, 9.9e14))
def test_numbers_fit_their_columns(value: float) -> None:
    assert len(number(value)) <= 5
    assert len(share(value)) <= 4
    assert len(milliseconds(value)) <= 5


@pytest.mark.parametrize(
    ("value", "text"), [(248e6, "248M"), (999.6, "1k"), (0.004, "0"), (0.25, "0.25"), (None, "–")]
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_sparkline_is_padded_on_the_left_and_shows_the_newest_values() -> None:
    assert sparkline([1.0, None, 4.0, 8.0], 8.0, 3) == " ▅█"
    assert sparkline([0.0], 8.0, 4) == "   ▁"


@given(st.lists(st.none() | st.floats(0, 1e6), max_size=80), st.integers(1, 70))
def test_a_sparkline_has_the_requested_width_and_the_height_of_its_values(
    values: list[float | None], width: int
) -> None:
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    drawn = sparkline(values, most, width)
    assert len(drawn) == width
    shown = values[-width:]
    bars = drawn[len(drawn) - len(shown) :]
    assert [bar == " " for bar in bars] == [value is None for value in shown]
    pairs = sorted((v, bar) for v, bar in zip(shown, bars, strict=True) if v is not None)
    assert [bar for _, bar in pairs] == sorted(bar for _, bar in pairs)
