"""A request that has begun: its prompts' common prefix, its sequences, and its final summary.

prompts   s s s s a a        s s s s: computed once, before the first sequence or in its step
          s s s s b b b      a a, b b b: sequences of the batch
"""

from __future__ import annotations

import time
from collections import deque
from itertools import islice, takewhile

import torch

from orchestrator.contracts.channel_state import ChannelState
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.timings import Timings
from orchestrator.selection import Policy
from services.bs.batch.attention import KvCache
from services.bs.batch.batch import Segment
from services.bs.batch.request_context import RequestContext, generator
from services.bs.batch.routing_trace import RoutingTrace
from services.bs.engine.prefill import Prefill
from services.bs.engine.request import End, Request
from services.bs.engine.room import BatchRoom
from services.bs.engine.sequence import Language, Scored, TokenSequence
from services.bs.engine.trunk import Trunk


class ActiveRequest:
    """A request in the batch; used by the engine's thread only.

    Its sequences join one by one, in order.

    Attributes:
        active: sequences that have joined and have not ended.
    """

    def __init__(
        self,
        request: Request,
        policy: Policy,
        channel: ChannelState,
        trunk: Trunk,
        language: Language,
        chunk: int,
    ) -> None:
        self.request = request
        self.active: list[TokenSequence] = []
        self._policy = policy
        self._channel = channel
        self._trunk = trunk
        self._language = language
        self._chunk = chunk
        routing = RoutingTrace() if request.want_routing else None
        self._serving = RequestContext(policy, trace=routing, spans=request.trace)
        self._started_s = time.monotonic()
        self._first_s: float | None = None
        self._before = Scored()
        self._made = 0
        self._rows: list[torch.Tensor] = []
        prompts = [prompt for prompt in request.prompts for _ in range(request.n)]
        self._waiting = deque(enumerate(prompts))
        self._stepping: list[TokenSequence] = []

        self._shared = shared = shared_tokens(request.prompts, request.n)
        self._prompt_tokens = sum(map(len, prompts)) - shared * (len(prompts) - 1)
        self._scored = request.echo and request.logprobs is not None
        self._beginning: KvCache | None = None
        self._prefill: Prefill | None = None
        if shared:
            ids = request.prompts[0][:shared]
            self._beginning = trunk.cache(shared)
            part = Segment([], self._beginning, self._serving, generator(ids, trunk.device), 0)
            self._prefill = Prefill(ids, part, chunk, self._scored, 0)

    @property
    def positions(self) -> int:
        """Positions of keys and values that it holds memory for."""
        beginning = 0 if self._beginning is None else self._beginning.positions
        return beginning + sum(sequence.part.cache.positions for sequence in self.active)

    @property
    def untouched(self) -> int | None:
        """The first layer in which one of its sequences had no expert at all."""
        return self._serving.untouched

    @property
    def made(self) -> int:
        """Tokens of all sequences so far, for any thread; while a step ends, it may be too low."""
        return self._made + sum(sequence.made for sequence in self.active if not sequence.finished)

    def schedule(self, room: BatchRoom) -> list[Segment]:
        """Return its parts of the next step; sequences join as long as there is room."""
        self._stepping = []
        parts = []
        if self._prefill is not None:
            if not room.take(len(self._prefill.part)):
                return []
            parts.append(self._prefill.part)
            if not self._prefill.is_last:
                return parts
        self._stepping = [
            sequence
            for sequence in self.active
            if not sequence.prefills or room.take(len(sequence.part))
        ]
        while self._waiting and self._join(room):
            self._stepping.append(self.active[-1])
        return parts + [sequence.part for sequence in self._stepping]

    def _join(self, room: BatchRoom) -> bool:
        index, prompt = self._waiting[0]
        rest, positions = prompt[self._shared :], len(prompt) + self.request.max_tokens
        if not room.take(min(self._chunk, len(rest)), sequences=1, positions=positions):
            return False
        self._waiting.popleft()
        cache = self._trunk.cache(positions, self._beginning, self._shared)
        part = Segment([], cache, self._serving, generator(prompt, self._trunk.device), 0)
        every = self._scored or self.request.want_logits
        prefill = Prefill(rest, part, self._chunk, every, min(self.request.max_tokens, 1))
        self.active.append(TokenSequence(self.request, index, prefill, self._language))
        return True

    def advance(self) -> bool:
        """Process a step's logits; return whether the request is done."""
        if self._prefill is not None:
            part = self._prefill.part
            if self.request.echo:
                self._before = self._before.extend(part.ids, part.logits, self.request.logprobs)
            if self._prefill.is_last:
                self._prefill = None
            else:
                self._prefill.advance()
        for sequence in self._stepping:
            sequence.take(self._before)
            if sequence.finished:
                self._made += sequence.made
                self._rows += sequence.rows
        self.active = [sequence for sequence in self.active if not sequence.finished]
        if not self._waiting:
            self._beginning = None  # every sequence has its copy
        if self._first_s is None and self.made:
            self._first_s = time.monotonic()
        return not self.active and not self._waiting

    def end(self) -> End:
        """Return the summary of a request that is done."""
        request, first_s, ended_s = self.request, self._first_s, time.monotonic()
        queued_s, took_s = self._started_s - request.arrived_s, ended_s - request.arrived_s
        meter = self._serving.meter
        timings = Timings(
            request_id=request.id,
            time_to_first_token_s=None if first_s is None else first_s - request.arrived_s,
            end_to_end_s=took_s,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._made,
            **meter.parts(queued_s, took_s),
            eq8_s=meter.eq8_s,
            batched_s=meter.batched_s,
            batch=meter.sequences / meter.steps,
            experts=meter.experts(),
            overruns=meter.overruns,
            device_messages=meter.device_messages,
            policy=PolicySpec(
                name=self._policy.name, params=self._policy.model_dump(exclude_none=True)
            ),
            profile=self._channel.profile,
            epoch=self._channel.epoch,
        )
        logits = torch.cat(self._rows) if request.want_logits else None
        trace = self._serving.trace
        if request.trace is not None:
            request.trace.end(ended_s, self._made)
        routing = None if trace is None else trace.npz()
        return End(self._made, timings, logits, routing, request.trace, meter.lost)


def shared_tokens(prompts: list[list[int]], n: int = 1) -> int:
    """Return the length of the prefix that all sequences share, n of each prompt.

    Every sequence keeps at least one token of its own.
    """
    if len(prompts) == 1:
        return 0 if n == 1 else len(prompts[0]) - 1
    shortest = min(map(len, prompts))
    same = (len(set(tokens)) == 1 for tokens in zip(*prompts, strict=False))
    return sum(takewhile(bool, islice(same, shortest - 1)))
