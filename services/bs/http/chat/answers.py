"""The answers to /v1/chat/completions and /v1/responses, in OpenAI's forms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.contracts.openai import Answer, Sparse
from orchestrator.contracts.record import Record


class NamedLogprob(Record):
    """A token by its text, how likely it is, and its bytes."""

    token: str
    logprob: float | None
    bytes: list[int]


class TokenLogprobs(NamedLogprob):
    """A token of an answer, and the likeliest in its place."""

    top_logprobs: list[NamedLogprob]


class ChatLogprobs(Record):
    """The log-probabilities of an answer's tokens."""

    content: list[TokenLogprobs]
    refusal: None = None


class ChatMessage(Record):
    """The model's answer in a chat."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Record):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(Answer):
    """A whole answer."""

    choices: list[ChatChoice]


class ChatDelta(Sparse):
    """What a chunk adds to a message."""

    role: Literal["assistant"] = "assistant"
    content: str = ""


class ChatChunkChoice(Record):
    """What a chunk adds to an answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletionChunk(Answer):
    """A chunk of an answer; a stream's last one has no choices."""

    choices: list[ChatChunkChoice]


class OutputText(Record):
    """The only part of a response's message."""

    type: Literal["output_text"] = "output_text"
    annotations: list[None] = Field(default_factory=list)
    text: str
    logprobs: list[TokenLogprobs]


class OutputMessage(Record):
    """The only item of a response's output."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: str
    content: list[OutputText]


class InputTokensDetails(Record):
    """No prompt is cached."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(Record):
    """The model does not reason."""

    reasoning_tokens: int = 0


class ResponseUsage(Record):
    """The tokens of a response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class ResponseError(Record):
    """Why a response failed."""

    code: str
    message: str


class ResponseAnswer(Sparse):
    """A response, finished or not; times are Unix times [s]."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: str
    error: ResponseError | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, str | None]
    store: bool
    temperature: float
    text: dict[str, dict[str, str]]
    tool_choice: str
    tools: list[None]
    top_logprobs: int
    top_p: float
    truncation: str
    usage: ResponseUsage | None
    experts_lost: int = 0


class ResponseEvent(Sparse):
    """An event of a response's stream; `type` says which of the other fields it has."""

    type: str
    sequence_number: int
    response: ResponseAnswer | None = None
    item: OutputMessage | None = None
    item_id: str | None = None
    output_index: int | None = None
    content_index: int | None = None
    part: OutputText | None = None
    delta: str | None = None
    text: str | None = None
    logprobs: list[TokenLogprobs] | None = None
