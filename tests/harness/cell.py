"""A base station's dispatcher and its device servers over real sockets, with a tiny checkpoint."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import zmq
from prometheus_client import CollectorRegistry
from transformers import MixtralConfig, MixtralForCausalLM

from orchestrator.contracts.channel_state import ChannelState, DeviceState, Direction, Emulation
from orchestrator.errors import InputError
from orchestrator.metrics import bs_metrics
from orchestrator.moe.checkpoint import Checkpoint
from services import settings
from services.bs.batch.attention import KvCache
from services.bs.batch.batch import Segment
from services.bs.batch.request_context import RequestContext, generator
from services.bs.build import BaseStation, build, open_router
from services.bs.engine.trunk import Trunk
from services.device.expert_server import DeviceServer
from services.device.experts import Experts
from services.net import wire
from services.net.channel_feed import ChannelFeed

CPU = torch.device("cpu")
# Small enough to save and load quickly; large enough for every layout.
TINY = MixtralConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
    num_local_experts=4,
)
EXPERTS = int(TINY.num_local_experts)
ROOM = 200  # positions of a cache
ROOM = 200  # positions of a cache


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("model")
    MixtralForCausalLM(TINY).save_pretrained(folder)
    return Checkpoint(folder)


class Channel(ChannelFeed):
    """A channel feed whose state is set by the test, or announced through `announced`."""

    state: ChannelState | None = None

    def take_in(self) -> None:
        """Receive nothing: no orchestrator runs in these tests."""

    def current(self) -> ChannelState | None:
        return self.state or super().current()


@dataclass
class Link:
    """A device's link, which a test can break and repair."""

    faults: int = 0
    reason: str | None = None

    def fault(self) -> str | None:
        return self.reason


@dataclass
class Cell:
    """A base station and its devices."""

    station: BaseStation
    channel: Channel
    registry: CollectorRegistry
    port: int
    links: dict[int, Link] = field(default_factory=lambda: defaultdict(Link))
    served: list[tuple[int, threading.Thread]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.checkpoint = self.station.checkpoint
        self.dispatcher = self.station.dispatcher
        self.selector = self.station.selector
        self.devices = self.station.devices
        self.context = self.station.context

    def socket(self, q: int) -> Any:
        dealer = self.context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.IDENTITY, f"device-{q}".encode())
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"tcp://127.0.0.1:{self.port}")
        return dealer

    def hello(self, q: int) -> wire.Hello:
        info = self.checkpoint.info
        fingerprint = self.checkpoint.fingerprint
        shape = (info.layers, info.hidden_size)
        return wire.Hello(wire.PROTOCOL, q, fingerprint, q, *shape, "source ab12")

    def start(self, q: int, make: type[Experts] = Experts) -> None:
        """Start a real device in a background thread."""
        experts = make(self.checkpoint, q, CPU, torch.float32)
        socket = self.socket(q)
        server = DeviceServer(socket, self.hello(q), experts, self.channel.current, self.links[q])
        thread = threading.Thread(target=_serve, args=[server, socket], daemon=True)
        thread.start()
        self.served.append((q, thread))

    def end_devices(self) -> None:
        """Make the devices' threads close their sockets; call it from the dispatcher's thread."""
        for q, thread in self.served:
            ended = [f"device-{q}".encode(), *wire.encode(wire.Refused("test has ended"))]
            with contextlib.suppress(zmq.ZMQError):  # a device that has not connected yet
                self.dispatcher.socket.send_multipart(ended, zmq.NOBLOCK)
                thread.join(1)
        self.served.clear()

    def end(self) -> None:
        """Close all sockets."""
        self.end_devices()
        self.context.destroy(linger=0)

    def say(self, socket: Any, message: wire.Message) -> wire.Message:
        """Send a message as a device, and return the base station's answer."""
        socket.send_multipart(wire.encode(message))
        return self.answer(socket)

    def answer(self, socket: Any) -> wire.Message:
        for _ in range(100):
            self.dispatcher.take_in()
            if socket.poll(20):
                return wire.decode(socket.recv_multipart())
        raise AssertionError("no answer")

    def admit(self, *devices: int) -> None:
        for _ in range(200):
            self.dispatcher.take_in()
            if all(self.devices.devices[q].admitted for q in devices):
                return
            self.dispatcher.socket.poll(50)
        raise AssertionError("not admitted")

    def start_all(self) -> None:
        """Start every device, and wait until all are admitted."""
        numbers = range(self.checkpoint.info.experts)
        for q in numbers:
            self.start(q)
        self.admit(*numbers)

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def part(
    ids: list[int], cache: KvCache, served: RequestContext, wanted: int | None = None
) -> Segment:
    """Return a segment of a step; `wanted` is how many of its tokens need logits, None: all."""
    return Segment(
        ids, cache, served, generator([1, 2, 3], CPU), len(ids) if wanted is None else wanted
    )


def forward(split: Trunk, ids: list[int], cache: KvCache, served: RequestContext) -> torch.Tensor:
    """Run a step of one sequence, and return the logits of all its tokens."""
    segment = part(ids, cache, served)
    split.forward([segment])
    return segment.logits


def emulating(flops: float, rate_bps: float | None = None) -> ChannelState:
    link = Direction(rate_bps=rate_bps)
    device = DeviceState(down=link, up=link, flops=flops)
    emulate = Emulation(hidden_size=4096, intermediate_size=14336, bits_per_element=16)
    return ChannelState(1, 0, 0.0, "test", "0" * 64, (device,) * EXPERTS, emulate)


def _serve(server: DeviceServer, socket: Any) -> None:
    with contextlib.suppress(zmq.ZMQError, InputError):  # the test has ended
        server.run()
    socket.close(linger=0)


def _refuse(error: ValueError) -> None:
    raise AssertionError(f"nothing is announced in these tests: {error}")


@pytest.fixture
def cell(checkpoint: Checkpoint) -> Iterator[Cell]:
    with around(checkpoint) as made:
        yield made


@contextlib.contextmanager
def around(checkpoint: Checkpoint) -> Iterator[Cell]:
    """Yield a base station for a checkpoint; the test starts its devices."""
    devices = checkpoint.info.experts
    conf = replace(
        settings.load(), curve=False, devices=devices, wire_dtype="fp32", device_timeout_s=1.5
    )
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = open_router(context, conf)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    registry = CollectorRegistry()
    metrics = bs_metrics(registry)
    local = replace(conf, orchestrator_host="127.0.0.1")  # where no orchestrator listens
    channel = Channel(local, "bs", _refuse, context)
    station = build(
        conf, checkpoint, context=context, router=router, channel=channel, metrics=metrics
    )
    made = Cell(station, channel, registry, port)
    try:
        yield made
    finally:
        made.end()
