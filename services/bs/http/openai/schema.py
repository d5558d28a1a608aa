"""Posted bodies: OpenAI's for completions and chats, and our own for /probe.

    served        a field with a type         temperature, stop, …
    let through   LetThrough                  cannot change the answer: user, metadata, …
    refused       NotServed                   would change it: accepted when empty or null only
    unknown       any other                   ignored and named in a header; refused under `strict`

A null field counts as absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from orchestrator.contracts.http import ProbeRequest

MAX_PROMPTS = 64  # and sequences, which n and best_of multiply
MAX_MESSAGES = 256
MAX_PROMPT_CHARACTERS = 1 << 20
MAX_PROMPT_TOKENS = 1 << 17
MAX_STOPS = 16
MAX_BIASES = 1024
# Limits for the names in a header.
MAX_NAMED = 16
MAX_NAMED_CHARACTERS = 64

IGNORED_FIELDS = "X-WDMoE-Ignored-Fields"

Prompt: TypeAlias = str | list[int]


def _prompts(value: Any) -> list[Prompt]:
    """Return a text, tokens, or a list of either, always as a list."""
    several = isinstance(value, list) and all(isinstance(item, list) for item in value)
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    prompts = value if several or texts else [value]
    if not all(_is_text(prompt) or _are_tokens(prompt) for prompt in prompts):
        raise ValueError("allowed: a text, a list of texts, tokens, or a list of lists of tokens")
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise ValueError(f"has {len(prompts)} prompts, allowed: 1 to {MAX_PROMPTS}")
    return list(prompts)


def _is_text(prompt: Any) -> bool:
    if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT_CHARACTERS:
        return False
    try:
        prompt.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _are_tokens(prompt: Any) -> bool:
    return (
        isinstance(prompt, list)
        and len(prompt) <= MAX_PROMPT_TOKENS
        and all(type(token) is int for token in prompt)
    )


def _nothing(value: Any) -> Any:
    if value:
        raise ValueError("is not served; allowed: null or empty")
    return value


StopText = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
Name = Annotated[str, Field(max_length=256)]
Tokens = Annotated[int, Field(ge=0, le=MAX_PROMPT_TOKENS)]
LetThrough = Any
NotServed = Annotated[Any, AfterValidator(_nothing)]
Choices = Annotated[int, Field(ge=1, le=MAX_PROMPTS)]
Share = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenName = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")]


class Posted(BaseModel):
    """A JSON object in a body; undefined fields are kept apart."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: field for name, field in value.items() if field is not None}


class StreamOptions(Posted):
    """What a stream reports besides the text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: LetThrough = None


class Body(Posted):
    """A whole body."""

    strict: bool = Field(default=False, description="refuse unknown fields")

    def unknown(self) -> list[str]:
        """Return the full names of undefined fields, as `messages[0].colour`."""
        return list(_unknown(self, ""))

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer, which name the fields that were ignored."""
        names = [quote(name[:MAX_NAMED_CHARACTERS], safe="[].") for name in self.unknown()]
        if not names:
            return {}
        more = len(names) - MAX_NAMED
        rest = [f"and {more} more"] if more > 0 else []
        return {IGNORED_FIELDS: ", ".join(names[:MAX_NAMED] + rest)}


def _unknown(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        prefix = f"{place}." if place else ""
        yield from (prefix + name for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), prefix + name)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _unknown(item, f"{place}[{i}]")


class GenerationBody(Body):
    """The fields that completions and chats share; greedy unless a temperature is given."""

    model: Name | None = None
    max_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None

    n: Choices = 1
    top_p: Share = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    min_p: Share = 0.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    logit_bias: Annotated[dict[TokenName, Bias], Field(max_length=MAX_BIASES)] = {}
    min_tokens: Tokens = 0
    ignore_eos: bool = False

    metadata: LetThrough = None
    prompt_cache_key: LetThrough = None
    prompt_cache_options: LetThrough = None
    prompt_cache_retention: LetThrough = None
    safety_identifier: LetThrough = None
    service_tier: LetThrough = None
    store: LetThrough = None
    user: LetThrough = None

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop


class CompletionRequest(GenerationBody):
    """POST /v1/completions."""

    prompt: Annotated[list[Prompt], PlainValidator(_prompts)]
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Choices | None = None
    suffix: NotServed = None

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
    trace: bool = Field(default=False, description="add the times of each of its steps")


class TextPart(Posted):
    """A part of a message; only text is served."""

    type: Literal["text", "input_text", "output_text"]
    text: Text

    annotations: LetThrough = None
    logprobs: LetThrough = None


class Message(Posted):
    """One message of a chat; OpenAI's client sends answers back with all their fields."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)]
    name: Name | None = None

    annotations: LetThrough = None
    type: LetThrough = None
    audio: NotServed = None
    function_call: NotServed = None
    refusal: NotServed = None
    tool_calls: NotServed = None

    @model_validator(mode="before")
    @classmethod
    def _assistant_may_have_said_nothing(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("role") == "assistant":
            return {"content": ""} | {k: v for k, v in value.items() if v is not None}
        return value

    @property
    def text(self) -> str:
        """Its parts, one on each line."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)

    def for_template(self) -> dict[str, str]:
        """Return the message as a chat template takes it, with a developer as the system."""
        role = "system" if self.role == "developer" else self.role
        named = {} if self.name is None else {"name": self.name}
        return {"role": role, "content": self.text} | named


class ResponseFormat(Posted):
    """The form of the answer; only text is served."""

    type: Literal["text"]


class ChatRequest(GenerationBody):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[Tokens, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0

    best_of: Literal[1] = 1
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None

    parallel_tool_calls: LetThrough = None
    prediction: LetThrough = None
    reasoning_effort: LetThrough = None
    verbosity: LetThrough = None

    audio: NotServed = None
    functions: NotServed = None
    moderation: NotServed = None
    tools: NotServed = None
    web_search_options: NotServed = None


class ProbeBody(ProbeRequest, Body):
    """How often a device's link is to be probed, with messages of which size in both directions."""

    strict: bool = True
