"""A base station in this process and one process per device, over loopback.

Without airtime, the cost of the software itself is visible. Policies take the links' rates into
account, but the rates are not applied.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
import zmq
from prometheus_client import disable_created_metrics

from orchestrator.contracts.channel_state import PolicyState
from orchestrator.metrics import BsMetrics, device_metrics
from orchestrator.moe.checkpoint import Checkpoint
from orchestrator.process.build import describe
from orchestrator.radio import profiles
from services import settings
from services.bs.build import build, open_router
from services.bs.engine.request import End, Event, Failure, Request
from services.bs.engine.sampling import Sampling
from services.device import http
from services.device.expert_server import DeviceServer
from services.device.experts import Experts
from services.net import wire
from services.net.channel_feed import ChannelFeed

PROMPT = 4
CONF = replace(settings.load(), curve=False, orchestrator_host="127.0.0.1")
NEAR_FAR = profiles.find("near-far").state(
    epoch=1, interval=0, apply_at_s=0.0, policy=PolicyState()
)
# The channel states that devices can emulate.
CHANNELS = {"near-far": NEAR_FAR, "nothing": replace(NEAR_FAR, emulate=None)}


class BaseStation:
    """Router, dispatcher and engine; devices connect to `port`."""

    def __init__(self, checkpoint: Checkpoint, metrics: BsMetrics) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        router = open_router(context, CONF)
        self.port = router.bind_to_random_port("tcp://127.0.0.1")
        self.feed = ChannelFeed(CONF, "bs", lambda _: None, context)
        station = build(
            CONF, checkpoint, context=context, router=router, channel=self.feed, metrics=metrics
        )
        self.devices, self.layer_metrics = station.devices, station.layer_metrics
        trunk = station.trunk()
        self._words = trunk.words
        self._engine = station.engine(trunk, lambda ids: "x" * len(ids), frozenset(), 1 << 30)
        self._engine.start()

    def serve(self, clients: int, tokens: int, seed: int) -> float:
        """Serve a request per client in parallel, of `tokens` tokens each; return the time [s]."""
        draw = np.random.default_rng(seed)
        ended: SimpleQueue[End | Failure] = SimpleQueue()

        def deliver(event: Event) -> None:
            if isinstance(event, End | Failure):
                ended.put(event)

        prompts = draw.integers(0, self._words, (clients, PROMPT)).tolist()
        sampling = Sampling(temperature=2.0, seed=seed)
        began_s = time.monotonic()
        for prompt in prompts:
            self._engine.submit(Request("r", [prompt], tokens, sampling, (), deliver))
        for _ in prompts:
            last = ended.get()
            assert not isinstance(last, Failure), last.message
        return time.monotonic() - began_s


class _NoLink:
    """The link of an unshaped loopback: it never has a fault."""

    faults = 0

    def fault(self) -> str | None:
        """Return None: there is no fault."""
        return None


def serve_device(q: int, emulated: Any, bases: list[int], port: int) -> None:
    """Run device q: one server for each base station, and one /metrics for all of them."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as docker-compose.yml does
    torch.set_num_threads(1)
    sys.setswitchinterval(0.0001)
    checkpoint = Checkpoint(CONF.model_dir)
    experts = Experts(checkpoint, q, CONF.torch_device, CONF.compute_dtype)
    info = checkpoint.info
    held = (q, info.layers, info.hidden_size)
    hello = wire.Hello(wire.PROTOCOL, q, checkpoint.fingerprint, *held, describe().device_line)
    metrics = device_metrics()
    for direction in ("down", "up"):
        metrics.link_applied_rate_bps.labels(direction).set(1e6)
        metrics.link_queue_backlog_bytes.labels(direction).set(0)
        metrics.link_queue_drops_total.labels(direction)
    http.serve(lambda: http.Health(q, admitted=True, backend="none", link_fault=None), port)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    servers = []
    for base in bases:
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.IDENTITY, f"device-{q}".encode())
        dealer.connect(f"tcp://127.0.0.1:{base}")
        server = DeviceServer(
            dealer, hello, experts, lambda: list(CHANNELS.values())[emulated.value], _NoLink()
        )
        servers.append(threading.Thread(target=server.run))
        servers[-1].start()
    for thread in servers:
        thread.join()
