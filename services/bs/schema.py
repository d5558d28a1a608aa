"""The bodies that are posted: OpenAI's of completions and of chats, and /probe's, which is ours.

OpenAI's fields that change the result and are not served are accepted at their default only, so
that nobody gets an answer to another question than the one that was asked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

MAX_PROMPTS = 64
MAX_MESSAGES = 256
MAX_PROMPT_CHARACTERS = 1 << 20
MAX_PROMPT_TOKENS = 1 << 17
MAX_STOPS = 16

Prompt: TypeAlias = str | list[int]


def _prompts(value: Any) -> list[Prompt]:
    """A text, tokens, or a list of either: always as a list."""
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
        raise ValueError("is not served; allowed: to leave it out")
    return value


StopText = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
Name = Annotated[str, Field(max_length=256)]
Tokens = Annotated[int, Field(ge=0, le=MAX_PROMPT_TOKENS)]
NotServed = Annotated[Any, AfterValidator(_nothing)]
Zero = Annotated[float, Field(ge=0, le=0)]
One = Annotated[float, Field(ge=1, le=1)]


class StreamOptions(BaseModel):
    """What a stream tells besides the text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False


class Asked(BaseModel):
    """What completions and chats have in common. Greedy unless a temperature is given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Name | None = None
    max_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    user: Name | None = None

    n: Literal[1] | None = 1
    top_p: One | None = 1
    presence_penalty: Zero | None = 0
    frequency_penalty: Zero | None = 0
    logit_bias: NotServed = None

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def include_usage(self) -> bool:
        """Whether a stream is to end with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(Asked):
    """POST /v1/completions."""

    prompt: Annotated[list[Prompt], PlainValidator(_prompts)]
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Literal[1] | None = 1
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
    trace: bool = Field(default=False, description="add when each of its steps happened")


class TextPart(BaseModel):
    """A part of a message; no other kind is served."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """What one side of a chat said."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)]
    refusal: NotServed = None  # OpenAI's client sends back what it was told, this too

    @property
    def text(self) -> str:
        """Its parts a line each."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class ChatRequest(Asked):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[Tokens, Field(ge=1)] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    response_format: dict[Literal["type"], Literal["text"]] | None = None
    tools: NotServed = None
    tool_choice: Literal["none"] | None = None
    functions: NotServed = None


class ProbeBody(BaseModel):
    """How often a device's link is to be probed, with messages of which size in both directions."""

    model_config = ConfigDict(extra="forbid", strict=True)

    device: int = Field(ge=0)
    size_bytes: int = Field(ge=1, le=1 << 20)
    count: int = Field(ge=1, le=100)
