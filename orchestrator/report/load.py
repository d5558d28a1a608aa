"""Input of a report: runs and sweeps, read from their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orchestrator.contracts.http import Interval
from orchestrator.contracts.timings import Timings
from orchestrator.errors import InputError
from orchestrator.files import json_file
from orchestrator.results.run_folder import (
    RUN,
    SUMMARY,
    SWEEP,
    read_intervals,
    read_requests,
    read_run,
    read_summary,
)
from orchestrator.results.schema import Request, Run
from orchestrator.results.summary import Summary, summarise
from orchestrator.sweep.plan import SweepRecord, slug
from orchestrator.sweep.summary import SweepSummary


@dataclass(frozen=True, eq=False)
class Recorded:
    """One run. `given` is the folder that the user named: that of the run, or of its sweep."""

    given: Path
    path: Path
    run: Run
    requests: list[Request]
    intervals: list[Interval]
    summary: Summary

    @cached_property
    def answered(self) -> list[tuple[Request, Timings]]:
        """The answered requests, with the times that the base station measured."""
        return [
            (item, item.timings) for item in self.requests if item.error is None and item.timings
        ]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep in a folder; `summary` is None until it has ended."""

    path: Path
    summary: SweepSummary | None
    runs: list[Recorded]


@dataclass(frozen=True, eq=False)
class Material:
    """All runs and sweeps of a report, in the order given; `runs` includes those of sweeps."""

    runs: list[Recorded]
    sweeps: list[Sweep]


def read(folders: Sequence[Path]) -> Material:
    """Read the folders of runs and sweeps.

    Raises:
        InputError: a folder is given twice, holds neither, or has a file that cannot be read.
    """
    runs: list[Recorded] = []
    sweeps: list[Sweep] = []
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise InputError(f"{folder}: is given twice; allowed: each folder once")
        seen.add(folder.resolve())
        if (folder / SWEEP).exists():
            sweep = _read_sweep(folder)
            sweeps.append(sweep)
            runs += sweep.runs
        elif (folder / RUN).exists():
            runs.append(_read_run(folder, folder))
        else:
            fault = f"holds neither {RUN} nor {SWEEP}" if folder.is_dir() else "is not a folder"
            raise InputError(f"{folder}: {fault}; allowed: folders of runs and of sweeps")
    return Material(runs, sweeps)


def _read_sweep(folder: Path) -> Sweep:
    record = json_file.read(folder / SWEEP, SweepRecord, "a sweep")
    cells = [
        folder / profile.name / prompts.name / slug(policy)
        for profile in record.profiles
        for prompts in record.sets
        for policy in record.policies
    ]
    runs = [_read_run(folder, cell) for cell in cells if (cell / RUN).exists()]
    if not runs:
        raise InputError(f"{folder}: the sweep has not begun; allowed: one with a run in it")
    summary = None
    if (folder / SUMMARY).exists():
        summary = json_file.read(folder / SUMMARY, SweepSummary, "a sweep's summary")
    return Sweep(folder, summary, runs)


def _read_run(given: Path, path: Path) -> Recorded:
    run, requests, intervals = read_run(path), read_requests(path), read_intervals(path)
    if (path / SUMMARY).exists():
        summary = read_summary(path)
    else:
        # The run may have been stopped and resumed: rates per second would be wrong.
        summary = summarise(
            run, requests, run.stack, intervals=intervals, continuous=False, ended_now=False
        )
        so_far = f"the run has not ended: {len(requests)} of {run.prompts.items} requests are there"
        summary = summary.model_copy(update={"warnings": [so_far, *summary.warnings]})
    return Recorded(given, path, run, requests, intervals, summary)
