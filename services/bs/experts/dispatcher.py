"""The dispatcher of a layer's tokens to the devices' experts, which compute in parallel.

    hidden (n × m) ─► rows by expert ─┬─ Work ─► device-0 ─ Done ─┬─► sum by weight ─► (n × m)
                                      ├─ Work ─► device-1 ─ Done ─┤
                                      └─ …                        ┘

One thread owns it, without locks. A device that is gone or late costs a token its expert, never
the token: the weights of the answers are renormalised, and the loss is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import zmq

from orchestrator.metrics import BsMetrics
from orchestrator.moe.checkpoint import ModelInfo
from services.bs.batch.expert_call import ExpertCall, align_clock
from services.bs.batch.layer_record import LayerRecord
from services.bs.experts.devices import Devices
from services.bs.experts.patience import Patience
from services.net import wire
from services.net.channel_feed import ChannelFeed
from services.settings import Settings

# How often a probe checks whether its client still waits.
_CANCEL_S = 0.1


class Dispatcher:
    """The owner of the ROUTER socket, which the caller has bound."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        settings: Settings,
        info: ModelInfo,
        devices: Devices,
        channel: ChannelFeed,
        metrics: BsMetrics,
    ) -> None:
        self.socket = socket
        self._devices = devices
        self._channel = channel
        self._metrics = metrics
        self._wire_dtype = settings.wire_dtype
        self._timeout_s = settings.device_timeout_s
        self._patience = Patience(settings.device_timeout_s, info)
        self._hidden_size = info.hidden_size
        self._calls: dict[int, ExpertCall] = {}
        self._probing: tuple[int, int] | None = None
        self._probed: tuple[wire.Probed, float] | None = None
        self._next_id = 0

    def take_in(self) -> None:
        """Read every message that has arrived, then give up devices that have fallen silent."""
        self._channel.take_in()
        while self.socket.poll(0):
            self._receive()
        now = time.monotonic()
        for q, device in enumerate(self._devices.devices):
            if device.admitted and now > max(device.last_seen_s + self._timeout_s, device.due_s):
                self._devices.lose(q, "silent")

    def reachable(self) -> torch.Tensor:
        """Return which experts are usable now (bool vector of E)."""
        return self._devices.reachable(self._channel.current())

    def probe(
        self, q: int, pad: wire.Buffer, cancelled: Callable[[], bool]
    ) -> tuple[float, wire.Probed, float] | None:
        """Send padding and await as much: return the send time, the answer, its arrival time.

        None if the device is not admitted, does not answer in time, or the client has left.
        """
        self.take_in()
        frames = wire.encode(wire.Probe(self._next_id, pad))
        self._probing, self._probed = (q, self._next_id), None
        self._next_id += 1
        sent_s = time.monotonic()
        if not self._devices.devices[q].admitted or not self._try_send(q, frames):
            return None
        patience_s = self._patience.of_s(
            *(q, 0, sum(map(len, frames)), self._channel.current(), sent_s)
        )
        device = self._devices.devices[q]
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

    @contextmanager
    def dispatched(self, hidden: torch.Tensor, record: LayerRecord) -> Iterator[None]:
        """Send a layer's tokens (hidden: n × m), run the body, and wait for the answers.

        The body runs while the devices compute. If it fails, their answers are late ones.
        """
        try:
            self._send(hidden, record)
            yield
            self._await()
        finally:
            self._calls.clear()

    def _send(self, hidden: torch.Tensor, record: LayerRecord) -> None:
        """Send one message per device; record the calls."""
        inputs = hidden.cpu()
        index = _joined([decision.used.index for decision in record.decisions])
        channel = record.decisions[0].channel
        emulate = channel.emulate if channel is not None else None
        for q in range(len(self._devices.devices)):
            rows, slots = torch.where(index == q)
            n = len(rows)
            if n == 0:
                continue
            payload = wire.Payload.of(inputs[rows], self._wire_dtype)
            target = n * emulate.bits_per_token // 8 if emulate is not None else 0
            pad = wire.padding(len(payload.data), target)
            work = wire.Work(self._next_id, record.number, payload, pad)
            frames = wire.encode(work)
            size = sum(map(len, frames))
            sent_s = time.monotonic()
            patience_s = self._patience.of_s(q, n, size, channel, sent_s)
            call = ExpertCall(q, rows, slots, sent_s, sent_s + patience_s, size)
            if not self._try_send(q, frames):
                self._lose(q, "unreachable")
                record.unsent.append(call)
                continue
            self._devices.devices[q].due_s = call.deadline_s
            self._calls[self._next_id] = call
            self._next_id += 1
            record.calls.append(call)

    def combine(self, hidden: torch.Tensor, record: LayerRecord) -> torch.Tensor:
        """Return Σ_q weight · expert_q(hidden) of a layer (Eq. 1); n × m, as `hidden`.

        Summed in the order of experts, so that the sum is reproducible.
        """
        weight = _joined([decision.used.weight for decision in record.decisions])
        output = torch.zeros_like(hidden, device="cpu")
        total = torch.zeros(len(hidden))
        missing = bool(record.unsent)
        for call in record.calls:
            if call.output is None:
                missing = True
                continue
            share = weight[call.rows, call.slots]
            output.index_add_(0, call.rows, (call.output * share[:, None]).to(output.dtype))
            total.index_add_(0, call.rows, share.float())
        if missing:
            output = output / total.clamp(min=1e-6)[:, None].to(output.dtype)
        return output.to(hidden)

    def _await(self) -> None:
        """Wait until every call has its answer, or its device is given up."""
        wait_s = self._timeout_s
        look_s = time.monotonic() + wait_s
        while waiting := [call for call in self._calls.values() if call.done is None]:
            until_s = min(look_s, *(call.deadline_s for call in waiting))
            if self.socket.poll(max(0, int((until_s - time.monotonic()) * 1e3) + 1)):
                self._receive()
                continue
            now = time.monotonic()
            for call in waiting:
                if call.deadline_s <= now:
                    self._lose(call.device, "timeout")
                elif look_s <= now and self._is_gone(call.device):
                    self._lose(call.device, "unreachable")
            if look_s <= now:
                wait_s *= 2  # a beat takes time on the air, too
                look_s = now + wait_s

    def _is_gone(self, q: int) -> bool:
        """Return whether a device that is silent while it computes has lost its connection."""
        try:
            beat = wire.encode(wire.Beat())
            self.socket.send_multipart([f"device-{q}".encode(), *beat], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            return error.errno == zmq.EHOSTUNREACH
        return False

    def _receive(self) -> None:
        frames = self.socket.recv_multipart(copy=False)
        now = time.monotonic()
        q = self._devices.number(frames[0])
        try:
            if q is None:
                raise wire.WireError("identity", "a sender that is no device of this stack")
            message = wire.decode([frame.buffer for frame in frames[1:]])
        except wire.WireError as error:
            self._metrics.refused_messages_total.labels(error.reason).inc()
            return
        device = self._devices.devices[q]
        device.last_seen_s = now
        if isinstance(message, wire.Done | wire.Failed):
            device.due_s = 0.0
        if isinstance(message, wire.Hello):
            self._try_send(q, wire.encode(self._devices.introduce(q, message)))
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
            call = self._calls.get(message.id)
            if call is not None and call.device == q and call.done is None:
                self._calls.pop(message.id).ended_s = now
        elif not isinstance(message, wire.Beat):
            self._metrics.refused_messages_total.labels("kind").inc()

    def _finish(self, q: int, done: wire.Done, now: float, size: int) -> None:
        """Accept the answer to a call that is still awaited; count and ignore any other."""
        call = self._calls.get(done.id)
        if call is None or call.device != q or call.done is not None:
            self._metrics.refused_messages_total.labels("late").inc()
            return
        output = done.y.tensor()
        fits = output.shape == (len(call.rows), self._hidden_size)
        done = align_clock(done, call.sent_s, now)
        at_device = (done.received_s, done.started_s, done.finished_s, done.sent_s)
        times = (call.sent_s, *at_device, now)
        call.ended_s = now
        if not fits or not bool(torch.isfinite(output).all()) or sorted(times) != list(times):
            self._metrics.refused_messages_total.labels("answer").inc()
            del self._calls[done.id]
            return
        call.done, call.output, call.answer_bytes = done, output, size
        self._patience.learn(q, len(call.rows), done.finished_s - done.started_s, now)

    def _lose(self, q: int, why: str) -> None:
        """Give up a device and its unanswered calls."""
        self._devices.lose(q, why)
        owed = [i for i, call in self._calls.items() if call.device == q and call.done is None]
        for i in owed:
            self._calls.pop(i).ended_s = time.monotonic()

    def _try_send(self, q: int, frames: Sequence[wire.Buffer]) -> bool:
        try:
            self.socket.send_multipart([f"device-{q}".encode(), *frames], zmq.NOBLOCK)
        except zmq.ZMQError:  # EHOSTUNREACH: no such connection; EAGAIN: its queue is full
            return False
        return True


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the rows of all parts, on the CPU."""
    return (parts[0] if len(parts) == 1 else torch.cat(list(parts))).cpu()
