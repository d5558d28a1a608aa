"""What completions and chats share: the model that is asked, and how its engine is asked."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import Request as HttpRequest

from services.bs.engine.request import Request
from services.bs.engine.sampling import Sampling
from services.bs.http.errors import ApiError, refused
from services.bs.http.openai.schema import MAX_PROMPTS, Asked
from services.bs.http.response import Answer, Engine
from services.bs.text.tokenizer import ModelTokenizer
from services.bs.tracing.spans import RequestTrace, Value

if TYPE_CHECKING:  # its libraries take time to load, and are needed where there is a collector
    from services.bs.tracing.otlp import OtlpTraces

# OpenTelemetry's names of what is asked.
_OPERATIONS = {"cmpl": "text_completion", "chatcmpl": "chat", "resp": "chat"}


@dataclass(frozen=True)
class Desk:
    """Where a model's engine takes requests."""

    engine: Engine
    vocabulary: ModelTokenizer
    model: str
    context_length: int
    words: int
    """How many tokens the model knows."""
    otlp: OtlpTraces | None = None
    """Where every request's trace goes; None: nowhere."""

    def room(self, ids: Sequence[int]) -> int:
        """How many tokens may follow these, by the model's context and by the engine's memory."""
        return max(1, min(self.context_length, self.engine.positions) - len(ids))

    def check_model(self, name: str | None) -> None:
        """ApiError unless it is the one that is served."""
        if name not in (None, self.model):
            raise ApiError(
                404,
                f"model: {name!r} is not served here, {self.model!r} is",
                param="model",
                code="model_not_found",
            )

    def check_length(self, ids: Sequence[int], max_tokens: int, param: str) -> None:
        """ApiError unless the tokens are there, known, and leave room for `max_tokens` more."""
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

    def _sampling(self, body: Asked, max_tokens: int) -> Sampling:
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

    async def ask(
        self,
        http: HttpRequest,
        kind: str,
        body: Asked,
        prompts: list[list[int]],
        max_tokens: int,
        n: int,
        want_trace: bool = False,
        **wanted: Any,
    ) -> Asking:
        """Submit a request; `kind` begins its name, `wanted` is what else `Request` has."""
        if len(prompts) * n > MAX_PROMPTS:
            sequences = f"{n} choices of {len(prompts)} prompts"
            raise refused("n", f"{sequences}; allowed: {MAX_PROMPTS} sequences in all")
        answer = Answer()
        name, arrived_s = f"{kind}-{uuid.uuid4().hex}", time.monotonic()
        trace = None
        if self.otlp is not None:
            about: dict[str, Value] = {
                "gen_ai.response.id": name,
                "gen_ai.request.max_tokens": max_tokens,
                "gen_ai.usage.input_tokens": sum(map(len, prompts)),
            }
            trace = self.otlp.begin(http.headers, _OPERATIONS[kind], arrived_s, about)
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
            **wanted,
        )
        await answer.begin(self.engine, request, http)
        return Asking(request, answer)


@dataclass(frozen=True)
class Asking:
    """A request that has been taken, and its answer."""

    request: Request
    answer: Answer

    @property
    def prompt_tokens(self) -> int:
        """Of all its prompts together."""
        return sum(map(len, self.request.prompts))

    def reply(self, kind: str, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A whole answer, or a chunk of one."""
        return {
            "id": self.request.id,
            "object": kind,
            "created": int(time.time()),
            "model": model,
            "choices": choices,
        }
