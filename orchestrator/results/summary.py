"""The summary of a run. Latency and accuracy are over the answered requests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from pydantic import BaseModel, ConfigDict, field_validator

from orchestrator.contracts.http import Interval as Applied
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.time_parts import DEVICE_PARTS, PARTS
from orchestrator.contracts.timings import Timings
from orchestrator.results.distribution import (
    Average,
    Distribution,
    Interval,
    Percentiles,
    average,
    distribution,
    mean,
    percentiles,
    share_interval,
)
from orchestrator.results.schema import Arrivals, Fading, Request, Run, Stack
from orchestrator.results.warnings import doubts

# The API's codes of these errors.
TOO_LONG = ("context_length_exceeded", "memory_exceeded")
METHOD = (
    "client-measured from the intended start, over answered requests; percentiles by linear "
    "interpolation (numpy), of 10, 20 and 100 values at least for the 90th, 95th and 99th; "
    "intervals: 95 %, of accuracy Wilson's, else percentile bootstrap over requests"
)


class Goodput(BaseModel):
    """Requests answered within a limit: their number, share of all, and rate per second."""

    limit_s: float
    n: int
    share: float
    per_s: float | None


class Backoff(BaseModel):
    """The effect of a full base station: `requests` were held back, for `mean_s` on average.

    `retries`: how often requests were sent again.
    """

    requests: int
    retries: int
    mean_s: float
    most_s: float


class InFlight(BaseModel):
    """Requests in flight at a time; the mean is None for a run with pauses."""

    mean: float | None
    most: int


class Summary(BaseModel):
    """The content of summary.json.

    `too_long`: how many of the `errors` are prompts too long for the model's context or its memory.
    `accuracy` is the mean score, 0 or 1, of the `scored` requests, with Wilson's interval;
    `accuracy_norm` is the same for scores by length-normalised likelihood, if there are any.
    `dispatch_delay` is how much later than intended all requests were first sent; `backoff` the
    effect of a full base station, None if it refused no request. `time_per_output_token` is a
    request's mean over its tokens but the first. `split` has the parts of an answer's time: `PARTS`
    as the base station measured them, `http_s`, the time between client and base station, and
    `backoff_s`. `eq8` is the paper's sum over tokens and layers, `batched` the same with a layer's
    tokens for a device in one message; `eq8_measured` is the measured sum of the same three terms,
    downlink, compute and uplink. `measured_over_batched` is the measured time of links and devices
    over the batched model of the same steps: both count a step that requests share once for each
    request, while `eq8` has a request's own tokens only. Rates per second, of answered requests and
    completion tokens, count from the first intended start to the last end, without the pauses in
    which fading begins anew; None for a run with other pauses.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    warnings: list[str]
    prompts: str
    profile: str
    policy: PolicySpec
    backends: list[str]
    arrivals: Arrivals
    warmup: int
    fading: Fading | None = None
    n: int
    errors: int
    too_long: int = 0
    scored: int
    accuracy: float | None
    accuracy_interval: Interval | None
    accuracy_norm: float | None
    accuracy_norm_interval: Interval | None
    method: str
    time_to_first_token: Distribution
    end_to_end: Distribution
    time_per_output_token: Distribution
    dispatch_delay: Percentiles
    backoff: Backoff | None = None
    in_flight: InFlight
    split: dict[str, Average]
    eq8: Average
    batched: Average
    eq8_measured: Average
    measured_over_batched: float | None
    requests_per_s: float | None
    tokens_per_s: float | None
    goodput: Goodput | None
    overruns_share: float | None

    @field_validator("split")
    @classmethod
    def _has_all_parts(cls, split: dict[str, Average]) -> dict[str, Average]:
        lacking = [part for part in (*PARTS, "http_s") if part not in split]
        if lacking:
            raise ValueError(f"{', '.join(lacking)} missing")
        return split


def summarise(
    run: Run,
    requests: Sequence[Request],
    after: Stack,
    *,
    intervals: Sequence[Applied] = (),
    continuous: bool = True,
    ended_now: bool = True,
    goodput_limit_s: float | None = None,
) -> Summary:
    """Sum up the requests of a run.

    Args:
        run: the record of its start.
        requests: in any order.
        after: the stack's report at the run's end, or later.
        intervals: the intervals that devices applied during the run.
        continuous: False if the run was stopped and resumed, or took turns with others on the
            stack: its span then includes time in which it did not run.
        ended_now: False if `after` is from later, or from another run's turn: what is in force then
            says nothing about this run.
        goodput_limit_s: the time within which a request counts as good; None: no goodput.
    """
    answered = [request for request in requests if request.error is None]
    timings = [request.timings for request in answered if request.timings]
    scores = [request.score for request in answered if request.score is not None]
    norms = [request.score_norm for request in answered if request.score_norm is not None]
    messages = sum(item.device_messages for item in timings)
    overruns = sum(item.overruns for item in timings) / messages if messages else None
    split = {part: average([getattr(item, part) for item in timings]) for part in PARTS}
    split["backoff_s"] = average([item.backoff_s for item in answered])
    split["http_s"] = average([item.http_s for item in answered if item.http_s is not None])
    span_s = _span_s(run, requests, continuous=continuous)
    busy_s = sum(r.end_to_end_s - (r.actual_start_s - r.intended_start_s) for r in requests)
    tokens = sum(item.completion_tokens for item in timings)
    return Summary(
        warnings=doubts(run, requests, overruns, after, intervals, ended_now=ended_now),
        prompts=run.prompts.name,
        profile=run.channel.profile,
        policy=run.channel.policy,
        backends=sorted({link.backend for link in run.channel.links if link.backend}),
        arrivals=run.arrivals,
        warmup=run.warmup,
        fading=run.fading,
        n=len(requests),
        errors=len(requests) - len(answered),
        too_long=sum(request.error_code in TOO_LONG for request in requests),
        scored=len(scores),
        accuracy=mean(scores),
        accuracy_interval=share_interval(scores),
        accuracy_norm=mean(norms),
        accuracy_norm_interval=share_interval(norms),
        method=METHOD,
        time_to_first_token=distribution(
            [r.time_to_first_token_s for r in answered if r.time_to_first_token_s is not None]
        ),
        end_to_end=distribution([request.end_to_end_s for request in answered]),
        time_per_output_token=distribution(
            [time_s for request in answered if (time_s := _per_token_s(request)) is not None]
        ),
        dispatch_delay=percentiles([r.actual_start_s - r.intended_start_s for r in requests]),
        backoff=_backoff(requests),
        in_flight=InFlight(
            mean=busy_s / span_s if span_s else None, most=_in_flight_most(requests)
        ),
        split=split,
        eq8=average([item.eq8_s for item in timings]),
        batched=average([item.batched_s for item in timings]),
        eq8_measured=average([t.downlink_s + t.compute_s + t.uplink_s for t in timings]),
        measured_over_batched=_measured_over_batched(timings),
        requests_per_s=len(answered) / span_s if span_s and answered else None,
        tokens_per_s=tokens / span_s if span_s and answered else None,
        goodput=_goodput(requests, goodput_limit_s, span_s),
        overruns_share=overruns,
    )


def _measured_over_batched(timings: Sequence[Timings]) -> float | None:
    """Return None if nothing is shaped: the model is 0 then."""
    batched_s = sum(item.batched_s for item in timings)
    measured_s = sum(getattr(item, part) for item in timings for part in DEVICE_PARTS)
    return measured_s / batched_s if batched_s else None


def _goodput(
    requests: Sequence[Request], limit_s: float | None, span_s: float | None
) -> Goodput | None:
    if limit_s is None or not requests:
        return None
    good = sum(request.error is None and request.end_to_end_s <= limit_s for request in requests)
    return Goodput(
        limit_s=limit_s,
        n=good,
        share=good / len(requests),
        per_s=good / span_s if span_s else None,
    )


def _backoff(requests: Sequence[Request]) -> Backoff | None:
    held_s = [request.backoff_s for request in requests if request.backoff_s]
    if not held_s:
        return None
    return Backoff(
        requests=len(held_s),
        retries=sum(request.retries for request in requests),
        mean_s=sum(held_s) / len(held_s),
        most_s=max(held_s),
    )


def _per_token_s(request: Request) -> float | None:
    """Return the mean time of a completion's tokens but the first; None if it has no others."""
    timings, first_s = request.timings, request.time_to_first_token_s
    if timings is None or first_s is None or timings.completion_tokens < 2:
        return None
    return (request.end_to_end_s - first_s) / (timings.completion_tokens - 1)


def _span_s(run: Run, requests: Sequence[Request], *, continuous: bool) -> float | None:
    """Return the time from the first intended start to the last end; None for a run with pauses.

    If fading begins anew for each request, requests go one after another, and the pauses between
    them, in which it begins, do not count.
    """
    if not requests:
        return None
    if run.fading is not None and run.fading.begins == "each":
        return sum(request.end_to_end_s for request in requests)
    if not continuous:
        return None
    start_s = min(request.intended_start_s for request in requests)
    return max(request.intended_start_s + request.end_to_end_s for request in requests) - start_s


def _in_flight_most(requests: Sequence[Request]) -> int:
    """Return the largest number of requests in flight at the same time."""
    starts = [(request.actual_start_s, 1) for request in requests]
    ends = [(request.intended_start_s + request.end_to_end_s, -1) for request in requests]
    # If one request ends as another starts, the end sorts first.
    return max(accumulate((change for _, change in sorted(starts + ends)), initial=0))
