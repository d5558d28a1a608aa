"""The devices of this stack, admitted by the model and expert that they report."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import zmq

from orchestrator.contracts import curve_keys
from orchestrator.contracts import http as contract
from orchestrator.contracts.channel_state import ChannelState
from orchestrator.metrics import BsMetrics
from orchestrator.moe.checkpoint import ModelInfo
from services.net import wire
from services.settings import Settings


@dataclass
class Device:
    """A device as the base station knows it; times by the monotonic clock.

    Attributes:
        refused: why it was not admitted.
        build: what it runs, as its Hello has it.
        due_s: until when it may compute silently; 0 while it has no work.
    """

    admitted: bool = False
    refused: str | None = None
    build: str | None = None
    last_seen_s: float = 0.0
    due_s: float = 0.0


class Devices:
    """The devices by number; device q holds expert q of every layer."""

    def __init__(
        self, settings: Settings, info: ModelInfo, fingerprint: str, metrics: BsMetrics
    ) -> None:
        self.devices = [Device() for _ in range(settings.devices)]
        self._curve = settings.curve
        self._info = info
        self._fingerprint = fingerprint
        self._metrics = metrics
        self._known: tuple[ChannelState | None, torch.Tensor] | None = None
        for q in range(settings.devices):
            metrics.device_up.labels(str(q)).set(0)

    def number(self, identity: zmq.Frame) -> int | None:
        """Return the sender's number if its identity and its key belong to a device, else None."""
        name = identity.bytes
        for q in range(len(self.devices)):
            if name == f"device-{q}".encode():
                return (
                    q if not self._curve or curve_keys.sender(identity) == f"device-{q}" else None
                )
        return None

    def reachable(self, channel: ChannelState | None) -> torch.Tensor:
        """Which experts can be used: admitted, and not in outage (bool vector of E).

        The same tensor again as long as nothing changes: every layer asks.
        """
        if self._known is not None and self._known[0] is channel:
            return self._known[1]
        reachable = torch.tensor(
            [
                device.admitted and (channel is None or channel.devices[q].reachable)
                for q, device in enumerate(self.devices)
            ]
        )
        self._known = channel, reachable
        return reachable

    def introduce(self, q: int, hello: wire.Hello) -> wire.Welcome | wire.Refused:
        """Admit a device if its Hello matches; else name the field that does not."""
        expected = wire.Hello(
            protocol=wire.PROTOCOL,
            device=q,
            fingerprint=self._fingerprint,
            expert=q,
            layers=self._info.layers,
            hidden_size=self._info.hidden_size,
            build=hello.build,  # any build
        )
        device = self.devices[q]
        device.build = hello.build
        device.refused = next(
            (
                f"{name} is {getattr(hello, name)!r}, the base station's model has {value!r}"
                for name, value in vars(expected).items()
                if getattr(hello, name) != value
            ),
            None,
        )
        self._admit(q, device.refused is None)
        if device.refused is None:
            return wire.Welcome()
        print(f"device-{q} refused: {device.refused}", flush=True)
        self._metrics.refused_messages_total.labels("hello").inc()
        return wire.Refused(device.refused)

    def lose(self, q: int, why: str) -> None:
        """Take a device out until its next Hello."""
        if self.devices[q].admitted:
            print(f"device-{q} lost: {why}", flush=True)
        self._admit(q, False)

    def describe(self) -> dict[str, contract.Device]:
        """Each device as `/healthz` reports it."""
        now_s = time.monotonic()
        return {
            str(q): contract.Device(
                admitted=device.admitted,
                refused=device.refused,
                build=device.build,
                last_seen_age_s=now_s - device.last_seen_s if device.last_seen_s else None,
            )
            for q, device in enumerate(self.devices)
        }

    def _admit(self, q: int, admitted: bool) -> None:
        self.devices[q].admitted = admitted
        self.devices[q].due_s = 0.0
        self._known = None
        self._metrics.device_up.labels(str(q)).set(int(admitted))
