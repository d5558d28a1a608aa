"""The schema of a run's files: `run.json` is a `Run`, each line of `requests.jsonl` a `Request`.

Times are Unix seconds, durations seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.contracts.http import Health, Orchestrator, Status
from orchestrator.contracts.record import Record
from orchestrator.contracts.timings import Timings

FadingBegins = Literal["each", "one"]
ArrivalsKind = Literal["closed", "poisson", "gamma", "trace"]


class Choice(Record):
    """A choice's log-likelihood after the prompt: the sum over its tokens, in nats.

    `characters` counts its text without the space that separates it from the prompt.
    """

    log_likelihood: float
    tokens: int
    characters: int


class Request(Record):
    """One request as the client saw it, with what the base station measured in `timings`.

    `answer` is the scored text, `expected` the right one. Multiple choice generates nothing:
    `answer` is the likeliest of `choices`, `score` whether it is the right one, `score_norm` the
    same by log-likelihood per character, and there is no first token to time. `score` is None until
    tests have been run, if it depends on them. `error_code` is the API's code of the error.

    `time_to_first_token_s` and `end_to_end_s` count from the intended start, so they include a late
    dispatch. `retries` counts how often the request was sent again after a full base station had
    refused it (429); `backoff_s` is how long it was held back because it, or another request, was
    refused. `http_s` is the time between client and base station: end to end from the actual start,
    less `backoff_s` and the base station's own time. A failed request has an `error`, no score, and
    the time until it failed in `end_to_end_s`.

    The request should have run under `epoch`, whose fading began with `first_interval`; for a
    static profile that is the draw. Both are None for a run that did not record them.
    """

    id: int
    prompt_id: str
    completion: str
    answer: str
    expected: str
    score: float | None
    score_norm: float | None = None
    choices: list[Choice] = Field(default_factory=list)
    intended_start_s: float
    actual_start_s: float
    retries: int = 0
    backoff_s: float = 0.0
    time_to_first_token_s: float | None
    end_to_end_s: float
    http_s: float | None
    timings: Timings | None
    error: str | None
    error_code: str | None = None
    first_interval: int | None = None
    epoch: int | None = None


@dataclass(frozen=True)
class Stack:
    """What the stack reports about itself at one time."""

    base_station: Health
    orchestrator: Orchestrator
    channel: Status


class PromptsUsed(Record):
    """Which prompts a run sends: the first `items` of a set's file, in what template.

    `shuffle_seed`: the seed that gives the order of the set; None: the order of the file.
    """

    name: str
    path: str
    sha256: str
    items: int
    template: str = ""
    shuffle_seed: int | None = None


class Fading(Record):
    """Where the fading that a run's requests met began.

    `begins`: "each": anew for each request, at the interval that belongs to its prompt; "one": once
    for all requests. `interval_s`: how long an interval lasts; None: for ever.
    """

    begins: FadingBegins
    interval_s: float | None

    @property
    def one_realisation(self) -> bool:
        """Whether all requests met the same draw, whose effect no interval over prompts covers."""
        return self.begins == "one" and self.interval_s is None

    @property
    def goes_on(self) -> bool:
        """Whether the fading that a request meets depends on when it is sent."""
        return self.begins == "one" and self.interval_s is not None

    @property
    def label(self) -> str:
        """The fading as tables show it."""
        if self.begins == "each":
            return "begun anew for each prompt" if self.interval_s else "a draw for each prompt"
        return "begun once" if self.interval_s else "one realisation"


class Arrivals(Record):
    """How a run's requests arrive; fields that mean nothing for its `kind` are None.

    `rate_per_s` is the mean rate before `time_scale` multiplies all times between requests;
    `burstiness` the shape of the gamma distribution of the gaps; `seed` the schedule's seed;
    `concurrency` how many requests may be in flight, None: as many as the schedule needs.
    """

    kind: ArrivalsKind = "closed"
    rate_per_s: float | None = None
    burstiness: float | None = None
    seed: int | None = None
    trace: str | None = None
    trace_sha256: str | None = None
    time_scale: float = 1.0
    concurrency: int | None = 1


class Run(Record):
    """All that was in force when a run started.

    `git_revision` and `source` are those of the checkout whose command sent the requests; the
    containers' builds are in `base_station` and `orchestrator`. `warmup`: the number of unrecorded
    requests sent first; `routing`: whether the run records how experts were chosen; `fading`: None
    if the profile has no fading, or the run did not record it.
    """

    command: list[str]
    started_at: str
    git_revision: str | None
    source: str | None = None
    versions: dict[str, str]
    host: dict[str, str | int | None]
    kernel: str
    prompts: PromptsUsed
    base_station: Health
    orchestrator: Orchestrator = Orchestrator()
    channel: Status
    arrivals: Arrivals = Arrivals()
    warmup: int = 0
    routing: bool = False
    fading: Fading | None = None

    @property
    def stack(self) -> Stack:
        """What the stack reported about itself."""
        return Stack(self.base_station, self.orchestrator, self.channel)


CodeOutcome = Literal["passed", "failed", "timeout", "too much output"]


class CodeResult(BaseModel):
    """The outcome of a request's program: a line of code.jsonl. `detail` is its last output."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: int
    prompt_id: str
    outcome: CodeOutcome
    detail: str

    @property
    def score(self) -> float:
        """1.0 if the tests passed, else 0.0."""
        return float(self.outcome == "passed")
