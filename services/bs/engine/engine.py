"""The engine: one thread that owns the trunk and the radio, and serves requests side by side.

HTTP ──submit──► waiting ──► [ step ─► step ─► step … ] ──deliver──► HTTP
                    │          all running sequences advance in each; between two, some join
                    ◄──────► [ one probe of a link ], when nothing runs

Between steps, and between layers, it reads hellos, beats and channel states.

At most MAX_RUNNING sequences run, each with memory for all the keys and values that it may need. At
most `step_tokens` tokens of a step belong to prompts.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence

import torch
import zmq

from orchestrator.contracts.http import Requests
from orchestrator.metrics import BsMetrics
from orchestrator.metrics.bs import PARTS
from services.bs.batch.batch import Segment
from services.bs.engine.active_request import ActiveRequest
from services.bs.engine.prefill import step_tokens
from services.bs.engine.queue import RequestQueue, Submitted
from services.bs.engine.request import End, Failure, FullError, Request, TooLargeError
from services.bs.engine.room import BatchRoom
from services.bs.engine.sequence import Language
from services.bs.engine.trunk import Trunk
from services.bs.experts.dispatcher import Dispatcher
from services.bs.experts.policy_in_force import PolicyInForce
from services.bs.experts.prober import Prober, ProbeSeries
from services.net.channel_feed import ChannelFeed
from services.settings import COMPUTE_NICENESS

MAX_RUNNING = 32
# An operation of a small model ends before a second thread has woken up for its share, and waiting
# for that thread costs more than the operation where devices run on the same cores.
SMALL_TRUNK_BYTES = 64 << 20
_IDLE_POLL_MS = 200
_WAKE = "inproc://wake"


class Engine(threading.Thread):
    """A server of requests, which begin in the order of their arrival and advance together.

    Attributes:
        positions: of keys and values that fit in memory, for all sequences together.
    """

    def __init__(
        self,
        trunk: Trunk,
        dispatcher: Dispatcher,
        prober: Prober,
        channel: ChannelFeed,
        policies: PolicyInForce,
        decode: Callable[[Sequence[int]], str],
        end_tokens: frozenset[int],
        metrics: BsMetrics,
        context: zmq.Context[zmq.Socket[bytes]],
        kv_bytes: int,
    ) -> None:
        """`kv_bytes` is the memory for keys and values."""
        super().__init__(name="engine", daemon=True)
        self._trunk = trunk
        self._dispatcher = dispatcher
        self._prober = prober
        self._channel = channel
        self._language = Language(decode, end_tokens)
        self._metrics = metrics
        self._policies = policies
        self.positions = kv_bytes // trunk.position_bytes
        self._waiting = RequestQueue()
        self._running: list[ActiveRequest] = []
        metrics.requests_waiting.set_function(self._waiting.requests)
        self._woken = context.socket(zmq.PULL)
        self._woken.bind(_WAKE)
        self._wake = context.socket(zmq.PUSH)
        self._wake.connect(_WAKE)
        self._wake_lock = threading.Lock()

    def submit(self, request: Submitted) -> None:
        """Queue a request, from any thread; raises FullError, TooLargeError."""
        if isinstance(request, Request) and request.positions > self.positions:
            self._metrics.requests_total.labels("refused").inc()
            raise TooLargeError(
                f"prompts and max_tokens need {request.positions} positions of keys and values; "
                f"WDMOE_KV_MIB allows {self.positions}"
            )
        try:
            self._waiting.put(request)
        except FullError:
            self._metrics.requests_total.labels("refused").inc()
            raise
        with self._wake_lock:
            self._wake.send(b"")

    def standing(self) -> Requests:
        """What runs and what waits, for any thread."""
        return Requests(
            running=[active.request.progress(active.made) for active in self._running],
            waiting=[request.progress() for request in self._waiting.in_turn()],
        )

    def run(self) -> None:
        """Keep up with the radio and serve requests, forever."""
        os.nice(COMPUTE_NICENESS)  # of this thread, and of torch's threads, which it starts
        if self._trunk.weight_bytes < SMALL_TRUNK_BYTES:
            torch.set_num_threads(1)
        poller = zmq.Poller()
        for socket in (self._dispatcher.socket, self._channel.socket, self._woken):
            poller.register(socket, zmq.POLLIN)
        while True:
            busy = bool(self._running) or self._waiting.first() is not None
            poller.poll(0 if busy else _IDLE_POLL_MS)
            self._dispatcher.take_in()
            while self._woken.poll(0):
                self._woken.recv()
            self._turn()

    def _turn(self) -> None:
        """Run one step of all requests or, when none runs, one probe."""
        self._drop_cancelled()
        parts = self._schedule()
        self._metrics.requests_running.set(len(self._running))
        if parts:
            self._step(parts)
            self._metrics.requests_running.set(len(self._running))
        elif isinstance(self._waiting.first(), ProbeSeries):
            probe = self._waiting.take()
            assert isinstance(probe, ProbeSeries), "only this thread takes"
            if (found := self._prober.advance(probe)) is None:
                self._waiting.put_back(probe)
            else:
                probe.deliver(found)

    def _drop_cancelled(self) -> None:
        gone = [running.request for running in self._running if running.request.cancelled]
        if gone:
            self._running = [running for running in self._running if not running.request.cancelled]
        gone += self._waiting.drop_cancelled()
        for request in gone:
            _end_trace(request, "cancelled")
        self._metrics.requests_total.labels("cancelled").inc(len(gone))

    def _schedule(self) -> list[Segment]:
        """Return the parts of the next step; requests begin in order, as far as there is room."""
        tokens = step_tokens(self._trunk.words)
        chunk = tokens // 2
        sequences = sum(len(running.active) for running in self._running)
        held = sum(running.positions for running in self._running)
        room = BatchRoom(MAX_RUNNING - sequences, tokens, self.positions - held)
        parts: list[Segment] = []
        for running in list(self._running):
            parts += self._parts(running, room)
        while room.is_open and isinstance(request := self._waiting.first(), Request):
            if not room.has(min(len(request.prompts[0]), chunk), 1, request.positions):
                break
            self._waiting.take()
            try:
                begun = self._begin(request, chunk)
            except Exception as error:
                self._failed(request, error)
                continue
            if begun is not None:
                self._running.append(begun)
                room.take(0, positions=begun.positions)
                parts += self._parts(begun, room)
        return parts

    def _parts(self, running: ActiveRequest, room: BatchRoom) -> list[Segment]:
        try:
            return running.schedule(room)
        except Exception as error:  # such as memory that turns out to be missing
            self._running.remove(running)
            self._failed(running.request, error)
            return []

    def _begin(self, request: Request, chunk: int) -> ActiveRequest | None:
        channel = self._channel.current()
        if channel is None or not bool(self._dispatcher.reachable().any()):
            self._fail(request, "no device can be reached", "no_device")
            return None
        policy = self._policies.of(channel.policy)
        return ActiveRequest(request, policy, channel, self._trunk, self._language, chunk)

    def _step(self, parts: list[Segment]) -> None:
        try:
            self._trunk.forward(parts)
        except Exception as error:  # any of the requests may be the cause
            for running in self._running:
                self._failed(running.request, error)
            self._running = []
            return
        for layer_s in self._trunk.batch.layers_s:
            self._metrics.layer_seconds.observe(layer_s)
        still = []
        for running in self._running:
            if running.untouched is not None:
                layer = f"no device answered in layer {running.untouched}"
                self._fail(running.request, f"{layer}: they are gone, or too late", "no_device")
                continue
            try:
                if running.advance():
                    self._end(running.request, running.end())
                else:
                    still.append(running)
            except Exception as error:  # one bad request must not end the others
                self._failed(running.request, error)
        self._running = still

    def _end(self, request: Request, end: End) -> None:
        timings = end.timings
        self._metrics.request_seconds.observe(timings.end_to_end_s)
        for part in PARTS:
            self._metrics.request_part_seconds_total.labels(part).inc(
                max(0, getattr(timings, f"{part}_s"))
            )
        self._metrics.request_eq8_seconds_total.inc(timings.eq8_s)
        self._metrics.request_batched_seconds_total.inc(timings.batched_s)
        if (first_s := timings.time_to_first_token_s) is not None:
            self._metrics.time_to_first_token_seconds.observe(first_s)
        self._metrics.tokens_total.labels("prompt").inc(timings.prompt_tokens)
        self._metrics.tokens_total.labels("completion").inc(end.completion_tokens)
        self._metrics.requests_total.labels("ok").inc()
        request.deliver(end)

    def _failed(self, request: Request, error: Exception) -> None:
        traceback.print_exception(error)
        self._fail(request, f"internal error: {type(error).__name__}", "error")

    def _fail(self, request: Request, message: str, outcome: str) -> None:
        self._metrics.requests_total.labels(outcome).inc()
        _end_trace(request, message)
        try:
            request.deliver(Failure(message))
        except Exception:  # the failure cannot be delivered
            traceback.print_exc()


def _end_trace(request: Request, error: str) -> None:
    if request.trace is not None:
        request.trace.end(time.monotonic(), error=error)
