"""A run in numbers, from its requests. Latency and accuracy are over the answered requests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from orchestrator.replay.records import PARTS, Channel, Link, Policy, Request, Run, Timings

P99_LEAST = 100  # of fewer values, the 99th percentile is just about the maximum
OVERRUNS_MOST = 0.01
METHOD = (
    "client-measured from the intended start, over answered requests; "
    "percentiles by linear interpolation (numpy)"
)


class Percentiles(BaseModel):
    """Percentiles [s]; None where there are too few values."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class Average(BaseModel):
    """A duration per request [s]; None where no request was answered."""

    mean_s: float | None
    p50_s: float | None


class Summary(BaseModel):
    """The content of summary.json.

    `split` are the parts of an answer's time: `PARTS` as the base station measured them, and
    `http_s`, what lies between client and base station. `eq8` is the paper's sum over tokens and
    layers, `batched` the same with a layer's tokens for a device in one message; `eq8_measured` is
    the same three terms, downlink, compute and uplink, as measured. The standard error of the
    accuracy is sqrt(p·(1 − p)/answered). `tokens_per_s` counts completion tokens from the first
    intended start to the last end; None of a run that had pauses.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    warnings: list[str]
    prompts: str
    profile: str
    policy: Policy
    backends: list[str]
    n: int
    errors: int
    accuracy: float | None
    accuracy_standard_error: float | None
    method: str
    time_to_first_token: Percentiles
    end_to_end: Percentiles
    end_to_end_mean_s: float | None
    split: dict[str, Average]
    eq8: Average
    batched: Average
    eq8_measured: Average
    tokens_per_s: float | None
    overruns_share: float | None


def summarise(
    run: Run, requests: Sequence[Request], after: Channel, *, continuous: bool = True
) -> Summary:
    """Sum up the requests of a run.

    Args:
        run: what was in force when it began.
        requests: in any order.
        after: the channel as it was at the run's end.
        continuous: False if the run was stopped and went on, or shared the stack by turns. Then
            epochs have changed, and time has passed, without its doing.
    """
    answered = [request for request in requests if request.error is None]
    timings = [request.timings for request in answered if request.timings]
    scores = [request.score for request in answered if request.score is not None]
    accuracy = _mean(scores)
    messages = sum(item.device_messages for item in timings)
    overruns = sum(item.overruns for item in timings) / messages if messages else None
    end_to_end = [request.end_to_end_s for request in answered]
    split = {part: _average([getattr(item, part) for item in timings]) for part in PARTS}
    split["http_s"] = _average([item.http_s for item in answered if item.http_s is not None])
    return Summary(
        warnings=_warnings(run, timings, len(requests), overruns, after, continuous),
        prompts=run.prompts.name,
        profile=run.channel.profile,
        policy=run.channel.policy,
        backends=sorted({link.backend for link in run.channel.links if link.backend}),
        n=len(requests),
        errors=len(requests) - len(answered),
        accuracy=accuracy,
        accuracy_standard_error=(
            None if accuracy is None else math.sqrt(accuracy * (1 - accuracy) / len(scores))
        ),
        method=METHOD,
        time_to_first_token=percentiles(
            [r.time_to_first_token_s for r in answered if r.time_to_first_token_s is not None]
        ),
        end_to_end=percentiles(end_to_end),
        end_to_end_mean_s=_mean(end_to_end),
        split=split,
        eq8=_average([item.eq8_s for item in timings]),
        batched=_average([item.batched_s for item in timings]),
        eq8_measured=_average([t.downlink_s + t.compute_s + t.uplink_s for t in timings]),
        tokens_per_s=_throughput(answered, timings) if continuous else None,
        overruns_share=overruns,
    )


def percentiles(values: Sequence[float]) -> Percentiles:
    """p50, p95 and, of at least 100 values, p99, by linear interpolation."""
    return Percentiles(
        p50_s=_percentile(values, 50),
        p95_s=_percentile(values, 95),
        p99_s=_percentile(values, 99) if len(values) >= P99_LEAST else None,
    )


def _warnings(
    run: Run,
    timings: Sequence[Timings],
    n: int,
    overruns: float | None,
    after: Channel,
    continuous: bool,
) -> list[str]:
    warnings = []
    errors = n - len(timings)
    if errors:
        warnings.append(f"{errors} of {n} requests failed; the numbers are those of the others")
    if overruns is not None and overruns > OVERRUNS_MOST:
        warnings.append(
            f"{overruns:.1%} of the device messages are overruns (more than {OVERRUNS_MOST:.0%}): "
            "this host is too slow for the emulated devices, the latencies are too long"
        )
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
    # The epoch alone would miss an orchestrator that was restarted with another profile.
    if any(
        item.profile != channel.profile or (continuous and item.epoch != channel.epoch)
        for item in timings
    ):
        seen = sorted({f"{item.profile} (epoch {item.epoch})" for item in timings})
        warnings.append(
            f"the profile was changed during the run: it began with {channel.profile} (epoch "
            f"{channel.epoch}), requests ran under {', '.join(seen)}"
        )
    if any(item.policy != channel.policy for item in timings):
        seen = sorted({item.policy.label for item in timings})
        warnings.append(
            f"the policy was changed during the run: it began with {channel.policy.label}, "
            f"requests ran under {', '.join(seen)}"
        )
    if channel.degraded or after.degraded:
        warnings.append(
            "degraded: the profile asks for delay, jitter or loss, the kernel has no netem; only "
            "its rates were applied"
        )
    before = {link.device: _overflows(link) for link in channel.links}
    for link in after.links:
        dropped = _overflows(link) - before.get(link.device, 0)
        if dropped > 0:
            warnings.append(
                f"the queues of device-{link.device} were too short: {dropped} packets dropped"
            )
    for link in channel.links:
        if link.error or link.backend is None:
            told = link.error or "it has not reported what it applies"
            warnings.append(f"the link of device-{link.device} is not as asked: {told}")
    return warnings


def _overflows(link: Link) -> int:
    return link.queues.down.overflows + link.queues.up.overflows if link.queues else 0


def _throughput(answered: Sequence[Request], timings: Sequence[Timings]) -> float | None:
    if not answered:
        return None
    start = min(request.intended_start_s for request in answered)
    end = max(request.intended_start_s + request.end_to_end_s for request in answered)
    return sum(item.completion_tokens for item in timings) / (end - start)


def _average(values: Sequence[float]) -> Average:
    return Average(mean_s=_mean(values), p50_s=_percentile(values, 50))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _percentile(values: Sequence[float], q: float) -> float | None:
    return float(np.percentile(values, q)) if values else None
