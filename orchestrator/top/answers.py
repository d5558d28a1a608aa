"""What of the services' answers a view needs."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.results.schema import Policy

_Number = Annotated[str, Field(pattern=r"^[0-9]{1,6}$")]


class _Answer(BaseModel):
    """Strict in what it names; what else is told is left aside."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class Direction(_Answer):
    """What one direction of a link is asked to be; None: not shaped."""

    rate_bps: float | None


class Lateness(_Answer):
    """How late a device applied the intervals of this epoch [s]; None: there are too few."""

    p99_s: float | None
    max_s: float | None


class Link(_Answer):
    """A device's link; `fault`: why it is not, or may not be, as the state in force says."""

    device: int
    reachable: bool
    down: Direction
    up: Direction
    fault: str | None
    lateness: Lateness


class Replay(_Answer):
    """How far the newest replay is; `accuracy` None: nothing was scored yet."""

    prompts: str
    planned: int
    done: int
    failed: int
    accuracy: float | None
    running: bool


class Status(_Answer):
    """The orchestrator's `/status`."""

    profile: str
    policy: Policy
    degraded: bool
    links: list[Link]
    replay: Replay | None = None


class Model(_Answer):
    """The model that is served."""

    name: str
    layers: int
    experts: int
    top_k: int


class Device(_Answer):
    """A device as the base station knows it; `last_seen_age_s` None: never seen."""

    admitted: bool
    refused: str | None
    last_seen_age_s: float | None


class Health(_Answer):
    """The base station's `/healthz`; devices by their numbers."""

    status: str
    model: Model
    devices: dict[_Number, Device]


class Request(_Answer):
    """One that has not ended: tokens of all its sequences together."""

    id: str
    sequences: int
    prompt_tokens: int
    completion_tokens: int
    max_tokens: int
    age_s: float


class Requests(_Answer):
    """The base station's `/requests`."""

    running: list[Request]
    waiting: list[Request]
