"""The bodies of POST /v1/completions, as OpenAI defines it, and of POST /probe, which is ours."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_PROMPT_CHARACTERS = 1 << 20

Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]


class CompletionRequest(BaseModel):
    """Greedy unless a temperature is given.

    OpenAI's fields that change the result and are not served are accepted at their default only,
    so that nobody gets an answer to another question than the one that was asked.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Text | Annotated[list[int], Field(min_length=1, max_length=1 << 17)]
    model: str | None = Field(default=None, max_length=256)
    max_tokens: int = Field(default=16, ge=1, le=1 << 17)
    temperature: float = Field(default=0.0, ge=0, le=2)
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    stream: bool = False
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    user: str | None = Field(default=None, max_length=256)
    n: Literal[1] = 1
    best_of: Literal[1] = 1
    top_p: float = Field(default=1, ge=1, le=1)
    echo: Literal[False] = False
    logprobs: None = None
    suffix: None = None
    presence_penalty: float = Field(default=0, ge=0, le=0)
    frequency_penalty: float = Field(default=0, ge=0, le=0)

    timings: bool = Field(default=False, description="add the request's latency split")
    logits: bool = Field(
        default=False,
        description="add every position's logits, base64 of little-endian fp32 rows: "
        "to check the split model against the whole one",
    )
    routing: bool = Field(
        default=False,
        description="add which experts each token got in each layer, and why: base64 of an .npz",
    )

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop


class ProbeBody(BaseModel):
    """How often a device's link is to be probed, with messages of which size in both directions."""

    model_config = ConfigDict(extra="forbid", strict=True)

    device: int = Field(ge=0)
    size_bytes: int = Field(ge=1, le=1 << 20)
    count: int = Field(ge=1, le=100)
