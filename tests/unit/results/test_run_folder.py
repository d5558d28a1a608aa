"""A run's folder: it is read completely, or its fault is reported in one line."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contracts.http import Health, Interval, Orchestrator
from orchestrator.errors import InputError
from orchestrator.results.run_folder import RunFolder, read_intervals, read_requests, read_summary
from tests.harness import answers
from tests.harness.recorded_runs import TOPK, record, request, run


def devices(*builds: str | None) -> dict[str, Any]:
    return {str(q): answers.device(build=build).model_dump() for q, build in enumerate(builds)}


BUILD = {"version": "0.1", "python": "3.11.2", "source": "abc", "packages": {"torch": "2.13.0"}}


def test_intervals_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", profile="mobility", count=2)
    intervals = read_intervals(folder)
    assert len(intervals) == len((folder / "intervals.jsonl").read_text().splitlines())
    assert {item.device for item in intervals} == set(range(8))
    (folder / "intervals.jsonl").unlink()
    assert read_intervals(folder) == []


def test_a_folder_that_a_run_is_writing_to_is_left_unchanged(tmp_path: Path) -> None:
    started = run("near-far", TOPK, 9)
    with closing(RunFolder(tmp_path, started)) as first:
        first.add(request(0, TOPK, "near-far"))
        lines = tmp_path / "requests.jsonl"
        with lines.open("a") as half:
            half.write('{"id": 1, ')
        before = lines.read_bytes()
        with pytest.raises(InputError, match="a run is writing to it; allowed: when that has end"):
            RunFolder(tmp_path, started, resume=True)
        assert lines.read_bytes() == before
    with closing(RunFolder(tmp_path, started, resume=True)) as after:
        assert [item.id for item in after.recorded] == [0]


def test_a_resumed_run_records_each_interval_once(tmp_path: Path) -> None:
    started = run("near-far", TOPK, 9)
    applied = [
        Interval(device=0, epoch=1, interval=n, apply_at_s=n, applied_at_s=n) for n in range(6)
    ]
    for until in (2, 4, 6):
        with closing(RunFolder(tmp_path, started, resume=until > 2)) as folder:
            folder.add_intervals(applied[:until])
    assert read_intervals(tmp_path) == applied


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"compute_dtype": "bf16"}, "base_station.compute_dtype was fp32, it is bf16 now"),
        ({"device_timeout_s": 20.0}, "base_station.device_timeout_s was 3.0, it is 20.0 now"),
        ({"build": BUILD | {"source": "def"}}, "base_station.build.source was abc, it is def now"),
        ({"build": BUILD | {"packages": {"torch": "2.9.0"}}}, "base_station.build.packages.torch"),
        ({"devices": devices("source abc", "b")}, "b | source abc now"),
    ],
)
def test_a_run_cannot_be_resumed_with_another_stack(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    started = run("near-far", TOPK, 9)
    recorded = started.base_station.model_dump() | {
        "compute_dtype": "fp32",
        "device_timeout_s": 3.0,
        "build": BUILD,
        "devices": devices("source abc", None),
    }
    before = started.model_copy(update={"base_station": Health.model_validate(recorded)})
    now = started.model_copy(update={"base_station": Health.model_validate(recorded | changed)})
    RunFolder(tmp_path, before).close()
    RunFolder(tmp_path, before, resume=True).close()
    with pytest.raises(InputError) as refused:
        RunFolder(tmp_path, now, resume=True)
    assert message in str(refused.value)


def test_a_run_cannot_be_resumed_with_another_orchestrator(tmp_path: Path) -> None:
    started = run("near-far", TOPK, 9)
    RunFolder(tmp_path, started).close()
    other = Orchestrator.model_validate({"build": BUILD})
    with pytest.raises(InputError, match=r"orchestrator\.build\.version was None, it is 0\.1 now"):
        RunFolder(tmp_path, started.model_copy(update={"orchestrator": other}), resume=True)


@pytest.mark.parametrize("number", [-1, 1 << 41])
def test_an_impossible_interval_is_refused_by_its_line(tmp_path: Path, number: int) -> None:
    folder = record(tmp_path / "run", count=2)
    interval = {"device": 0, "epoch": 1, "interval": number, "apply_at_s": 0.0, "applied_at_s": 0.0}
    (folder / "intervals.jsonl").write_text(json.dumps(interval) + "\n")
    with pytest.raises(InputError, match=r"intervals\.jsonl, line 1: not an interval of this"):
        read_intervals(folder)


def test_experts_that_are_not_device_numbers_are_refused_by_their_line(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", count=2)
    lines = (folder / "requests.jsonl").read_text().splitlines()
    second: dict[str, Any] = json.loads(lines[1])
    second["timings"]["experts"]["used"] = {"all": 3}
    (folder / "requests.jsonl").write_text(f"{lines[0]}\n{json.dumps(second)}\n")
    with pytest.raises(InputError, match=r"requests\.jsonl, line 2: .*experts\.used"):
        read_requests(folder)


def test_a_summary_that_lacks_a_part_of_the_time_is_refused(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", count=2)
    summary = json.loads((folder / "summary.json").read_text())
    del summary["split"]["uplink_s"]
    (folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match=r"summary\.json: .*split: .*uplink_s missing") as refused:
        read_summary(folder)
    assert "\n" not in str(refused.value)
