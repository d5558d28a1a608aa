"""A control plane over real sockets, for tests to start and talk to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import zmq
from prometheus_client import CollectorRegistry

from orchestrator.contracts import channel_state, curve_keys
from orchestrator.contracts.channel_state import ChannelState
from orchestrator.control.plane import ControlPlane
from orchestrator.metrics import orchestrator_metrics
from orchestrator.radio import profiles
from orchestrator.radio.profiles import Profile

STILL = """\
description: two devices
fading: {kind: rayleigh}
devices: [{distance_m: 100, flops: 1e12}, {down: {}, up: {rate_bps: 5e6}}]
"""
FAST = STILL.replace("{kind: rayleigh}", "{kind: rayleigh, coherence_s: 0.05}")
DELAYED = STILL.replace("flops: 1e12", "extra_delay_s: 0.01")


def profile(text: str, name: str = "p") -> Profile:
    return profiles.parse(text, name, f"{name}.yaml")


@dataclass
class Stack:
    """A running control plane, with what its peers need to connect to it."""

    control: ControlPlane
    registry: CollectorRegistry
    context: zmq.Context[zmq.Socket[bytes]]
    keys_dir: Path | None

    def connect(self, kind: int, name: str) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        if self.keys_dir is not None:
            server = curve_keys.load_public(self.keys_dir, "orchestrator")
            curve_keys.curve_client(socket, curve_keys.load(self.keys_dir, name), server)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(self.control.endpoints[0 if kind == zmq.SUB else 1])
        return socket

    def metric(self, name: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@contextmanager
def running(text: str, keys_dir: Path | None) -> Iterator[Stack]:
    registry = CollectorRegistry()
    control = ControlPlane(
        profile(text),
        devices=2,
        metrics=orchestrator_metrics(registry),
        keys_dir=keys_dir,
        state_address="tcp://127.0.0.1:*",
        report_address="tcp://127.0.0.1:*",
    )
    context = zmq.Context()
    with control:
        yield Stack(control, registry, context, keys_dir)
        context.destroy(linger=0)


def hear(socket: zmq.Socket[bytes]) -> ChannelState:
    assert socket.poll(10_000), "no state arrived"
    return channel_state.decode(socket.recv())


def hear_epoch(socket: zmq.Socket[bytes], epoch: int) -> ChannelState:
    while (heard := hear(socket)).epoch != epoch:
        pass
    return heard


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "did not happen within 10 s"
        time.sleep(0.01)


QUEUE = {"packets": 9, "drops": 0, "overflows": 0, "backlog_bytes": 0}


def report(device: int = 0, **fields: Any) -> bytes:
    fields = {
        "v": 2,
        "device": device,
        "backend": "netem",
        "epoch": 1,
        "interval": 0,
        "apply_at_s": 1.0,
        "applied_at_s": 1.5,
        "error": None,
        "down": QUEUE,
        "up": QUEUE,
        **fields,
    }
    packed: bytes = msgpack.packb(fields)
    return packed
