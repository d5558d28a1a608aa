"""The coherence intervals in a run's folder, however the run ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.contracts.http import Interval
from orchestrator.errors import StackError
from orchestrator.results.run_folder import read_intervals, read_requests
from tests.harness import replay_stack
from tests.harness.replay_stack import INTERVALS, interrupt, received, run


def test_a_run_that_is_interrupted_has_its_intervals(url: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(url, tmp_path / "run", "ok 1", "ok 2", "ok 3", on_request=interrupt)
    assert [item.model_dump() for item in read_intervals(tmp_path / "run")] == INTERVALS


def test_a_run_whose_base_station_fails_has_its_intervals(url: str, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="engine stopped"):
        run(url, tmp_path / "run", "ok 1", "gone", "ok 3")
    received.clear()  # it is back
    assert [item.model_dump() for item in read_intervals(tmp_path / "run")] == INTERVALS


def test_a_run_that_was_killed_has_its_intervals_once_it_is_resumed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(url, folder, "ok 1", "slow", "ok 3", on_request=interrupt)
    (folder / "intervals.jsonl").unlink()  # a killed run cannot request them
    first, last = read_requests(folder)
    began_s, ended_s = first.intended_start_s, last.intended_start_s + last.end_to_end_s

    def applied(number: int, at_s: float) -> Interval:
        return Interval(device=0, epoch=3, interval=number, apply_at_s=at_s, applied_at_s=at_s)

    before, pause = applied(0, began_s - 1e-3), applied(2, ended_s + 1e-6)
    within, after = applied(1, ended_s - 1e-3), applied(3, 4e9)
    remembered = [item.model_dump() for item in (before, within, pause, after)]
    monkeypatch.setattr(replay_stack, "INTERVALS", remembered)
    run(url, folder, "ok 1", "slow", "ok 3")
    assert read_intervals(folder) == [within, after]
