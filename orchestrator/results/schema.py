"""What a run's files hold: `run.json` is a `Run`, each line of `requests.jsonl` a `Request`.

Times are Unix seconds, durations seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from orchestrator import selection
from orchestrator.errors import InputError

# Parts of the base station's end-to-end time; they sum to it. Per layer they are those of the
# device that answered last.
PARTS = (
    "queue_s",
    "downlink_s",
    "compute_s",
    "uplink_s",
    "wait_s",
    "gate_s",
    "selection_s",
    "combine_s",
    "trunk_s",
    "overhead_s",
)

# Those of links and devices; the others are the base station's.
DEVICE_PARTS = ("downlink_s", "wait_s", "compute_s", "uplink_s")

# Far beyond any run; what is larger makes readers fail where they reckon with it.
INTERVALS_MOST = 1 << 41

FadingBegins = Literal["each", "one"]
ArrivalsKind = Literal["closed", "poisson", "gamma", "trace"]


class _Record(BaseModel):
    """Strict in what it names; what the stack says beyond that is kept, not lost."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, allow_inf_nan=False)


ByDevice = dict[Annotated[str, Field(pattern=r"^[0-9]{1,6}$")], int]


class Policy(_Record):
    """A selection policy by its registered name, with all its parameters."""

    name: str
    params: dict[str, bool | int | float | str]

    @property
    def label(self) -> str:
        """The policy in a few words, as tables and warnings show it: `wlr θ=0.2`."""
        try:
            return selection.find(self.name, self.params).label
        except InputError:  # one of another version, which still has a name
            return " ".join([self.name, *(f"{key}={value}" for key, value in self.params.items())])


class Experts(_Record):
    """Tokens over all layers, by device number.

    `used`: it worked on them; `dropped`: they were for it, which was absent, late or unreachable;
    `outage`: they were for it, which the profile had in outage; `deselected`: the gate had it among
    its candidates, the policy left it out.
    """

    used: ByDevice
    dropped: ByDevice
    outage: ByDevice = {}
    deselected: ByDevice


class Timings(_Record):
    """What the base station measured of one request."""

    request_id: str
    queue_s: float
    time_to_first_token_s: float | None
    """None where prompts were only scored."""
    end_to_end_s: float
    prompt_tokens: int
    completion_tokens: int
    downlink_s: float
    compute_s: float
    uplink_s: float
    wait_s: float
    gate_s: float
    selection_s: float
    combine_s: float
    trunk_s: float
    overhead_s: float
    eq8_s: float
    """Eq. 8 for the same selections and rates."""
    batched_s: float
    """Eq. 8 with all of a layer's tokens for a device in one message."""
    experts: Experts
    overruns: int
    device_messages: int
    policy: Policy
    profile: str
    epoch: int


class TraceTold(_Record):
    """A request's trace as the base station tells it.

    `spans`: depth, name, start and end [ns after `start_unix_ns`], and what else is known; a parent
    comes before its children. Depth 0 is the request.
    """

    start_unix_ns: int
    spans: Annotated[
        list[tuple[int, str, int, int, dict[str, bool | int | str]]], Field(min_length=1)
    ]


class Choice(_Record):
    """A choice's log-likelihood after the prompt: the sum over its tokens, in nats.

    `characters` are those of its text, without the space that sets it off from the prompt.
    """

    log_likelihood: float
    tokens: int
    characters: int


class Request(_Record):
    """One request as the client saw it, with what the base station measured in `timings`.

    `answer` is what was scored, `expected` what would have been right. Of multiple choice nothing
    is generated: `answer` is the likeliest of `choices`, `score` says if it is the right one, and
    `score_norm` the same by log-likelihood per character; there is no first token to time. `score`
    is None where tests have to be run to know it. `error_code` is what the API calls the error.

    `time_to_first_token_s` and `end_to_end_s` count from the intended start, so that a late
    dispatch is not left out. `retries` is how often the request came again after a full base
    station had refused it (429), `backoff_s` how long it was held back for that, or for others that
    were refused. `http_s` is what lies between client and base station: end to end from the actual
    start, less `backoff_s` and the base station's own. A failed request has an `error`, no score,
    and in `end_to_end_s` the time until it failed.

    It was to run under `epoch`, whose fading began with `first_interval`: of a static profile that
    is the draw. Both are None of a run that did not record them.
    """

    id: int
    prompt_id: str
    completion: str
    answer: str
    expected: str
    score: float | None
    score_norm: float | None = None
    choices: list[Choice] = []
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


class Model(_Record):
    """The model the base station serves."""

    name: str
    fingerprint: str
    layers: int


class Build(_Record):
    """What a process runs: versions, and the digest of its source."""

    version: str
    python: str
    source: str
    packages: dict[str, str]


class Orchestrator(_Record):
    """What of the orchestrator's /healthz a run records; `build` None: it does not say."""

    build: Build | None = None


class Device(_Record):
    """A device as the base station knows it; `build` None: it never came."""

    build: str | None = None


class Health(_Record):
    """What of the base station's /healthz a run records.

    `device_build` is what a device says that runs the same; None, as `build`: it does not say.
    """

    model: Model
    context_length: int | None = None
    wire_dtype: str
    compute_dtype: str | None = None
    device_timeout_s: float | None = None
    curve: bool
    torch_device: str
    tcp_congestion_control: str
    build: Build | None = None
    device_build: str | None = None
    devices: dict[Annotated[str, Field(pattern=r"^[0-9]{1,6}$")], Device] = {}


class Queue(_Record):
    """One direction's queue since its device began; `overflows`: drops while no loss was asked."""

    overflows: int


class Queues(_Record):
    """Both directions' queues."""

    down: Queue
    up: Queue


class Link(_Record):
    """A device's link: what is asked of it (kept as the orchestrator tells it), what it reported.

    `backend` None: the device has reported nothing yet. `applied_epoch` is what its last report was
    of, `reported_age_s` how old that is. `fault`: why the link is not, or may not be, as requested;
    `errors`: how many reports told of one since the orchestrator began.
    """

    device: int
    backend: str | None
    applied_epoch: int | None
    reported_age_s: float | None
    fault: str | None = None
    error: str | None
    errors: int = 0
    queues: Queues | None


class Channel(_Record):
    """What of the orchestrator's /status a run records.

    It is in force from `apply_at_s` on, and its fading is at `interval`. `degraded`: delay, jitter
    or loss are asked for, and the kernel has no netem. `verification` is what `wdmoe link verify`
    found last, if ever.
    """

    profile: str
    profile_sha256: str
    profile_text: str
    seed: int
    epoch: int
    interval: int
    apply_at_s: float
    policy: Policy
    emulate: dict[str, Any] | None
    degraded: bool
    verification: dict[str, Any] | None
    links: list[Link]


@dataclass(frozen=True)
class Stack:
    """What the stack says of itself at a time."""

    base_station: Health
    orchestrator: Orchestrator
    channel: Channel


class Interval(_Record):
    """One coherence interval on one device: when it was to begin, and when it was applied."""

    device: int
    epoch: int
    interval: Annotated[int, Field(ge=0, lt=INTERVALS_MOST)]
    apply_at_s: float
    applied_at_s: float


class Intervals(RootModel[list[Interval]]):
    """What the orchestrator answers to `/intervals`."""


class PromptsUsed(_Record):
    """Which prompts a run sends: the first `items` of a set's file, in what template.

    `shuffle_seed`: they are the first ones of the set in the order that this seed gives it; None:
    in the order of the file.
    """

    name: str
    path: str
    sha256: str
    items: int
    template: str = ""
    shuffle_seed: int | None = None


class Fading(_Record):
    """Where the fading that a run's requests met began.

    `begins`: "each": anew for each request, with the interval that belongs to its prompt; "one":
    once for all. `interval_s`: how long an interval lasts; None: for ever.
    """

    begins: FadingBegins
    interval_s: float | None

    @property
    def one_realisation(self) -> bool:
        """Whether every request met the same draw, which no interval over prompts covers."""
        return self.begins == "one" and self.interval_s is None

    @property
    def goes_on(self) -> bool:
        """Whether which fading a request meets depends on when it is made."""
        return self.begins == "one" and self.interval_s is not None

    @property
    def label(self) -> str:
        """In a few words, as tables show it."""
        if self.begins == "each":
            return "begun anew for each prompt" if self.interval_s else "a draw for each prompt"
        return "begun once" if self.interval_s else "one realisation"


class Arrivals(_Record):
    """How a run's requests arrive; fields that mean nothing for its `kind` are None.

    `rate_per_s` is the mean rate, before `time_scale` multiplies all times between requests;
    `burstiness` the shape of the gamma distribution of the gaps; `seed` the schedule's;
    `concurrency` how many requests may be in flight, None: as many as the schedule has it.
    """

    kind: ArrivalsKind = "closed"
    rate_per_s: float | None = None
    burstiness: float | None = None
    seed: int | None = None
    trace: str | None = None
    trace_sha256: str | None = None
    time_scale: float = 1.0
    concurrency: int | None = 1


class Run(_Record):
    """All that was in force when a run started.

    `git_revision` and `source` are those of the checkout whose command sent the requests; what the
    containers ran is in `base_station` and `orchestrator`. `warmup`: so many requests went ahead of
    it, of which nothing is recorded; `routing`: if it keeps how experts were chosen; `fading`: None
    where the profile has none, and of a run that did not record it.
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
    channel: Channel
    arrivals: Arrivals = Arrivals()
    warmup: int = 0
    routing: bool = False
    fading: Fading | None = None

    @property
    def stack(self) -> Stack:
        """What the stack said of itself."""
        return Stack(self.base_station, self.orchestrator, self.channel)


CodeOutcome = Literal["passed", "failed", "timeout", "too much output"]


class CodeResult(BaseModel):
    """What became of a request's program: a line of code.jsonl. `detail` is its last words."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: int
    prompt_id: str
    outcome: CodeOutcome
    detail: str

    @property
    def score(self) -> float:
        """1.0 if the tests passed, else 0.0."""
        return float(self.outcome == "passed")
