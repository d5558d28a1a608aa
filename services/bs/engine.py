"""The engine: one thread that owns the trunk and the radio, and serves requests in their order.

HTTP ──submit──► queue ──► [ prefill ─► token ─► token … ] ──deliver──► HTTP
                       └─► [ probe ─► probe … ] of one link ──┘
                           between requests: read hellos, beats and channel states
"""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import zmq

from orchestrator.metrics import BsMetrics
from orchestrator.state import ChannelState
from services.bs.dispatch import Dispatcher
from services.bs.policies import Policies
from services.bs.prober import Prober, ProbeRequest
from services.bs.routing import RoutingTrace
from services.bs.serving import Serving, generator
from services.bs.text import TextStream
from services.bs.trunk import Trunk
from services.channel import ChannelFeed
from services.settings import COMPUTE_NICENESS

MAX_WAITING = 64
_IDLE_POLL_MS = 200
_WAKE = "inproc://wake"


@dataclass(frozen=True)
class Piece:
    """Text that has become certain."""

    text: str


@dataclass(frozen=True)
class End:
    """The end of a request.

    `logits` has a row for every position, `routing` is an .npz file, if they were asked for.
    """

    finish_reason: str
    completion_tokens: int
    timings: dict[str, Any]
    logits: torch.Tensor | None
    routing: bytes | None


@dataclass(frozen=True)
class Failure:
    """A request that got no answer."""

    message: str


Event: TypeAlias = Piece | End | Failure


@dataclass
class Request:
    """One completion to make; `deliver` is called from the engine's thread."""

    id: str
    prompt: list[int]
    max_tokens: int
    temperature: float
    seed: int | None
    stop: Sequence[str]
    want_logits: bool
    want_routing: bool
    deliver: Callable[[Event], None]
    arrived_s: float = field(default_factory=time.monotonic)
    cancelled: bool = False


class FullError(Exception):
    """The queue of waiting requests is full."""


class Engine(threading.Thread):
    """Serves requests one after another."""

    def __init__(
        self,
        trunk: Trunk,
        dispatcher: Dispatcher,
        prober: Prober,
        channel: ChannelFeed,
        policies: Policies,
        decode: Callable[[Sequence[int]], str],
        end_tokens: frozenset[int],
        metrics: BsMetrics,
        context: zmq.Context[zmq.Socket[bytes]],
    ) -> None:
        super().__init__(name="engine", daemon=True)
        self._trunk = trunk
        self._dispatcher = dispatcher
        self._prober = prober
        self._channel = channel
        self._decode = decode
        self._end_tokens = end_tokens
        self._metrics = metrics
        self._policies = policies
        self._waiting: queue.Queue[Request | ProbeRequest] = queue.Queue(MAX_WAITING)
        self._woken = context.socket(zmq.PULL)
        self._woken.bind(_WAKE)
        self._wake = context.socket(zmq.PUSH)
        self._wake.connect(_WAKE)
        self._wake_lock = threading.Lock()

    def submit(self, request: Request | ProbeRequest) -> None:
        """Queue a request, from any thread; raises FullError."""
        try:
            self._waiting.put_nowait(request)
        except queue.Full:
            raise FullError from None
        with self._wake_lock:
            self._wake.send(b"")

    def run(self) -> None:
        """Forever: keep up with the radio, and serve."""
        os.nice(COMPUTE_NICENESS)  # of this thread, and of torch's that it starts
        poller = zmq.Poller()
        for socket in (self._dispatcher.socket, self._channel.socket, self._woken):
            poller.register(socket, zmq.POLLIN)
        while True:
            events = dict(poller.poll(_IDLE_POLL_MS))
            self._dispatcher.take_in()
            if self._woken in events:
                self._woken.recv()
                self._serve(self._waiting.get())

    def _serve(self, request: Request | ProbeRequest) -> None:
        if isinstance(request, ProbeRequest):
            request.deliver(self._prober.run(request))
            return
        channel = self._channel.current()
        if channel is None or not bool(self._dispatcher.reachable().any()):
            self._end(request, Failure("no device can be reached"), "no_device")
            return
        try:
            self._complete(request, channel)
        except Exception as error:  # one bad request must not end the service
            traceback.print_exc()
            self._end(request, Failure(f"internal error: {type(error).__name__}"), "error")

    def _complete(self, request: Request, channel: ChannelState) -> None:
        started_s = time.monotonic()
        policy = self._policies.of(channel.policy)
        trace = RoutingTrace() if request.want_routing else None
        serving = Serving(policy, generator(request.prompt, self._trunk.device), trace=trace)
        text = TextStream(self._decode, request.stop)
        draw = _Draw(request.temperature, request.seed)
        cache = self._trunk.cache()
        rows: list[torch.Tensor] = []
        logits = self._trunk.forward(request.prompt, cache, serving)
        first_token_s = 0.0
        made, reason = 0, "length"
        while True:
            if request.want_logits:
                rows.append(logits)
            token = draw(logits[-1])
            made += 1
            first_token_s = first_token_s or time.monotonic()
            if token in self._end_tokens:
                reason = "stop"
                break
            if piece := text.add(token):
                request.deliver(Piece(piece))
            if text.stopped:
                reason = "stop"
                break
            if made == request.max_tokens:
                break
            if request.cancelled:
                self._metrics.requests_total.labels("cancelled").inc()
                return
            logits = self._trunk.forward([token], cache, serving)
        if piece := text.rest():
            request.deliver(Piece(piece))
        ended_s = time.monotonic()
        timings = {
            "request_id": request.id,
            "time_to_first_token_s": first_token_s - request.arrived_s,
            "end_to_end_s": ended_s - request.arrived_s,
            "prompt_tokens": len(request.prompt),
            "completion_tokens": made,
            **serving.meter.parts(started_s - request.arrived_s, ended_s - request.arrived_s),
            "policy": {"name": policy.name, "params": policy.model_dump(exclude_none=True)},
            "profile": channel.profile,
            "epoch": channel.epoch,
        }
        self._metrics.request_seconds.observe(timings["end_to_end_s"])
        self._metrics.time_to_first_token_seconds.observe(timings["time_to_first_token_s"])
        self._metrics.tokens_total.labels("prompt").inc(len(request.prompt))
        self._metrics.tokens_total.labels("completion").inc(made)
        all_logits = torch.cat(rows) if rows else None
        routing = trace.npz() if trace is not None else None
        self._end(request, End(reason, made, timings, all_logits, routing), "ok")

    def _end(self, request: Request, event: Event, outcome: str) -> None:
        self._metrics.requests_total.labels(outcome).inc()
        request.deliver(event)


class _Draw:
    """Greedy at temperature 0; else a draw from the softmax, repeatable by its seed."""

    def __init__(self, temperature: float, seed: int | None) -> None:
        self._temperature = temperature
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def __call__(self, logits: torch.Tensor) -> int:
        if self._temperature == 0:
            return int(logits.argmax())
        chances = torch.softmax(logits / self._temperature, dim=-1)
        return int(torch.multinomial(chances, 1, generator=self._generator))
