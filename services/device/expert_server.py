"""The device's data plane: it sends Hello, then answers each piece of work with its expert.

DEALER ──► Work ──► [ expert of that layer ] ──► [ hold until n·L_comp/C_q has passed ] ──► Done

A device whose link does not match the state in force answers with Leave: its outputs would come too
early or too late.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import zmq

from orchestrator.contracts.channel_state import ChannelState
from orchestrator.errors import InputError
from services.device.experts import Experts
from services.net import wire
from services.settings import COMPUTE_NICENESS

BEAT_S = 0.5
_SPIN_S = 0.0001


class Link(Protocol):
    """The link's state that the server needs; LinkAgent provides it."""

    faults: int
    """The number of faults so far."""

    def fault(self) -> str | None:
        """Return why the link does not match the state in force; None if it does."""


class DeviceServer:
    """A server with one thread and one socket: each layer is one message and its answer."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        hello: wire.Hello,
        experts: Experts,
        channel: Callable[[], ChannelState | None],
        link: Link,
    ) -> None:
        """`channel` returns the state in force, which has the emulated speed."""
        self.admitted = False
        self._link = link
        self._faults = 0
        self._socket = socket
        self._hello = hello
        self._experts = experts
        self._channel = channel

    def run(self) -> None:
        """Serve until the base station refuses this device (InputError)."""
        os.nice(COMPUTE_NICENESS)
        while True:
            if self._socket.poll(int(BEAT_S * 1e3)):
                frames = self._socket.recv_multipart()
                self._handle(frames, time.monotonic())
            else:
                self._send(self._leave() or self._beat())

    def _handle(self, frames: Sequence[bytes], received_s: float) -> None:
        try:
            message = wire.decode(frames)
        except wire.WireError as error:
            print(f"message refused: {error}", flush=True)
            return
        if isinstance(message, wire.Work):
            answer = self._work(message, received_s)
            self._send(self._leave() or answer)
        elif isinstance(message, wire.Probe):
            probed = self._probed(message, received_s)
            self._send(self._leave() or probed)
        elif isinstance(message, wire.Welcome):
            self.admitted = True
        elif isinstance(message, wire.Identify):
            self.admitted = False
            self._send(self._leave() or self._beat())
        elif isinstance(message, wire.Refused):
            raise InputError(f"refused by the base station: its {message.reason}")

    def _leave(self) -> wire.Leave | None:
        """Return the message to send instead of any other if the link has a fault.

        Also if it had one since the device was admitted: what arrived may have come unshaped.
        """
        fault = self._link.fault()
        if fault is None and self.admitted and self._link.faults != self._faults:
            fault = "it was repaired"
        if fault is None:
            return None
        self.admitted = False
        return wire.Leave(f"link: {fault:.256}")

    def _beat(self) -> wire.Beat | wire.Hello:
        if self.admitted:
            return wire.Beat()
        self._faults = self._link.faults
        return self._hello

    def _probed(self, probe: wire.Probe, received_s: float) -> wire.Probed:
        pad = wire.padding(0, len(probe.pad))
        time.sleep(wire.PROBE_PAUSE_S)
        return wire.Probed(probe.id, pad, received_s, time.monotonic())

    def _work(self, work: wire.Work, received_s: float) -> wire.Done | wire.Failed:
        started_s = time.monotonic()
        if work.layer >= self._hello.layers or work.x.shape[1] != self._hello.hidden_size:
            return wire.Failed(work.id, f"no layer {work.layer} for inputs {work.x.shape}")
        output = self._experts(work.layer, work.x.tensor())
        y = wire.Payload.of(output, work.x.dtype)
        due_s = started_s + self._compute_s(work.x.shape[0])
        overrun = time.monotonic() > due_s > started_s
        wait_until(due_s, time.monotonic)
        finished_s = time.monotonic()
        return wire.Done(
            id=work.id,
            y=y,
            pad=wire.padding(0, len(work.pad)),
            received_s=received_s,
            started_s=started_s,
            finished_s=finished_s,
            sent_s=time.monotonic(),
            overrun=overrun,
        )

    def _compute_s(self, tokens: int) -> float:
        """n · L_comp / C_q of the emulated model (Eq. 4) [s]; 0 without emulation."""
        channel = self._channel()
        if channel is None or channel.emulate is None:
            return 0.0
        flops = channel.devices[self._hello.device].flops
        return 0.0 if flops is None else tokens * channel.emulate.flop_per_token / flops

    def _send(self, message: wire.Message) -> None:
        try:
            self._socket.send_multipart(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            self.admitted = False  # no base station at the other end: send Hello again


def wait_until(deadline_s: float, clock: Callable[[], float]) -> None:
    """Sleep, then spin until `clock` reaches the deadline: sleep alone is up to 0.1 ms late."""
    while (left := deadline_s - clock()) > 0:
        if left > _SPIN_S:
            time.sleep(left - _SPIN_S)
