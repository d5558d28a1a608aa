"""Summary of a sweep: statistics of each cell, compared with the reference on its prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.time_parts import DEVICE_PARTS, PARTS
from orchestrator.contracts.timings import Timings
from orchestrator.replay.fading import STRIDE_S
from orchestrator.results import statistics
from orchestrator.results.distribution import Interval
from orchestrator.results.run_folder import read_requests, read_run, read_summary
from orchestrator.results.schema import Fading, Request
from orchestrator.results.statistics import Estimate, Spread
from orchestrator.sweep.plan import Cell, Plan, SweepRecord
from orchestrator.sweep.run import BLOCK

METHOD = (
    "latency: measured by the client, end to end, over answered requests; "
    f"intervals: {statistics.CONFIDENCE:.0%}, of accuracy Wilson's, else percentile bootstrap over "
    f"prompts, each with what all policies made of it, {statistics.RESAMPLES} resamples; "
    "p: McNemar's exact test, two-sided; "
    f"turns: {BLOCK} prompts a policy, or 1 where fading begins anew for each prompt, the same for "
    f"each policy: with another draw, or {STRIDE_S:g} s further on where the channel varies in time"
)


class Measured(BaseModel):
    """Times of one policy's answered requests: medians [s], and ratios.

    Attributes:
        latency: end to end.
        latency_spread: end to end, over requests.
        devices_p50_s: measured sum of downlink, wait, compute and uplink.
        parts_p50_s: median of each part of the end-to-end time; medians do not add up exactly.
        ratio: end to end over Eq. 8, by request.
        devices_ratio: measured part of the devices over the batched model, by request.
        experts_per_token: mean number of experts per token and layer.
    """

    latency: Estimate
    latency_spread: Spread
    eq8_p50_s: float
    batched_p50_s: float
    devices_p50_s: float
    parts_p50_s: dict[str, float]
    ratio: Spread | None
    devices_ratio: Spread | None
    experts_per_token: float | None


class Compared(BaseModel):
    """One policy against the reference, on the prompts that both answered.

    Attributes:
        cut: reduction of the median latency, as a share of the reference's.
        speedup: median latency of the reference over that of this policy.
        accuracy_change: as a share of the prompts that have both scores; None without such prompts.
        mcnemar_p: probability of a change at least this uneven by chance.
    """

    n: int
    cut: Estimate
    speedup: float
    accuracy_change: float | None
    mcnemar_p: float | None


class CellSummary(BaseModel):
    """One policy on one prompt set under one profile; None where no request was answered."""

    profile: str
    prompts: str
    policy: PolicySpec
    label: str
    backends: list[str]
    n: int
    errors: int
    accuracy: float | None
    accuracy_interval: Interval | None
    measured: Measured | None
    compared: Compared | None
    warnings: list[str]

    @property
    def theta(self) -> float | None:
        """θ of wlr with all other parameters at their defaults (the line over θ), else None."""
        match = re.fullmatch(r"wlr θ=(\S+)", self.label)
        return float(match[1]) if match else None


class SweepSummary(BaseModel):
    """The content of a sweep's summary.json: its plan, its conditions and its results.

    `fading`: how the fading of each profile began; None for a profile without fading.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    method: str
    asked: SweepRecord
    seeds: dict[str, int]
    model: str
    wire_dtype: str
    curve: bool
    git_revision: str | None
    versions: dict[str, str]
    kernel: str
    cells: list[CellSummary]
    fading: dict[str, Fading | None] = {}


def summarise(plan: Plan, record: SweepRecord) -> SweepSummary:
    """Summarise a complete sweep; InputError if a cell cannot be read."""
    run = read_run(plan.all_cells[0].path)
    cells: list[CellSummary] = []
    for profile in plan.profiles:
        for prompts in plan.sets:
            recorded = [(cell, read_requests(cell.path)) for cell in plan.cells(profile, prompts)]
            reference = recorded[0][1]
            cells += [_cell(cell, requests, reference) for cell, requests in recorded]
    return SweepSummary(
        method=METHOD,
        asked=record,
        seeds={profile.name: profile.spec.seed for profile in plan.profiles},
        model=run.base_station.model.name,
        wire_dtype=run.base_station.wire_dtype,
        curve=run.base_station.curve,
        git_revision=run.git_revision,
        versions=run.versions,
        kernel=run.kernel,
        cells=cells,
        fading={profile.name: plan.fading_of(profile) for profile in plan.profiles},
    )


def measure(requests: Sequence[Request], layers: int) -> Measured | None:
    """Summarise the times of a cell's answered requests; None if there are none.

    `layers` is the number of layers of the model.
    """
    answered = [(one, one.timings) for one in requests if one.error is None and one.timings]
    if not answered:
        return None
    timings = [times for _, times in answered]
    totals = [one.end_to_end_s for one, _ in answered]
    devices = [sum(getattr(times, part) for part in DEVICE_PARTS) for times in timings]
    parts = {part: _median([getattr(times, part) for times in timings]) for part in PARTS}
    parts["http_s"] = _median([one.http_s for one, _ in answered if one.http_s is not None])
    return Measured(
        latency=statistics.median(totals),
        latency_spread=statistics.spread(totals),
        eq8_p50_s=_median([times.eq8_s for times in timings]),
        batched_p50_s=_median([times.batched_s for times in timings]),
        devices_p50_s=_median(devices),
        parts_p50_s=parts,
        ratio=_ratios(totals, [times.eq8_s for times in timings]),
        devices_ratio=_ratios(devices, [times.batched_s for times in timings]),
        experts_per_token=_experts_per_token(timings, layers),
    )


def compare(requests: Sequence[Request], reference: Sequence[Request]) -> Compared | None:
    """Compare a cell's requests with the reference's, paired by prompt; None without pairs."""
    before = {one.id: one for one in reference if one.error is None}
    pairs = [(before[one.id], one) for one in requests if one.error is None and one.id in before]
    if not pairs:
        return None
    cut = statistics.cut(
        [was.end_to_end_s for was, _ in pairs], [one.end_to_end_s for _, one in pairs]
    )
    scores = [(was.score, one.score) for was, one in pairs]
    right = [(was == 1, now == 1) for was, now in scores if was is not None and now is not None]
    return Compared(
        n=len(pairs),
        cut=cut,
        speedup=1 / (1 - cut.value),
        accuracy_change=sum(now - then for then, now in right) / len(right) if right else None,
        mcnemar_p=statistics.mcnemar_p(*zip(*right, strict=True)) if right else None,
    )


def _cell(cell: Cell, requests: Sequence[Request], reference: Sequence[Request]) -> CellSummary:
    summary = read_summary(cell.path)
    return CellSummary(
        profile=cell.profile.name,
        prompts=cell.prompts.name,
        policy=cell.policy,
        label=cell.policy.label,
        backends=summary.backends,
        n=summary.n,
        errors=summary.errors,
        accuracy=summary.accuracy,
        accuracy_interval=summary.accuracy_interval,
        measured=measure(requests, read_run(cell.path).base_station.model.layers),
        compared=compare(requests, reference),
        warnings=summary.warnings,
    )


def _ratios(measured: Sequence[float], modelled: Sequence[float]) -> Spread | None:
    """Return the spread of the ratios of requests whose modelled time is not 0, or None."""
    ratios = [real / model for real, model in zip(measured, modelled, strict=True) if model > 0]
    return statistics.spread(ratios) if ratios else None


def _experts_per_token(timings: Sequence[Timings], layers: int) -> float | None:
    # The last token of a completion is not fed back, so no expert sees it; scored texts have none.
    tokens = sum(times.prompt_tokens + max(times.completion_tokens - 1, 0) for times in timings)
    used = sum(sum(times.experts.used.values()) for times in timings)
    return used / (tokens * layers) if tokens else None


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
