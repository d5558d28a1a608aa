"""The body of POST /v1/responses; fields are treated as in `schema`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from services.bs.http.openai.schema import (
    MAX_MESSAGES,
    GenerationBody,
    LetThrough,
    Message,
    NotServed,
    Posted,
    ResponseFormat,
    Text,
    Tokens,
)

Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]
LOGPROBS = "message.output_text.logprobs"


class InputMessage(Message):
    """One message of a chat; answers are sent back as they came."""

    type: Literal["message"] = "message"

    id: LetThrough = None
    phase: LetThrough = None
    status: LetThrough = None


class TextConfig(Posted):
    """The form of the answer; only text is served."""

    format: ResponseFormat | None = None
    verbosity: LetThrough = None


class ResponsesRequest(GenerationBody):
    """POST /v1/responses. Nothing is stored."""

    input: Text | Annotated[list[InputMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    instructions: Text | None = None
    max_output_tokens: Annotated[Tokens, Field(ge=1)] | None = None
    include: list[str] = Field(default_factory=list)
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0

    n: Literal[1] = 1
    max_tokens: NotServed = None
    text: TextConfig = TextConfig()
    tool_choice: Literal["none", "auto"] = "auto"
    truncation: Literal["disabled"] = "disabled"
    background: Literal[False] = False

    metadata: Metadata = Field(default_factory=dict, description="returned with the answer")

    max_tool_calls: LetThrough = None
    parallel_tool_calls: LetThrough = None
    reasoning: LetThrough = None

    conversation: NotServed = None
    moderation: NotServed = None
    previous_response_id: NotServed = None
    prompt: NotServed = None
    tools: NotServed = None

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat, as a chat template takes it."""
        before = []
        if self.instructions is not None:
            before.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*before, {"role": "user", "content": self.input}]
        return [*before, *(message.for_template() for message in self.input)]

    @property
    def logprobs(self) -> int | None:
        """How many alternatives to return for each token; None: no log-probabilities."""
        return self.top_logprobs if self.top_logprobs or LOGPROBS in self.include else None
