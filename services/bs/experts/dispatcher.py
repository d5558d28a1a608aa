"""Has the devices compute a layer's experts, all in parallel, and adds their outputs up.

    hidden (n × m) ─► rows by expert ─┬─ Work ─► device-0 ─ Done ─┬─► sum by weight ─► (n × m)
                                      ├─ Work ─► device-1 ─ Done ─┤
                                      └─ …                        ┘

One thread owns it: nothing is locked. A device that is gone or late costs its share of a token,
never the token: the weights of those that answered are renormalised, and the loss is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
import zmq

from orchestrator.contracts.channel_state import ChannelState
from orchestrator.metrics import BsMetrics
from orchestrator.moe.checkpoint import ModelInfo
from services.bs.batch.batch import ForwardBatch
from services.bs.batch.decision import RoutingDecision
from services.bs.batch.expert_call import ExpertCall, between
from services.bs.experts.devices import Devices
from services.bs.experts.layer_metrics import LayerMetrics
from services.bs.experts.patience import Patience
from services.net import wire
from services.net.channel_feed import ChannelFeed
from services.settings import Settings

# How often a probe looks whether anybody still waits for it.
_CANCEL_S = 0.1


class Dispatcher:
    """Owns the ROUTER socket (bound by the caller)."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        settings: Settings,
        info: ModelInfo,
        roster: Devices,
        channel: ChannelFeed,
        metrics: BsMetrics,
        accounting: LayerMetrics,
    ) -> None:
        self.socket = socket
        self._roster = roster
        self._channel = channel
        self._metrics = metrics
        self._accounting = accounting
        self._wire_dtype = settings.wire_dtype
        self._timeout_s = settings.device_timeout_s
        self._patience = Patience(settings.device_timeout_s, info)
        self._hidden_size = info.hidden_size
        self._jobs: dict[int, ExpertCall] = {}
        self._probing: tuple[int, int] | None = None
        self._probed: tuple[wire.Probed, float] | None = None
        self._next_id = 0

    def take_in(self) -> None:
        """Read every message that has arrived, then see who has fallen silent."""
        self._channel.take_in()
        while self.socket.poll(0):
            self._receive()
        now = time.monotonic()
        for q, device in enumerate(self._roster.devices):
            if device.admitted and now > max(device.last_seen_s + self._timeout_s, device.due_s):
                self._roster.lose(q, "silent")

    def reachable(self) -> torch.Tensor:
        """Which experts can be used now (bool vector of E)."""
        return self._roster.reachable(self._channel.current())

    def layer(
        self,
        layer: int,
        hidden: torch.Tensor,
        choices: Sequence[RoutingDecision],
        step: ForwardBatch,
    ) -> torch.Tensor:
        """Σ_q weight · expert_q(hidden) of one layer (Eq. 1); hidden n × m, a step's n tokens.

        Of each of the step's groups there is a choice. A device gets one message for all of them.
        """
        inputs = hidden.cpu()
        index = _joined([choice.used.index for choice in choices])
        try:
            jobs = self._send(layer, inputs, index, choices[0].channel, step)
            self._accounting.chosen(layer, choices, step)  # while the devices work
            self._await()
        finally:
            self._jobs.clear()
        combine_s = time.monotonic()
        if step.trace is not None:
            step.trace.answered([job.round_trip(combine_s) for job in jobs], combine_s)
        weight = _joined([choice.used.weight for choice in choices])
        output = self._combine(layer, jobs, inputs, index, weight, step).to(hidden)
        self._accounting.answered(layer, jobs, choices, step)
        step.times.combine_s += time.monotonic() - combine_s
        return output

    def probe(
        self, q: int, pad: wire.Buffer, cancelled: Callable[[], bool]
    ) -> tuple[float, wire.Probed, float] | None:
        """Send padding, await as much: when it was sent, the answer, when that had arrived.

        None if the device is not admitted, or gives no answer in time, or nobody waits for it.
        """
        self.take_in()
        frames = wire.encode(wire.Probe(self._next_id, pad))
        self._probing, self._probed = (q, self._next_id), None
        self._next_id += 1
        sent_s = time.monotonic()
        if not self._roster.devices[q].admitted or not self._try_send(q, frames):
            return None
        patience_s = self._patience.of_s(
            *(q, 0, sum(map(len, frames)), self._channel.current(), sent_s)
        )
        device = self._roster.devices[q]
        while (left_s := sent_s + patience_s - time.monotonic()) > 0 and device.admitted:
            if self.socket.poll(int(min(left_s, _CANCEL_S) * 1e3) + 1):
                self._receive()
            if self._probed is not None:
                self._channel.take_in()
                return sent_s, *self._probed
            if cancelled():
                return None
        self._lose(q, "timeout")
        return None

    def _send(
        self,
        layer: int,
        inputs: torch.Tensor,
        index: torch.Tensor,
        channel: ChannelState | None,
        step: ForwardBatch,
    ) -> list[ExpertCall]:
        emulate = channel.emulate if channel is not None else None
        jobs = []
        for q in range(len(self._roster.devices)):
            rows, slots = torch.where(index == q)
            n = len(rows)
            if n == 0:
                continue
            payload = wire.Payload.of(inputs[rows], self._wire_dtype)
            target = n * emulate.bits_per_token // 8 if emulate is not None else 0
            pad = wire.padding(len(payload.data), target)
            work = wire.Work(self._next_id, layer, payload, pad)
            frames = wire.encode(work)
            size = sum(map(len, frames))
            sent_s = time.monotonic()
            patience_s = self._patience.of_s(q, n, size, channel, sent_s)
            job = ExpertCall(q, rows, slots, sent_s, sent_s + patience_s, size)
            if not self._try_send(q, frames):
                self._lose(q, "unreachable")
                self._accounting.dropped(layer, job, "unreachable", step)
                continue
            self._roster.devices[q].due_s = job.deadline_s
            self._jobs[self._next_id] = job
            self._next_id += 1
            jobs.append(job)
        return jobs

    def _await(self) -> None:
        """Until every job has its answer, or its device is given up."""
        wait_s = self._timeout_s
        look_s = time.monotonic() + wait_s
        while waiting := [job for job in self._jobs.values() if job.done is None]:
            until_s = min(look_s, *(job.deadline_s for job in waiting))
            if self.socket.poll(max(0, int((until_s - time.monotonic()) * 1e3) + 1)):
                self._receive()
                continue
            now = time.monotonic()
            for job in waiting:
                if job.deadline_s <= now:
                    self._lose(job.device, "timeout")
                elif look_s <= now and self._is_gone(job.device):
                    self._lose(job.device, "unreachable")
            if look_s <= now:
                wait_s *= 2  # a beat takes its time on the air
                look_s = now + wait_s

    def _is_gone(self, q: int) -> bool:
        """Whether a device that computes, and says nothing meanwhile, is no longer connected."""
        try:
            beat = wire.encode(wire.Beat())
            self.socket.send_multipart([f"device-{q}".encode(), *beat], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            return error.errno == zmq.EHOSTUNREACH
        return False

    def _combine(
        self,
        layer: int,
        jobs: Sequence[ExpertCall],
        inputs: torch.Tensor,
        index: torch.Tensor,
        weight: torch.Tensor,
        step: ForwardBatch,
    ) -> torch.Tensor:
        """Sum by weight in the order of experts, which makes the sum reproducible."""
        output = torch.zeros_like(inputs)
        total = torch.zeros(len(inputs))
        answered = 0
        for job in jobs:
            if job.output is None:
                self._accounting.dropped(layer, job, "lost", step)
                continue
            share = weight[job.rows, job.slots]
            output.index_add_(0, job.rows, (job.output * share[:, None]).to(output.dtype))
            total.index_add_(0, job.rows, share.float())
            answered += len(job.rows)
        if answered == int((index < len(self._roster.devices)).sum()):
            return output
        return output / total.clamp(min=1e-6)[:, None].to(output.dtype)

    def _receive(self) -> None:
        frames = self.socket.recv_multipart(copy=False)
        now = time.monotonic()
        q = self._roster.number(frames[0])
        try:
            if q is None:
                raise wire.WireError("identity", "a sender that is no device of this stack")
            message = wire.decode([frame.buffer for frame in frames[1:]])
        except wire.WireError as error:
            self._metrics.refused_messages_total.labels(error.reason).inc()
            return
        device = self._roster.devices[q]
        device.last_seen_s = now
        if isinstance(message, wire.Done | wire.Failed):
            device.due_s = 0.0
        if isinstance(message, wire.Hello):
            self._try_send(q, wire.encode(self._roster.introduce(q, message)))
        elif isinstance(message, wire.Leave):
            self._lose(q, message.reason)
            device.refused = message.reason
        elif not device.admitted:
            self._try_send(q, wire.encode(wire.Identify()))
        elif isinstance(message, wire.Done):
            size = sum(len(frame.buffer) for frame in frames[1:])
            self._finish(q, message, now, size)
        elif isinstance(message, wire.Probed) and self._probing == (q, message.id):
            self._probed = message, now
        elif isinstance(message, wire.Failed):
            print(f"device-{q} failed: {message.reason}", flush=True)
            self._metrics.refused_messages_total.labels("failed").inc()
            job = self._jobs.get(message.id)
            if job is not None and job.device == q and job.done is None:
                self._jobs.pop(message.id).ended_s = now
        elif not isinstance(message, wire.Beat):
            self._metrics.refused_messages_total.labels("kind").inc()

    def _finish(self, q: int, done: wire.Done, now: float, size: int) -> None:
        """Accept an answer to a job that is still awaited; anything else is counted and ignored."""
        job = self._jobs.get(done.id)
        if job is None or job.device != q or job.done is not None:
            self._metrics.refused_messages_total.labels("late").inc()
            return
        output = done.y.tensor()
        fits = output.shape == (len(job.rows), self._hidden_size)
        done = between(done, job.sent_s, now)
        at_device = (done.received_s, done.started_s, done.finished_s, done.sent_s)
        times = (job.sent_s, *at_device, now)
        job.ended_s = now
        if not fits or not bool(torch.isfinite(output).all()) or sorted(times) != list(times):
            self._metrics.refused_messages_total.labels("answer").inc()
            del self._jobs[done.id]
            return
        job.done, job.output, job.answer_bytes = done, output, size
        self._patience.learn(q, len(job.rows), done.finished_s - done.started_s, now)

    def _lose(self, q: int, why: str) -> None:
        """Give a device up, and what it still owes."""
        self._roster.lose(q, why)
        owed = [i for i, job in self._jobs.items() if job.device == q and job.done is None]
        for i in owed:
            self._jobs.pop(i).ended_s = time.monotonic()

    def _try_send(self, q: int, frames: Sequence[wire.Buffer]) -> bool:
        try:
            self.socket.send_multipart([f"device-{q}".encode(), *frames], zmq.NOBLOCK)
        except zmq.ZMQError:  # EHOSTUNREACH: no such connection; EAGAIN: its queue is full
            return False
        return True


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows of all parts, on the CPU."""
    return (parts[0] if len(parts) == 1 else torch.cat(list(parts))).cpu()
