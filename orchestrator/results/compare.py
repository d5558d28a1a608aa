"""The comparison of two runs, prompt by prompt, so that prompts' differences do not blur it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from orchestrator.errors import InputError
from orchestrator.results import statistics
from orchestrator.results.run_folder import SWEEP, essence, read_requests, read_run
from orchestrator.results.schema import Request, Run
from orchestrator.results.statistics import Estimate

METHOD = (
    "latency: measured by the client from the intended start, medians over the prompts that both "
    f"runs answered; intervals: {statistics.CONFIDENCE:.0%}, percentile bootstrap over prompts, "
    f"each with both runs' results, {statistics.RESAMPLES} resamples; p: McNemar's exact "
    "test, two-sided"
)


class Difference(BaseModel):
    """A field of run.json that differs between the runs, and its value in each."""

    field: str
    a: str
    b: str


class Times(BaseModel):
    """Medians [s] of both runs over `n` prompts; `ratio` is B / A, `difference_s` B - A."""

    n: int
    a_p50_s: float
    b_p50_s: float
    ratio: Estimate
    difference_s: Estimate


class Scores(BaseModel):
    """Shares of `n` prompts that each run got right, and how many only one run got right.

    `mcnemar_p`: the probability of at least as uneven a change by chance.
    """

    n: int
    a: float
    b: float
    change: float
    only_a_right: int
    only_b_right: int
    mcnemar_p: float


class Comparison(BaseModel):
    """Run B compared with run A; a field without data is None.

    `prompts` are in both runs, `only_a` and `only_b` in one. `failed` counts the prompts in both
    runs that at least one run did not answer.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    method: str
    a: str
    b: str
    differences: list[Difference]
    prompts: int
    only_a: int
    only_b: int
    failed: int
    end_to_end: Times | None
    time_to_first_token: Times | None
    accuracy: Scores | None
    accuracy_norm: Scores | None


def compare(a: Path, b: Path) -> Comparison:
    """Compare the runs in two folders, finished or not.

    Raises:
        InputError: a folder holds no run, or the runs have different sets or no prompt in common.
    """
    run_a, run_b = _run(a), _run(b)
    set_a, set_b = run_a.prompts, run_b.prompts
    # Sets that number their items use the same ids for different prompts.
    if set_a.name != set_b.name and set_a.sha256 != set_b.sha256:
        raise InputError(
            f"{a} and {b}: their prompt sets are {set_a.name} and {set_b.name}; allowed: the same"
        )
    of_a, of_b = _by_prompt(read_requests(a)), _by_prompt(read_requests(b))
    common = [key for key in of_a if key in of_b]
    if not common:
        raise InputError(
            f"{a} and {b}: no prompt was sent in both; allowed: two runs with prompts in common"
        )
    pairs = [(of_a[key], of_b[key]) for key in common]
    answered = [(was, now) for was, now in pairs if was.error is None and now.error is None]
    return Comparison(
        method=METHOD,
        a=str(a),
        b=str(b),
        differences=[*_differences(run_a, run_b), *_of_fading(run_a, run_b, pairs)],
        prompts=len(common),
        only_a=len(of_a) - len(common),
        only_b=len(of_b) - len(common),
        failed=len(pairs) - len(answered),
        end_to_end=_times([(was.end_to_end_s, now.end_to_end_s) for was, now in answered]),
        time_to_first_token=_times(
            [(was.time_to_first_token_s, now.time_to_first_token_s) for was, now in answered]
        ),
        accuracy=_scores([(was.score, now.score) for was, now in answered]),
        accuracy_norm=_scores([(was.score_norm, now.score_norm) for was, now in answered]),
    )


def _run(path: Path) -> Run:
    if (path / SWEEP).exists():
        raise InputError(f"{path}: is a sweep; allowed: one run of it, DIR/PROFILE/SET/POLICY")
    return read_run(path)


def _by_prompt(requests: Sequence[Request]) -> dict[tuple[str, str], Request]:
    # Files that number their prompts use the same ids for different prompts.
    return {(request.prompt_id, request.expected): request for request in requests}


def _differences(a: Run, b: Run) -> list[Difference]:
    was, now = _conditions(a), _conditions(b)
    return [
        Difference(field=field, a=str(was.get(field)), b=str(now.get(field)))
        for field in {**was, **now}
        if was.get(field) != now.get(field)
    ]


def _of_fading(a: Run, b: Run, pairs: Sequence[tuple[Request, Request]]) -> list[Difference]:
    """Return a difference if prompts did not meet the same fading in both runs."""
    if a.fading is None and b.fading is None:
        return []
    changed = sum(was.first_interval != now.first_interval for was, now in pairs)
    if changed:
        text = f"not the same for {changed} of {len(pairs)}"
    elif any(run.fading and run.fading.goes_on for run in (a, b)):
        text = "depends on when each was sent"
    else:
        return []
    return [Difference(field="fading of prompts", a=text, b=text)]


def _conditions(run: Run) -> dict[str, object]:
    """Return what two runs may differ by: what their results depend on, and what produced them."""
    return {
        **essence(run),
        "channel.seed": run.channel.seed,
        "git_revision": run.git_revision,
        "source": run.source,
        "kernel": run.kernel,
        **{f"versions.{name}": value for name, value in run.versions.items()},
        **{f"host.{name}": value for name, value in run.host.items()},
    }


def _times(pairs: Sequence[tuple[float | None, float | None]]) -> Times | None:
    both = [(was, now) for was, now in pairs if was is not None and now is not None]
    if not both:
        return None
    a, b = zip(*both, strict=True)
    cut = statistics.cut(a, b)
    return Times(
        n=len(both),
        a_p50_s=float(np.median(a)),
        b_p50_s=float(np.median(b)),
        ratio=Estimate(
            value=1 - cut.value,
            low=None if cut.high is None else 1 - cut.high,
            high=None if cut.low is None else 1 - cut.low,
        ),
        difference_s=statistics.difference(a, b),
    )


def _scores(pairs: Sequence[tuple[float | None, float | None]]) -> Scores | None:
    right = [(was == 1, now == 1) for was, now in pairs if was is not None and now is not None]
    if not right:
        return None
    a, b = zip(*right, strict=True)
    return Scores(
        n=len(right),
        a=sum(a) / len(right),
        b=sum(b) / len(right),
        change=(sum(b) - sum(a)) / len(right),
        only_a_right=sum(was and not now for was, now in right),
        only_b_right=sum(now and not was for was, now in right),
        mcnemar_p=statistics.mcnemar_p(a, b),
    )
