"""Warnings about a run whose results are doubtful, one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from orchestrator.contracts.http import Interval, Status
from orchestrator.contracts.timings import Timings
from orchestrator.results import stack_warnings
from orchestrator.results.schema import Request, Run, Stack

OVERRUNS_MOST = 0.01


def doubts(
    run: Run,
    requests: Sequence[Request],
    overruns: float | None,
    after: Stack,
    intervals: Sequence[Interval],
    *,
    ended_now: bool,
) -> list[str]:
    """Return the warnings of a run; arguments as for `summarise`, and the share of overruns."""
    warnings = []
    n = len(requests)
    answered = [request for request in requests if request.error is None]
    timings = [request.timings for request in answered if request.timings]
    errors = n - len(answered)
    if errors:
        warnings.append(f"{errors} of {n} requests failed; the numbers are those of the others")
    if overruns is not None and overruns > OVERRUNS_MOST:
        warnings.append(
            f"{overruns:.1%} of the device messages are overruns (more than {OVERRUNS_MOST:.0%}): "
            "this host is too slow for the emulated devices, the latencies are too long"
        )
    unscored = sum(request.score is None for request in answered)
    if unscored:
        warnings.append(f"{unscored} of {len(answered)} answers have no score")
    lost = sum((Counter(item.experts.dropped) for item in timings), Counter[str]())
    if lost:
        devices = ", ".join(f"device-{q}" for q in sorted(lost, key=int))
        warnings.append(
            f"{lost.total()} tokens, over all layers, lost an expert because a device was absent, "
            f"late or unreachable: {devices}"
        )
    if run.routing:
        warnings.append("routing was recorded: http and end to end include it")
    channel = run.channel
    others = [
        f"{request.timings.profile} (epoch {request.timings.epoch}, not {request.epoch})"
        for request in answered
        if request.timings and _ran_elsewhere(request, request.timings, channel)
    ]
    if others:
        warnings.append(
            f"the profile was changed during the run: {len(others)} of {len(timings)} requests did "
            f"not run under {channel.profile} as it was put into force for them, the first under "
            f"{others[0]}"
        )
    if any(item.policy != channel.policy for item in timings):
        seen = sorted({item.policy.label for item in timings})
        warnings.append(
            f"the policy was changed during the run: it began with {channel.policy.label}, "
            f"requests ran under {', '.join(seen)}"
        )
    if channel.degraded or after.channel.degraded:
        warnings.append(
            "degraded: the profile has delay, jitter or loss, but the kernel has no netem; only "
            "its rates were applied"
        )
    if ended_now:
        warnings += stack_warnings.of_switches(channel, requests, after.channel)
    warnings += stack_warnings.of_links(channel, after.channel)
    warnings += stack_warnings.of_intervals(intervals, requests)
    return warnings + stack_warnings.of_code(run, after)


def _ran_elsewhere(request: Request, timings: Timings, channel: Status) -> bool:
    """Return whether a request met another profile, or this profile put into force by others.

    The epoch alone would miss an orchestrator that was restarted with another profile.
    """
    return timings.profile != channel.profile or request.epoch not in (None, timings.epoch)
