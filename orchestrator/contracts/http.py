"""What base station and orchestrator answer over HTTP, and what they take.

    orchestrator   GET /status /healthz /intervals /profile     POST /profile /policy
                   POST /verification (see verification), /replay (see replay_progress)
    base station   GET /healthz /requests                       POST /probe

Fields with a default were not reported by every version whose runs can still be read.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import Field, RootModel

from orchestrator.contracts import channel_state
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.record import Record, Request

# Far beyond any run; larger numbers make readers fail where they compute with them.
INTERVALS_MOST = 1 << 41

DeviceNumber: TypeAlias = Annotated[str, Field(pattern=r"^[0-9]{1,6}$")]


class Build(Record):
    """What a process runs: versions, and the digest of its source."""

    version: str
    python: str
    source: str
    packages: dict[str, str]


# ---- the orchestrator ----


class Orchestrator(Record):
    """`GET /healthz`; `links`: the fault of each link that is not as the state in force says."""

    status: str = "ok"
    links: dict[str, str] = Field(default_factory=dict)
    build: Build | None = None


class Direction(Record):
    """One direction of a link as requested; `rate_bps` None: not shaped."""

    rate_bps: float | None
    delay_s: float
    jitter_s: float
    loss_p: float
    loss_r: float


class Queue(Record):
    """One direction's queue since its device began; `overflows`: drops while no loss was set."""

    packets: int = 0
    drops: int = 0
    overflows: int
    backlog_bytes: int = 0


class Queues(Record):
    """Both directions' queues."""

    down: Queue
    up: Queue


class Lateness(Record):
    """How late a device applied n intervals of the epoch in force [s]; None: too few."""

    n: int
    p50_s: float | None
    p99_s: float | None
    max_s: float | None


class Link(Record):
    """A device's link: what is requested, and what the device last reported.

    `flops` None: its computing is not emulated. `backend` None: the device has reported nothing
    yet. `applied_epoch` is of its last report, which is `reported_age_s` old. `fault`: why the link
    is not, or may not be, as requested; `errors`: how many reports had one since the orchestrator
    began.
    """

    device: int
    down: Direction
    up: Direction
    flops: float | None
    reachable: bool
    backend: str | None
    applied_epoch: int | None
    applied_interval: int | None
    reported_age_s: float | None
    fault: str | None = None
    error: str | None
    errors: int = 0
    queues: Queues | None
    lateness: Lateness


class Emulation(Record):
    """The model whose transmission and compute times are emulated (Eq. 4 and 5)."""

    hidden_size: int
    intermediate_size: int
    bits_per_element: int
    activation_flop: float


class Replay(Record):
    """Progress of the newest replay; `accuracy` None: nothing is scored yet."""

    prompts: str
    planned: int
    done: int
    failed: int
    scored: int
    score_sum: float
    accuracy: float | None
    running: bool


class Status(Record):
    """`GET /status`, and the answer to a switch: what is in force from `apply_at_s` on.

    Its fading is at `interval`. `degraded`: delay, jitter or loss are requested, and the kernel has
    no netem. `verification` is the last one of `wdmoe link verify`, in whatever version's form.
    """

    profile: str
    profile_sha256: str
    profile_text: str
    seed: int
    epoch: int
    interval: int
    apply_at_s: float
    policy: PolicySpec
    emulate: Emulation | None
    degraded: bool
    links: list[Link]
    verification: dict[str, Any] | None
    replay: Replay | None = None


class Interval(Record):
    """One coherence interval on one device: when it was to begin, and when it was applied."""

    device: int
    epoch: int
    interval: Annotated[int, Field(ge=0, lt=INTERVALS_MOST)]
    apply_at_s: float
    applied_at_s: float


class Intervals(RootModel[list[Interval]]):
    """`GET /intervals`."""


class ProfileText(Record):
    """`GET /profile`: the profile in force as its file has it, and its traces by name."""

    name: str
    text: str
    traces: dict[str, str]


class ProfileRequest(Request):
    """`POST /profile`: a profile's text, so that a user's own file works too."""

    name: str
    text: str
    traces: dict[str, str] = Field(default_factory=dict)
    allow_degraded: bool = False
    first_interval: Annotated[int, Field(ge=0, lt=1 << 40)] = 0


class PolicyRequest(Request):
    """`POST /policy`; parameters that are not given have their defaults."""

    name: str
    params: Annotated[
        dict[str, channel_state.Param], Field(max_length=channel_state.MAX_PARAMS)
    ] = Field(default_factory=dict)


# ---- the base station ----


class Model(Record):
    """The model that the base station serves."""

    name: str
    fingerprint: str
    layers: int
    experts: int
    top_k: int
    hidden_size: int
    vocab_size: int


class Device(Record):
    """A device as the base station knows it.

    `build` None: it never introduced itself; `last_seen_age_s` None: it was never seen.
    """

    admitted: bool
    refused: str | None
    build: str | None = None
    last_seen_age_s: float | None


class Health(Record):
    """`GET /healthz`; `status` is "ok" unless the engine has stopped.

    `device_build` is what a device reports that runs the same as the base station.
    """

    status: str
    model: Model
    context_length: int | None = None
    kv_bytes: int | None = None
    trunk_weight_bytes: int | None = None
    wire_dtype: str
    compute_dtype: str | None = None
    device_timeout_s: float | None = None
    curve: bool
    torch_device: str
    tcp_congestion_control: str
    build: Build | None = None
    device_build: str | None = None
    devices: dict[DeviceNumber, Device]


class RunningRequest(Record):
    """A request that has not ended, in numbers: never a word of a prompt.

    `prompt_tokens`, `completion_tokens` (made so far) and `max_tokens` are of all its `sequences`
    together; `age_s` counts from its arrival.
    """

    id: str
    sequences: int
    prompt_tokens: int
    completion_tokens: int
    max_tokens: int
    age_s: float


class Requests(Record):
    """`GET /requests`: those that have not ended, in the order of arrival; both are bounded."""

    running: list[RunningRequest]
    waiting: list[RunningRequest]


class ProbeRequest(Request):
    """`POST /probe`: time `count` messages of a size over a device's link."""

    device: Annotated[int, Field(ge=0)]
    size_bytes: Annotated[int, Field(ge=1, le=1 << 20)]
    count: Annotated[int, Field(ge=1, le=100)]


class ProbeTime(Record):
    """One message in one direction [s]; `expected_s` None: the rates meanwhile are not known."""

    measured_s: float
    expected_s: float | None


class Probes(Record):
    """The answer to a probe.

    `wire_bits` is a message's as the link's queue counts it; `loopback_s` what the same message
    takes without a link, as often.
    """

    wire_bits: int
    down: list[ProbeTime]
    up: list[ProbeTime]
    loopback_s: list[float]
