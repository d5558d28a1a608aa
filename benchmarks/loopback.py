"""A base station in this process, a process for each device: over loopback, no air hides anything.

Links' rates are weighed by policies, but not applied.
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
from services.bs.engine.engine import Engine
from services.bs.engine.request import End, Event, Failure, Request
from services.bs.engine.sampling import Sampling
from services.bs.engine.trunk import Trunk
from services.bs.experts.devices import Devices
from services.bs.experts.dispatcher import Dispatcher
from services.bs.experts.latency_estimator import LatencyEstimator
from services.bs.experts.layer_metrics import LayerMetrics
from services.bs.experts.policy_in_force import PolicyInForce
from services.bs.experts.prober import Prober
from services.bs.experts.selector import Selector
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
# What devices emulate.
CHANNELS = {"near-far": NEAR_FAR, "nothing": replace(NEAR_FAR, emulate=None)}


class BaseStation:
    """Router, dispatcher and engine; its devices are to connect to `port`."""

    def __init__(self, checkpoint: Checkpoint, metrics: BsMetrics) -> None:
        info = checkpoint.info
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.port = router.bind_to_random_port("tcp://127.0.0.1")
        self.feed = feed = ChannelFeed(CONF, "bs", lambda _: None, context)
        self.roster = Devices(CONF, info, checkpoint.fingerprint, metrics)
        estimate = LatencyEstimator(info, CONF.wire_dtype)
        self.accounting = LayerMetrics(metrics, estimate, info)
        dispatcher = Dispatcher(router, CONF, info, self.roster, feed, metrics, self.accounting)
        selector = Selector(self.roster, feed, estimate)
        trunk = Trunk(checkpoint, selector, dispatcher, CONF.torch_device, CONF.compute_dtype)
        self._words = trunk.words
        self._engine = Engine(
            *(trunk, dispatcher, Prober(dispatcher, feed, curve=False), feed),
            PolicyInForce(info, CONF.torch_device, metrics),
            decode=lambda ids: "x" * len(ids),
            end_tokens=frozenset(),
            metrics=metrics,
            context=context,
            kv_bytes=1 << 30,
        )
        self._engine.start()

    def serve(self, clients: int, tokens: int, seed: int) -> float:
        """So many requests side by side, of so many tokens each; how long they take [s]."""
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
    """Loopback is not shaped, as it should not be."""

    faults = 0

    def fault(self) -> str | None:
        """There is none."""
        return None


def serve_device(q: int, emulated: Any, bases: list[int], port: int) -> None:
    """Device q's process: for each base station a server, and /metrics for both."""
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
    http.serve(lambda: (True, {}), port)
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
