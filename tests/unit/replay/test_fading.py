"""The fading that each request of a replay meets, with a real orchestrator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.client.client import Client
from orchestrator.errors import InputError, StackError
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.replay import arrivals
from orchestrator.replay.run import Options, Outcome, replay
from orchestrator.results.compare import compare
from orchestrator.results.run_folder import read_intervals, read_requests, read_run
from orchestrator.results.schema import Request
from tests.harness.command import Wdmoe
from tests.harness.control_plane import FAST, STILL, profile
from tests.harness.live_stack import LiveStack, live
from tests.harness.replay_stack import prompt
from tests.harness.sweep_stack import prompts

pytestmark = pytest.mark.slow

DRAW = 5  # the draw in force before a run
TOGETHER = arrivals.choose("closed", concurrency=2)
STRIDE = 12_140  # 607 s of 50 ms


@pytest.fixture
def stack() -> Iterator[LiveStack]:
    with live(STILL) as stack:
        stack.stack.control.use(profile(STILL), first_interval=DRAW)
        yield stack


def run(stack: LiveStack, out: Path, count: int = 3, **arguments: Any) -> Outcome:
    """Replay `count` prompts, or resume their run."""
    texts = tuple(prompt(f"ok {number}") for number in range(count))
    urls = stack.environment
    options = arguments.pop("options", Options())
    with closing(Client(urls["WDMOE_BS_URL"], urls["WDMOE_ORCHESTRATOR_URL"])) as client:
        return replay(
            PromptSet("mine", Path("mine"), "ab", texts),
            client,
            out,
            options=options,
            resume=out.exists(),
            **arguments,
        )


def sent(stack: LiveStack) -> list[int]:
    """Return the interval that each request met."""
    return [interval for _, _, interval in stack.sent]


def test_each_prompt_meets_a_draw_of_its_own(stack: LiveStack, tmp_path: Path) -> None:
    before = stack.in_force()
    outcome = run(stack, tmp_path / "run")
    assert sent(stack) == [0, 1, 2]
    assert [r.first_interval for r in outcome.requests] == [0, 1, 2]
    epochs = [r.epoch for r in outcome.requests]
    assert epochs == [r.timings and r.timings.epoch for r in outcome.requests]
    assert len(set(epochs)) == 3
    assert outcome.summary.warnings == []
    assert stack.settled() == before
    fading = read_run(tmp_path / "run").fading
    assert fading is not None
    assert fading.label == "a draw for each prompt"
    assert outcome.summary.fading == fading


def test_no_request_meets_a_channel_that_a_device_has_not_applied(
    stack: LiveStack, tmp_path: Path
) -> None:
    stack.late_s = {1: 0.2}
    outcome = run(stack, tmp_path / "run")
    applied = read_intervals(tmp_path / "run")
    for request in outcome.requests:
        applied_s = [item.applied_at_s for item in applied if item.epoch == request.epoch]
        assert len(applied_s) == 2
        assert max(applied_s) < request.intended_start_s


def test_rates_exclude_the_time_of_switches(stack: LiveStack, tmp_path: Path) -> None:
    summary = run(stack, tmp_path / "run").summary
    assert summary.end_to_end.mean_s is not None
    assert summary.requests_per_s == pytest.approx(1 / summary.end_to_end.mean_s)


def test_a_resumed_run_gives_each_prompt_its_draw(stack: LiveStack, tmp_path: Path) -> None:
    def stop(request: Request) -> None:
        if request.id == 1:
            raise KeyboardInterrupt

    before = stack.in_force()
    with pytest.raises(KeyboardInterrupt):
        run(stack, tmp_path / "run", on_request=stop)
    assert stack.settled() == before
    run(stack, tmp_path / "run")
    assert sent(stack) == [0, 1, 2]
    assert [r.first_interval for r in read_requests(tmp_path / "run")] == [0, 1, 2]


def test_warm_up_uses_the_draw_in_force(stack: LiveStack, tmp_path: Path) -> None:
    run(stack, tmp_path / "run", options=Options(warmup=2))
    assert sent(stack) == [DRAW, DRAW, 0, 1, 2]


@pytest.mark.parametrize(
    "options", [Options(fading="one"), Options(schedule=TOGETHER)], ids=["one", "overlapping"]
)
def test_a_single_realisation_is_the_one_in_force_and_is_labelled(
    stack: LiveStack, tmp_path: Path, options: Options
) -> None:
    epoch = stack.stack.control.status().epoch
    outcome = run(stack, tmp_path / "run", options=options)
    assert sent(stack) == [DRAW] * 3
    assert stack.stack.control.status().epoch == epoch
    assert {one.first_interval for one in outcome.requests} == {DRAW}
    assert outcome.summary.fading is not None
    assert outcome.summary.fading.label == "one realisation"


def test_a_single_realisation_is_resumed_with_the_same_draw_only(
    stack: LiveStack, tmp_path: Path
) -> None:
    run(stack, tmp_path / "run", options=Options(fading="one"))
    stack.stack.control.use(profile(STILL), first_interval=DRAW + 1)
    with pytest.raises(InputError, match=r"fading was one realisation, draw 5, it is .* draw 6"):
        run(stack, tmp_path / "run", options=Options(fading="one"))
    with pytest.raises(InputError, match="fading was one realisation, draw 5, it is a draw for"):
        run(stack, tmp_path / "run")


def test_requests_that_overlap_cannot_each_have_a_draw(stack: LiveStack, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^fading is each, .*allowed: one$"):
        run(stack, tmp_path / "run", options=Options(schedule=TOGETHER, fading="each"))
    assert stack.sent == []


def test_fading_that_varies_begins_anew_for_each_prompt(stack: LiveStack, tmp_path: Path) -> None:
    stack.stack.control.use(profile(FAST), first_interval=100_000)
    outcome = run(stack, tmp_path / "run")
    begun = [0, STRIDE, 2 * STRIDE]
    assert [r.first_interval for r in outcome.requests] == begun
    for met, first in zip(sent(stack), begun, strict=True):
        assert first <= met < first + STRIDE
    assert stack.settled()["interval"] >= 100_000


def test_fading_that_varies_begins_once_for_requests_that_overlap(
    stack: LiveStack, tmp_path: Path
) -> None:
    stack.stack.control.use(profile(FAST), first_interval=100_000)
    outcome = run(stack, tmp_path / "run", options=Options(schedule=TOGETHER))
    assert {r.first_interval for r in outcome.requests} == {0}
    assert max(sent(stack)) < STRIDE
    assert outcome.summary.warnings == []
    assert stack.settled()["interval"] >= 100_000


def test_fading_that_cannot_begin_for_each_prompt_can_begin_once(
    stack: LiveStack, tmp_path: Path
) -> None:
    slow = FAST.replace("coherence_s: 0.05", "coherence_s: 0.05, speed_m_per_s: 0.001")
    stack.stack.control.use(profile(slow))
    with pytest.raises(InputError, match=r"or a higher speed_m_per_s, or fading one$"):
        run(stack, tmp_path / "run")
    run(stack, tmp_path / "run", options=Options(fading="one"))
    assert len(sent(stack)) == 3


def test_a_profile_without_fading_is_not_switched(stack: LiveStack, tmp_path: Path) -> None:
    stack.stack.control.use(profile(STILL.replace("{kind: rayleigh}", "{kind: none}")))
    epoch = stack.stack.control.status().epoch
    outcome = run(stack, tmp_path / "run")
    assert stack.stack.control.status().epoch == epoch
    assert outcome.summary.fading is None


def test_a_switch_by_another_user_causes_one_warning(stack: LiveStack, tmp_path: Path) -> None:
    def switch() -> None:
        if len(stack.sent) == 2:
            stack.stack.control.use(profile(STILL, "other"))

    stack.on_prompt = switch
    (warning,) = run(stack, tmp_path / "run").summary.warnings
    assert warning.startswith("the profile was changed during the run: 1 of 3 requests did not run")


def test_a_device_that_does_not_apply_its_draw_ends_the_run(
    stack: LiveStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.client.applied.APPLIED_WITHIN_S", 1.0)
    before = stack.in_force()
    stack.stuck = {1}
    with pytest.raises(StackError, match=r"^device-1 did not apply p within 1 s"):
        run(stack, tmp_path / "run")
    assert stack.sent == []
    assert stack.settled() == before


def test_a_comparison_lists_prompts_that_did_not_meet_the_same_fading(
    stack: LiveStack, tmp_path: Path
) -> None:
    a, b, shared = (tmp_path / name for name in ("a", "b", "one"))
    run(stack, a)
    run(stack, b)
    run(stack, shared, options=Options(fading="one"))
    assert compare(a, b).differences == []
    differences = {item.field: (item.a, item.b) for item in compare(a, shared).differences}
    assert differences["fading"] == ("a draw for each prompt", "one realisation, draw 5")
    assert differences["fading of prompts"] == ("not the same for 3 of 3",) * 2


def test_a_comparison_lists_fading_that_depends_on_time(stack: LiveStack, tmp_path: Path) -> None:
    stack.stack.control.use(profile(FAST))
    a, b = tmp_path / "a", tmp_path / "b"
    for out in (a, b):
        run(stack, out, options=Options(schedule=TOGETHER))
    (difference,) = compare(a, b).differences
    assert difference.field == "fading of prompts"
    assert difference.a == difference.b == "depends on when each was sent"


def test_the_command_prints_the_fading_of_its_table(
    stack: LiveStack, wdmoe: Wdmoe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = prompts("mine", "p0", "p1")
    for name, url in stack.environment.items():
        monkeypatch.setenv(name, url)
    assert "Fading: a draw for each prompt\n" in wdmoe("replay", spec).out
    output = wdmoe("replay", spec, "--fading", "one", "--out", "out").out
    assert "Fading: one realisation, which no interval covers\n" in output
    wrong = wdmoe("replay", spec, "--fading", "two")
    assert (wrong.code, wrong.err) == (2, "wdmoe: fading is 'two'; allowed: each or one\n")
    wdmoe("report", "out", "--out", "page")
    assert "one realisation" in Path("page/index.html").read_text()
