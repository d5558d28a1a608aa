"""Run and sweep folders in the project's own format, with invented requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.contracts.http import Interval, Link, Queue, Queues, Status
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.time_parts import PARTS
from orchestrator.contracts.timings import Experts, Timings
from orchestrator.prompts import prompt_sets
from orchestrator.radio import profiles
from orchestrator.report import load, page
from orchestrator.results.run_folder import RunFolder, write_summary
from orchestrator.results.schema import PromptsUsed, Request, Run
from orchestrator.results.summary import summarise
from orchestrator.sweep import report
from orchestrator.sweep.plan import Plan
from tests.harness import answers

BEGIN_S = 1_700_000_000.0
TOPK = PolicySpec(name="topk", params={})
WLR = PolicySpec(name="wlr", params={"theta": 0.2})
SLOW = "the host is <too> slow & late"  # a warning that a page has to escape


def request(number: int, policy: PolicySpec, profile: str, **changed: Any) -> Request:
    """One a second; wlr is faster, leaves out tokens of device 7, and gets every fifth wrong."""
    wlr = policy == WLR
    slower_s = 0.01 * (number % 7)
    parts = {**dict.fromkeys(PARTS, 0.01), "compute_s": (0.1 if wlr else 0.2) + slower_s}
    total_s = sum(parts.values())
    timings = Timings(
        **parts,
        request_id="r",
        time_to_first_token_s=0.1,
        end_to_end_s=total_s,
        prompt_tokens=10,
        completion_tokens=3,
        eq8_s=0.25,
        batched_s=0.15,
        experts=Experts(
            used={str(q): 10 for q in range(8)},
            dropped={},
            outage={"3": 2},
            deselected={"7": 4} if wlr else {},
        ),
        overruns=0,
        device_messages=20,
        policy=policy,
        profile=profile,
        epoch=1,
    )
    start_s = BEGIN_S + number + (0.5 if wlr else 0.0)
    fields = {
        "id": number,
        "prompt_id": f"p-{number}",
        "completion": " 12",
        "answer": "12",
        "expected": "12",
        "score": 0.0 if wlr and number % 5 == 0 else 1.0,
        "intended_start_s": start_s,
        "actual_start_s": start_s,
        "time_to_first_token_s": 0.1,
        "end_to_end_s": total_s + 0.005,
        "http_s": 0.005,
        "timings": timings,
        "error": None,
    }
    return Request(**{**fields, **changed})


def failed(number: int, policy: PolicySpec, profile: str) -> Request:
    """A request that was not answered."""
    nothing = dict.fromkeys(("score", "time_to_first_token_s", "http_s", "timings"))
    return request(number, policy, profile, **nothing, error="gone")


def program(number: int, completion: str, error: str | None = None) -> Request:
    """Return a request that was answered with a program, not tested yet."""
    fields = {"prompt_id": f"Own/{number}", "completion": completion, "score": None, "error": error}
    return request(number, TOPK, "ideal", **fields)


def link(q: int, backend: str | None = "tbf", error: str | None = None, dropped: int = 0) -> Link:
    """What a device reports; without a backend: nothing yet."""
    if backend is None:
        silent = ("backend", "applied_epoch", "applied_interval", "reported_age_s", "queues")
        return answers.link(q, **dict.fromkeys(silent), error=error)
    queues = Queues(down=Queue(overflows=0), up=Queue(overflows=dropped))
    return answers.link(q, backend=backend, error=error, queues=queues)


def run(profile: str, policy: PolicySpec, items: int) -> Run:
    """What was in force, with a bundled profile."""
    found = profiles.find(profile)
    return Run(
        command=["/somewhere/bin/wdmoe", "replay", "facts"],
        started_at="2025-01-01T00:00:00+00:00",
        git_revision="0123456789",
        versions={"python": "3.11"},
        host={"name": "host", "machine": "x86_64", "cpus": 2},
        kernel="6.1",
        prompts=PromptsUsed(name="facts", path="x", sha256="0", items=items),
        base_station=answers.health(),
        channel=Status(
            profile=profile,
            profile_sha256=found.sha256,
            profile_text=found.text,
            seed=found.spec.seed,
            epoch=1,
            interval=0,
            apply_at_s=BEGIN_S - 1,
            policy=policy,
            emulate=None,
            degraded=False,
            verification=None,
            links=[link(q) for q in range(8)],
        ),
    )


def record(
    path: Path,
    profile: str = "near-far",
    policy: PolicySpec = TOPK,
    count: int = 12,
    *,
    ended: bool = True,
    failures: Sequence[int] = (),
) -> Path:
    """Write a run's folder; without a summary if it has not `ended`."""
    started = run(profile, policy, count)
    folder = RunFolder(path, started)
    requests = [
        failed(number, policy, profile) if number in failures else request(number, policy, profile)
        for number in range(count)
    ]
    for item in requests:
        folder.add(item)
    interval_s = profiles.find(profile).interval_s
    if interval_s is not None:
        folder.add_intervals(
            [
                Interval(
                    device=q,
                    epoch=1,
                    interval=number,
                    apply_at_s=BEGIN_S - 1 + number * interval_s,
                    applied_at_s=BEGIN_S - 1 + number * interval_s,
                )
                for number in range(round((count + 2) / interval_s))
                for q in range(8)
            ]
        )
    folder.close()
    if ended:
        summary = summarise(started, requests, started.stack)
        warnings = [*summary.warnings, SLOW]
        write_summary(path, summary.model_copy(update={"warnings": warnings}))
    return path


def record_sweep(path: Path, *, ended: bool = True) -> Path:
    """Write the folder of a sweep of two policies; without a summary if it has not `ended`."""
    prompts = (prompt_sets.load("facts").head(12),)
    plan = Plan(path, (profiles.find("near-far"),), prompts, (TOPK, WLR))
    sweep = plan.claim(resume=False)
    for cell in plan.all_cells:
        record(cell.path, policy=cell.policy)
    if ended:
        report.write(plan, sweep)
    return path


def report_of(out: Path, *folders: Path) -> str:
    """Return the report page of run folders."""
    return page.write(load.read(folders), out).page.read_text()
