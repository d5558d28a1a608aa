"""What a run's folder holds is read as a whole, or its fault is told in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InputError
from orchestrator.replay.run_folder import read_intervals, read_requests, read_summary
from tests.unit.recorded_runs import record


def test_intervals_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = record(tmp_path / "run", profile="mobility", count=2)
    intervals = read_intervals(run)
    assert len(intervals) == len((run / "intervals.jsonl").read_text().splitlines())
    assert {one.device for one in intervals} == set(range(8))
    (run / "intervals.jsonl").unlink()
    assert read_intervals(run) == []


@pytest.mark.parametrize("number", [-1, 1 << 41])
def test_an_interval_that_cannot_be_is_refused_by_its_line(tmp_path: Path, number: int) -> None:
    run = record(tmp_path / "run", count=2)
    one = {"device": 0, "epoch": 1, "interval": number, "apply_at_s": 0.0, "applied_at_s": 0.0}
    (run / "intervals.jsonl").write_text(json.dumps(one) + "\n")
    with pytest.raises(InputError, match=r"intervals\.jsonl, line 1: not an interval of this"):
        read_intervals(run)


def test_experts_that_are_no_device_numbers_are_refused_by_their_line(tmp_path: Path) -> None:
    run = record(tmp_path / "run", count=2)
    lines = (run / "requests.jsonl").read_text().splitlines()
    second: dict[str, Any] = json.loads(lines[1])
    second["timings"]["experts"]["used"] = {"all": 3}
    (run / "requests.jsonl").write_text(f"{lines[0]}\n{json.dumps(second)}\n")
    with pytest.raises(InputError, match=r"requests\.jsonl, line 2: .*experts\.used"):
        read_requests(run)


def test_a_summary_that_lacks_a_part_of_the_time_is_refused(tmp_path: Path) -> None:
    run = record(tmp_path / "run", count=2)
    summary = json.loads((run / "summary.json").read_text())
    del summary["split"]["uplink_s"]
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match=r"summary\.json: .*split: .*uplink_s missing") as refused:
        read_summary(run)
    assert "\n" not in str(refused.value)
