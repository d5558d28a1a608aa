"""A request that has begun: what its prompts share, its sequences, and its account at the end.

prompts   s s s s a a        s s s s: computed once, in the step of the first sequence
          s s s s b b b      a a, b b b: sequences of the batch
"""

from __future__ import annotations

import time
from collections import deque
from itertools import islice, takewhile
from typing import Any

import torch

from orchestrator.selection import Policy
from orchestrator.state import ChannelState
from services.bs.completion import Completion, Language, Scored
from services.bs.requests import End, Request
from services.bs.routing import RoutingTrace
from services.bs.serving import Serving, generator
from services.bs.step import Part
from services.bs.trunk import Trunk


class Running:
    """Used by the engine's thread only. Its sequences join one by one, in their order.

    Attributes:
        active: those that take part in every step.
        waiting: those that are to join.
    """

    def __init__(
        self,
        request: Request,
        policy: Policy,
        channel: ChannelState,
        trunk: Trunk,
        language: Language,
    ) -> None:
        self.request = request
        self.active: list[Completion] = []
        self._policy = policy
        self._channel = channel
        routing = RoutingTrace() if request.want_routing else None
        self._serving = Serving(policy, trace=routing, spans=request.trace)
        self._started_s = time.monotonic()
        self._first_s: float | None = None
        self._before = Scored()
        self._made = 0
        self._rows: list[torch.Tensor] = []
        self.waiting: deque[Completion] = deque()

        prompts = [prompt for prompt in request.prompts for _ in range(request.n)]
        shared = shared_tokens(request.prompts, request.n)
        self._prompt_tokens = sum(map(len, prompts)) - shared * (len(prompts) - 1)
        scored = request.echo and request.logprobs is not None
        self._prefix: Part | None = None
        before = None
        if shared:
            ids, before = request.prompts[0][:shared], trunk.cache()
            draws, wanted = generator(ids, trunk.device), shared if scored else 0
            self._prefix = Part(ids, before, self._serving, draws, wanted)
        for index, prompt in enumerate(prompts):
            own = prompt[shared:]
            wanted = len(own) if scored or request.want_logits else min(request.max_tokens, 1)
            cache = trunk.cache(before, shared)
            part = Part(own, cache, self._serving, generator(prompt, trunk.device), wanted)
            self.waiting.append(Completion(request, index, part, language))

    @property
    def next_tokens(self) -> int:
        """How many tokens a step has to compute if the next sequence joins."""
        brings = self._prefix if not self.active else None
        return len(self.waiting[0].part) + (0 if brings is None else len(brings))

    @property
    def untouched(self) -> int | None:
        """The first layer in which one of its sequences had no expert at all."""
        return self._serving.untouched

    @property
    def made(self) -> int:
        """Tokens of all sequences so far; any thread may ask; as a step ends, too few."""
        return self._made + sum(one.made for one in self.active if not one.finished)

    def join(self) -> None:
        """Let the next sequence take part."""
        self.active.append(self.waiting.popleft())

    def parts(self) -> list[Part]:
        """What the next step has to compute."""
        prefix = [self._prefix] if self._prefix is not None else []
        return [*prefix, *(completion.part for completion in self.active)]

    def advance(self) -> bool:
        """Go on after a step; whether all is done."""
        if self._prefix is not None:
            ids, logits = self._prefix.ids, self._prefix.logits
            if self.request.echo:
                self._before = self._before.extend(ids, logits, self.request.logprobs)
            self._prefix = None
        still = []
        for completion in self.active:
            completion.take(self._before)
            if completion.finished:
                self._made += completion.made
                self._rows += completion.rows
            else:
                still.append(completion)
        self.active = still
        if self._first_s is None and self.made:
            self._first_s = time.monotonic()
        return not self.active and not self.waiting

    def end(self) -> End:
        """The account of a request that is done."""
        request, first_s, ended_s = self.request, self._first_s, time.monotonic()
        queued_s, took_s = self._started_s - request.arrived_s, ended_s - request.arrived_s
        timings: dict[str, Any] = {
            "request_id": request.id,
            "time_to_first_token_s": None if first_s is None else first_s - request.arrived_s,
            "end_to_end_s": took_s,
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._made,
            **self._serving.meter.parts(queued_s, took_s),
            "policy": {
                "name": self._policy.name,
                "params": self._policy.model_dump(exclude_none=True),
            },
            "profile": self._channel.profile,
            "epoch": self._channel.epoch,
        }
        logits = torch.cat(self._rows) if request.want_logits else None
        trace = self._serving.trace
        if request.trace is not None:
            request.trace.end(ended_s, self._made)
        routing = None if trace is None else trace.npz()
        lost = self._serving.meter.lost
        return End(self._made, timings, logits, routing, request.trace, lost)


def shared_tokens(prompts: list[list[int]], n: int = 1) -> int:
    """How many tokens all sequences begin with, n of each prompt; each has one of its own."""
    if len(prompts) == 1:
        return 0 if n == 1 else len(prompts[0]) - 1
    shortest = min(map(len, prompts))
    same = (len(set(tokens)) == 1 for tokens in zip(*prompts, strict=False))
    return sum(takewhile(bool, islice(same, shortest - 1)))
