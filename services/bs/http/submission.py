"""What completions, chats and responses share: the served model, and a request submitted to it.

body ─► ServedModel.submit ─► Submission ─┬─ answer: the engine's events
                                          └─ chunk(), final(): documents in the API's form
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Request as HttpRequest

from orchestrator.contracts.openai import Answer as AnswerForm
from services.bs.engine.request import Request
from services.bs.engine.sampling import Sampling
from services.bs.http.errors import ApiError, refused
from services.bs.http.openai.schema import MAX_PROMPTS, GenerationBody
from services.bs.http.response import Answer, Engine
from services.bs.text.tokenizer import ModelTokenizer
from services.bs.tracing.spans import RequestTrace, Value

Form = TypeVar("Form", bound=AnswerForm)

if TYPE_CHECKING:  # its libraries are slow to load, and only needed with a collector
    from services.bs.tracing.otlp import OtlpTraces


@dataclass(frozen=True)
class Kind:
    """How an API names its requests (`prefix`), its answers and their chunks.

    `operation` is OpenTelemetry's name of what is requested.
    """

    prefix: str
    final: str
    chunk: str
    operation: str


COMPLETION = Kind("cmpl", "text_completion", "text_completion", "text_completion")
CHAT = Kind("chatcmpl", "chat.completion", "chat.completion.chunk", "chat")
RESPONSE = Kind("resp", "response", "response", "chat")


@dataclass(frozen=True)
class ServedModel:
    """The model that is served, and the engine that takes requests for it."""

    engine: Engine
    vocabulary: ModelTokenizer
    name: str
    context_length: int
    words: int
    """Size of the vocabulary [tokens]."""
    otlp: OtlpTraces | None = None
    """Exporter of every request's trace; None: no export."""

    def room(self, ids: Sequence[int]) -> int:
        """Return how many tokens may follow these, by the model's context and engine's memory."""
        return max(1, min(self.context_length, self.engine.positions) - len(ids))

    def check_model(self, name: str | None) -> None:
        """ApiError unless it is the one that is served."""
        if name not in (None, self.name):
            raise ApiError(
                404,
                f"model: {name!r} is not served here, {self.name!r} is",
                param="model",
                code="model_not_found",
            )

    def check_length(self, ids: Sequence[int], max_tokens: int, param: str) -> None:
        """Raise ApiError unless there are tokens, all known, with room for `max_tokens` more."""
        if not ids:
            raise refused(param, "must have at least one token")
        if not 0 <= min(ids) <= max(ids) < self.words:
            raise refused(param, f"tokens must be from 0 to {self.words - 1}")
        if len(ids) + max_tokens > self.context_length:
            raise refused(
                param,
                f"its {len(ids)} tokens and max_tokens {max_tokens} exceed the model's context "
                f"of {self.context_length}",
                "context_length_exceeded",
            )

    def _sampling(self, body: GenerationBody, max_tokens: int) -> Sampling:
        biases = {int(token): value for token, value in body.logit_bias.items()}
        if (highest := max(biases, default=0)) >= self.words:
            allowed = f"allowed: tokens from 0 to {self.words - 1}"
            raise refused(f"logit_bias.{highest}", allowed)
        if body.min_tokens > max_tokens:
            allowed = f"allowed: up to max_tokens, {max_tokens}"
            raise refused("min_tokens", f"is {body.min_tokens}, {allowed}")
        return Sampling(
            temperature=body.temperature or 0.0,
            seed=body.seed,
            top_p=body.top_p,
            top_k=max(0, body.top_k),
            min_p=body.min_p,
            repetition_penalty=body.repetition_penalty,
            frequency_penalty=body.frequency_penalty,
            presence_penalty=body.presence_penalty,
            logit_bias=biases,
            min_tokens=body.min_tokens,
        )

    async def submit(
        self,
        http: HttpRequest,
        kind: Kind,
        body: GenerationBody,
        prompts: list[list[int]],
        max_tokens: int,
        n: int,
        want_trace: bool = False,
        **options: Any,
    ) -> Submission:
        """Submit a request to the engine; `options` are further fields of `Request`."""
        if len(prompts) * n > MAX_PROMPTS:
            sequences = f"{n} choices of {len(prompts)} prompts"
            raise refused("n", f"{sequences}; allowed: {MAX_PROMPTS} sequences in all")
        answer = Answer()
        name, arrived_s = f"{kind.prefix}-{uuid.uuid4().hex}", time.monotonic()
        trace = None
        if self.otlp is not None:
            about: dict[str, Value] = {
                "gen_ai.response.id": name,
                "gen_ai.request.max_tokens": max_tokens,
                "gen_ai.usage.input_tokens": sum(map(len, prompts)),
            }
            trace = self.otlp.begin(http.headers, kind.operation, arrived_s, about)
        if trace is None and want_trace:
            trace = RequestTrace(arrived_s)
        request = Request(
            id=name,
            prompts=prompts,
            n=n,
            max_tokens=max_tokens,
            sampling=self._sampling(body, max_tokens),
            stop=body.stops,
            stop_tokens=self.vocabulary.special(body.stops),
            ignore_eos=body.ignore_eos,
            deliver=answer.deliver,
            trace=trace,
            arrived_s=arrived_s,
            **options,
        )
        await answer.begin(self.engine, request, http)
        return Submission(request, answer, kind, self.name)


@dataclass(frozen=True)
class Submission:
    """A request that the engine has taken, and its answer."""

    request: Request
    answer: Answer
    kind: Kind
    model: str

    @property
    def prompt_tokens(self) -> int:
        """The tokens of all its prompts together."""
        return sum(map(len, self.request.prompts))

    def chunk(self, form: type[Form], **fields: Any) -> Form:
        """Return a chunk of the answer."""
        return self._answer(form, self.kind.chunk, fields)

    def final(self, form: type[Form], **fields: Any) -> Form:
        """Return the whole answer."""
        return self._answer(form, self.kind.final, fields)

    def _answer(self, form: type[Form], name: str, fields: dict[str, Any]) -> Form:
        created = int(time.time())
        return form(id=self.request.id, object=name, created=created, model=self.model, **fields)
