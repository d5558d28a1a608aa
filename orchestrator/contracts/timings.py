"""What the base station measures of a request: the parts of its time, and its experts' tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.record import Record

ByDevice = dict[Annotated[str, Field(pattern=r"^[0-9]{1,6}$")], int]


class Experts(Record):
    """Tokens over all layers, by device number.

    `used`: it worked on them; `dropped`: they were for it, which was absent, late or unreachable;
    `outage`: they were for it, which the profile had in outage; `deselected`: the gate had it among
    its candidates, the policy left it out.
    """

    used: ByDevice
    dropped: ByDevice
    outage: ByDevice = Field(default_factory=dict)
    deselected: ByDevice


class Timings(Record):
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
    batch: float = 1.0
    """Sequences of a forward pass, in the mean over the request's passes."""
    policy: PolicySpec
    profile: str
    epoch: int


class RequestSpans(Record):
    """A request's trace as the base station reports it.

    `spans`: depth, name, start and end [ns after `start_unix_ns`], and attributes; a parent
    comes before its children. Depth 0 is the request.
    """

    start_unix_ns: int
    spans: Annotated[
        list[tuple[int, str, int, int, dict[str, bool | int | str]]], Field(min_length=1)
    ]
