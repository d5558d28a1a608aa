"""What the testbed's client and the base station exchange in OpenAI's forms.

    POST /v1/completions   CompletionRequest ─► Completion, or a stream of them
    POST /tokenize         TokenizeRequest   ─► Tokenized, as in vLLM
    any                                      ─► ErrorAnswer

`timings`, `logits`, `routing`, `trace` and `experts_lost` are the testbed's own. Other clients may
send more fields: the base station's `http/openai/schema.py` has them all.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from orchestrator.contracts.record import Record, Request
from orchestrator.contracts.timings import RequestSpans, Timings


def _decoded(value: Any) -> Any:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


Base64: TypeAlias = Annotated[bytes, BeforeValidator(_decoded), PlainSerializer(_encoded)]


class CompletionRequest(Request):
    """A prompt to go on with, or texts to score; what is None is not sent."""

    model: str
    prompt: str | list[str]
    max_tokens: int
    stop: list[str] | None = None
    temperature: float | None = None
    stream: Literal[True] | None = None
    echo: Literal[True] | None = None
    logprobs: int | None = None
    timings: Literal[True] = True
    routing: Literal[True] | None = None
    trace: Literal[True] | None = None


class TokenizeRequest(Request):
    """A text to tokenise."""

    prompt: str


class Sparse(Record):
    """A document whose JSON has the fields that were given, and no others."""

    @model_serializer(mode="wrap")
    def _given(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {
            name: value for name, value in serialise(self).items() if name in self.model_fields_set
        }


class Fault(Record):
    """Why a request has no answer; `param`: the field at fault."""

    message: str
    type: str = ""
    param: str | None = None
    code: str | None = None


class ErrorAnswer(Record):
    """The answer with an HTTP status of 400 or more, and the last chunk of a stream that failed."""

    error: Fault


class Usage(Record):
    """The tokens of all choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Answer(Sparse):
    """A whole answer, or a chunk of one.

    `created`: Unix time [s]. `experts_lost`: experts of its tokens that faults or outage have cost.
    """

    id: str = ""
    object: str = ""
    created: int = 0
    model: str = ""
    usage: Usage | None = None
    experts_lost: int = 0


class Logprobs(Record):
    """A text's tokens, how likely each is, and the characters at which they begin."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None] = Field(default_factory=list)
    text_offset: list[int]


class CompletionChoice(Record):
    """One text, or what a chunk adds to it."""

    index: int = 0
    text: str
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Completion(Answer):
    """A whole answer, or a chunk of one; a stream's last chunk has no choices.

    `logits`: a row of fp32, little-endian, for each position. `routing`: an .npz. `error`: why a
    stream ends early.
    """

    choices: list[CompletionChoice] = Field(default_factory=list)
    timings: Timings | None = None
    logits: Base64 | None = None
    routing: Base64 | None = None
    trace: RequestSpans | None = None
    error: Fault | None = None


class Tokenized(Record):
    """A text's tokens; `token_strs`: their names, if requested."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None
