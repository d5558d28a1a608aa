"""A base station's dispatcher with device servers, over real sockets, of a tiny checkpoint."""

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
from orchestrator.metrics import BsMetrics, bs_metrics
from orchestrator.moe.checkpoint import Checkpoint
from services import settings
from services.bs.batch.attention import KvCache
from services.bs.batch.batch import Segment
from services.bs.batch.request_context import RequestContext, generator
from services.bs.engine.trunk import Trunk
from services.bs.experts.devices import Devices
from services.bs.experts.dispatcher import Dispatcher
from services.bs.experts.latency_estimator import LatencyEstimator
from services.bs.experts.layer_metrics import LayerMetrics
from services.bs.experts.selector import Selector
from services.device.expert_server import DeviceServer
from services.device.experts import Experts
from services.net import wire
from services.net.channel_feed import ChannelFeed

CPU = torch.device("cpu")
# Small enough to save and load in a moment; large enough for every layout.
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
    """A channel feed whose state the test sets, or puts into `announced`."""

    state: ChannelState | None = None

    def take_in(self) -> None:
        """Hear nothing: no orchestrator runs in these tests."""

    def current(self) -> ChannelState | None:
        return self.state or super().current()


@dataclass
class Link:
    """A device's link, which a test breaks and mends."""

    faults: int = 0
    reason: str | None = None

    def fault(self) -> str | None:
        return self.reason


@dataclass
class Cell:
    """A base station and its devices."""

    checkpoint: Checkpoint
    dispatcher: Dispatcher
    selector: Selector
    roster: Devices
    channel: Channel
    registry: CollectorRegistry
    metrics: BsMetrics
    context: Any
    port: int
    links: dict[int, Link] = field(default_factory=lambda: defaultdict(Link))
    served: list[tuple[int, threading.Thread]] = field(default_factory=list)

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
        """A real device, served in the background."""
        experts = make(self.checkpoint, q, CPU, torch.float32)
        socket = self.socket(q)
        server = DeviceServer(socket, self.hello(q), experts, self.channel.current, self.links[q])
        thread = threading.Thread(target=_serve, args=[server, socket], daemon=True)
        thread.start()
        self.served.append((q, thread))

    def end_devices(self) -> None:
        """Have the devices' threads close their sockets; in the thread of the dispatcher's."""
        for q, thread in self.served:
            ended = [f"device-{q}".encode(), *wire.encode(wire.Refused("test has ended"))]
            with contextlib.suppress(zmq.ZMQError):  # one that has not connected yet
                self.dispatcher.socket.send_multipart(ended, zmq.NOBLOCK)
                thread.join(1)
        self.served.clear()

    def end(self) -> None:
        """Close all sockets."""
        self.end_devices()
        self.context.destroy(linger=0)

    def say(self, socket: Any, message: wire.Message) -> wire.Message:
        """Send as a device, let the base station read, and return its answer."""
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
            if all(self.roster.devices[q].admitted for q in devices):
                return
            self.dispatcher.socket.poll(50)
        raise AssertionError("not admitted")

    def start_all(self) -> None:
        """Every device, admitted."""
        everyone = range(self.checkpoint.info.experts)
        for q in everyone:
            self.start(q)
        self.admit(*everyone)

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def part(
    ids: list[int], cache: KvCache, served: RequestContext, wanted: int | None = None
) -> Segment:
    """Tokens of a step, with the logits of all of them unless it is said of how many."""
    return Segment(
        ids, cache, served, generator([1, 2, 3], CPU), len(ids) if wanted is None else wanted
    )


def forward(split: Trunk, ids: list[int], cache: KvCache, served: RequestContext) -> torch.Tensor:
    """A step of one sequence; the logits of all of its tokens."""
    only = part(ids, cache, served)
    split.forward([only])
    return only.logits


def trunk(cell: Cell) -> Trunk:
    return Trunk(cell.checkpoint, cell.selector, cell.dispatcher, CPU, torch.float32)


def emulating(flops: float, rate_bps: float | None = None) -> ChannelState:
    link = Direction(rate_bps=rate_bps)
    device = DeviceState(down=link, up=link, flops=flops)
    emulate = Emulation(hidden_size=4096, intermediate_size=14336, bits_per_element=16)
    return ChannelState(1, 0, 0.0, "test", "0" * 64, (device,) * EXPERTS, emulate)


def _serve(server: DeviceServer, socket: Any) -> None:
    with contextlib.suppress(zmq.ZMQError, InputError):  # the test has ended
        server.run()
    socket.close(linger=0)


def _unheard(error: ValueError) -> None:
    raise AssertionError(f"nothing is announced in these tests: {error}")


@pytest.fixture
def cell(checkpoint: Checkpoint) -> Iterator[Cell]:
    with around(checkpoint) as made:
        yield made


@contextlib.contextmanager
def around(checkpoint: Checkpoint) -> Iterator[Cell]:
    """A base station for a checkpoint; its devices are the test's to start."""
    devices = checkpoint.info.experts
    conf = replace(
        settings.load(), curve=False, devices=devices, wire_dtype="fp32", device_timeout_s=1.5
    )
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.ROUTER_HANDOVER, 1)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    registry = CollectorRegistry()
    metrics = bs_metrics(registry)
    local = replace(conf, orchestrator_host="127.0.0.1")  # where nobody answers
    channel = Channel(local, "bs", _unheard, context)
    roster = Devices(conf, checkpoint.info, checkpoint.fingerprint, metrics)
    estimate = LatencyEstimator(checkpoint.info, conf.wire_dtype)
    accounting = LayerMetrics(metrics, estimate, checkpoint.info)
    dispatcher = Dispatcher(router, conf, checkpoint.info, roster, channel, metrics, accounting)
    selector = Selector(roster, channel, estimate)
    made = Cell(checkpoint, dispatcher, selector, roster, channel, registry, metrics, context, port)
    try:
        yield made
    finally:
        made.end()
