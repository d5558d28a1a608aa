"""What metrics cost: `python -m benchmarks.metrics [ROUNDS]`, or `make bench`. Needs no stack.

The bundled model on a base station in this process, with a process for each device, over loopback:
no air hides what metrics take. The same requests are served twice a round, in turns first: by an
engine that counts, while another process reads the base station's and all devices' /metrics every
2 s; and by an engine whose metrics do nothing, while nobody reads. Prints a Markdown table: tokens
made a second each way, and what is lost, the median over rounds with its 95 % interval.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
import threading
import time
from dataclasses import fields, replace
from multiprocessing.synchronize import Event as Flag
from typing import Any

import httpx
import numpy as np
import torch
import uvicorn
import zmq
from fastapi import FastAPI, Response
from prometheus_client import REGISTRY, disable_created_metrics, generate_latest
from scipy.stats import bootstrap

from orchestrator import profiles
from orchestrator.checkpoint import Checkpoint
from orchestrator.metrics import BsMetrics, bs_metrics, device_metrics
from orchestrator.state import PolicyState
from services import settings, wire
from services.bs.accounting import Accounting
from services.bs.dispatch import Dispatcher
from services.bs.engine import Engine
from services.bs.estimate import LatencyEstimate
from services.bs.policies import Policies
from services.bs.prober import Prober
from services.bs.requests import End, Event, Failure, Request
from services.bs.roster import Roster
from services.bs.selector import Selector
from services.bs.trunk import Trunk
from services.channel import ChannelFeed
from services.device import http
from services.device.experts import Experts
from services.device.server import DeviceServer

ROUNDS = 30
# As Prometheus is told to in services/prometheus/prometheus.yml.
SCRAPE_S = 2.0
# What one engine serves before the other's turn: as long as from one scrape to the next.
TURN_S = SCRAPE_S
PROMPT = 4
CONF = replace(settings.load(), curve=False, orchestrator_host="127.0.0.1")
NEAR_FAR = profiles.find("near-far").state(
    epoch=1, interval=0, apply_at_s=0.0, policy=PolicyState()
)
# What devices emulate, and to how many clients. Links' rates are weighed, but not applied.
CHANNELS = {"near-far": NEAR_FAR, "nothing": replace(NEAR_FAR, emulate=None)}
LOADS = (("near-far", 1), ("near-far", 8), ("nothing", 1))
COLUMNS = ("emulated", "clients", "rounds", "without", "with", "lost", "95 %")


class Nothing:
    """A metric that does nothing, whatever is asked of it."""

    def __getattr__(self, name: str) -> Nothing:
        return self

    def __call__(self, *_: Any) -> Nothing:
        """Nothing either."""
        return self


class BaseStation:
    """Router, dispatcher and engine; its devices are to connect to `port`."""

    def __init__(self, checkpoint: Checkpoint, metrics: BsMetrics) -> None:
        info = checkpoint.info
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.port = router.bind_to_random_port("tcp://127.0.0.1")
        self.feed = feed = ChannelFeed(CONF, "bs", lambda _: None, context)
        self.roster = Roster(CONF, info, checkpoint.fingerprint, metrics)
        estimate = LatencyEstimate(info, CONF.wire_dtype)
        accounting = Accounting(metrics, estimate, info)
        if isinstance(metrics.kappa, Nothing):
            accounting._worth = Nothing()  # type: ignore[assignment]  # nor is it computed
        dispatcher = Dispatcher(router, CONF, info, self.roster, feed, metrics, accounting)
        selector = Selector(self.roster, feed, estimate)
        trunk = Trunk(checkpoint, selector, dispatcher, CONF.torch_device, CONF.compute_dtype)
        self._words = trunk.words
        self._engine = Engine(
            *(trunk, dispatcher, Prober(dispatcher, feed, curve=False), feed),
            Policies(info, CONF.torch_device, metrics),
            decode=lambda ids: "x" * len(ids),
            end_tokens=frozenset(),
            metrics=metrics,
            context=context,
        )
        self._engine.start()

    def serve(self, clients: int, tokens: int, seed: int) -> float:
        """So many requests side by side, of so many tokens each; how long they take [s]."""
        draw = np.random.default_rng(seed)
        done = threading.Semaphore(0)

        def deliver(event: Event) -> None:
            assert not isinstance(event, Failure), event.message
            if isinstance(event, End):
                done.release()

        prompts = draw.integers(0, self._words, (clients, PROMPT)).tolist()
        began_s = time.monotonic()
        for prompt in prompts:
            self._engine.submit(Request("r", [prompt], tokens, 2.0, seed, (), deliver))
        for _ in prompts:
            done.acquire()
        return time.monotonic() - began_s


def serve_device(q: int, emulated: Any, bases: list[int], port: int) -> None:
    """Device q's process: for each base station a server, and /metrics for both."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as docker-compose.yml does
    torch.set_num_threads(1)
    sys.setswitchinterval(0.0001)
    checkpoint = Checkpoint(CONF.model_dir)
    experts = Experts(checkpoint, q, CONF.torch_device, CONF.compute_dtype)
    info = checkpoint.info
    hello = wire.Hello(wire.PROTOCOL, q, checkpoint.fingerprint, q, info.layers, info.hidden_size)
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
            dealer, hello, experts, lambda: list(CHANNELS.values())[emulated.value]
        )
        servers.append(threading.Thread(target=server.run))
        servers[-1].start()
    for thread in servers:
        thread.join()


def scrape(ports: list[int], wanted: Flag) -> None:
    """The scraper's process: all of them, every SCRAPE_S, while it is wanted."""
    with httpx.Client(trust_env=False) as client:
        while True:
            wanted.wait()
            next_s = time.monotonic() + SCRAPE_S
            for port in ports:
                client.get(f"http://127.0.0.1:{port}/metrics").raise_for_status()
            while wanted.is_set() and time.monotonic() < next_s:
                time.sleep(0.01)


def serve_metrics(port: int) -> None:
    """The base station's /metrics, as its own application serves it."""
    app = FastAPI()

    @app.get("/metrics")
    async def _metrics() -> Response:
        return Response(generate_latest(REGISTRY))

    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


class Cell:
    """Two base stations, with metrics and without, their devices, and who reads the metrics."""

    def __init__(self) -> None:
        checkpoint = Checkpoint(CONF.model_dir)
        nothing: dict[str, Any] = {field.name: Nothing() for field in fields(BsMetrics)}
        self.bases = [BaseStation(checkpoint, m) for m in (bs_metrics(), BsMetrics(**nothing))]
        ports = free_ports(1 + CONF.devices)
        serve_metrics(ports[0])
        spawn = multiprocessing.get_context("spawn")
        self.scraped = spawn.Event()
        self._emulated = spawn.Value("i", 0)
        addresses = [base.port for base in self.bases]
        for q in range(CONF.devices):
            arguments = (q, self._emulated, addresses, ports[1 + q])
            spawn.Process(target=serve_device, args=arguments, daemon=True).start()
        spawn.Process(target=scrape, args=(ports, self.scraped), daemon=True).start()
        while not all(device.admitted for base in self.bases for device in base.roster.devices):
            time.sleep(0.1)

    def emulate(self, name: str) -> None:
        """Have the devices emulate what one of CHANNELS says."""
        self._emulated.value = list(CHANNELS).index(name)
        for base in self.bases:
            base.feed.announced.append(CHANNELS[name])

    def turn(self, with_metrics: bool, clients: int, tokens: int, seed: int) -> float:
        """Tokens made a second by one of the base stations."""
        if with_metrics:
            self.scraped.set()
        took_s = self.bases[not with_metrics].serve(clients, tokens, seed)
        self.scraped.clear()
        return clients * tokens / took_s


def measure(cell: Cell, name: str, clients: int, rounds: int) -> str:
    """One line of the table."""
    cell.emulate(name)
    rate = [cell.turn(on, clients, 32, 0) for on in (True, False, True, False)][-1]
    tokens = max(1, round(rate * TURN_S / clients))
    found = np.empty((rounds, 2))
    for number in range(rounds):
        for on in (True, False) if number % 2 else (False, True):
            found[number, int(on)] = cell.turn(on, clients, tokens, number)
    without, with_metrics = np.median(found, axis=0)
    lost = 100 * (1 - found[:, 1] / found[:, 0])
    within = bootstrap((lost,), np.median, rng=1).confidence_interval
    return (
        f"| {name} | {clients} | {rounds} | {without:.1f} | {with_metrics:.1f} "
        f"| {np.median(lost):+.2f} % | {within.low:+.2f} … {within.high:+.2f} % |"
    )


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as docker-compose.yml does
    cell = Cell()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, clients in LOADS:
        print(measure(cell, name, clients, rounds), flush=True)
    print(f"\nTokens made a second, in turns of {TURN_S:g} s.")
    for process in multiprocessing.active_children():
        process.kill()
    sys.stdout.flush()
    os._exit(0)  # engines have no end


if __name__ == "__main__":
    main()
