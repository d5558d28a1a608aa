"""Measure what metrics cost: `python -m benchmarks.metrics`, or `make bench`. Needs no stack.

The bundled model runs on a base station in this process, with a process for each device, over
loopback, so that no airtime hides the cost of metrics. Each round serves the same requests twice,
in alternating order: once by an engine that counts, while another process reads the base station's
and all devices' /metrics every 2 s; and once by an engine whose metrics do nothing, without a
reader. Prints a Markdown table: tokens per second of both, and the loss, as the median over rounds
with its 95 % interval. That interval is wide on a host that has other work, so the last column
gives the additional CPU time of the base station's process, in ms per second of serving.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import threading
import time
from dataclasses import fields
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import REGISTRY, disable_created_metrics, generate_latest
from scipy.stats import bootstrap

from benchmarks.loopback import CHANNELS, CONF, BaseStation, serve_device
from orchestrator.metrics import BsMetrics, bs_metrics
from orchestrator.moe.checkpoint import Checkpoint

ROUNDS = 30
# The scrape interval of services/prometheus/prometheus.yml.
SCRAPE_S = 2.0
# How long one engine serves before it is the other's turn: one scrape interval.
TURN_S = SCRAPE_S
# What devices emulate, and the number of clients.
LOADS = (("near-far", 1), ("near-far", 8), ("nothing", 1))
COLUMNS = ("emulated", "clients", "rounds", "without", "with", "lost", "95 %", "CPU, ms/s")


class NullMetric:
    """A metric that accepts every call and does nothing."""

    def __getattr__(self, name: str) -> NullMetric:
        return self

    def __call__(self, *_: Any) -> NullMetric:
        """Return the metric itself, as `labels` does."""
        return self


def scrape(ports: list[int], enabled: Any) -> None:
    """Read /metrics on every port each SCRAPE_S while `enabled` is set; run in its own process."""
    with httpx.Client(trust_env=False) as client:
        while True:
            while not enabled.value:
                time.sleep(0.01)
            next_s = time.monotonic() + SCRAPE_S
            for port in ports:
                client.get(f"http://127.0.0.1:{port}/metrics").raise_for_status()
            while enabled.value and time.monotonic() < next_s:
                time.sleep(0.01)


def serve_metrics(port: int) -> None:
    """Serve the base station's /metrics as its own application does."""
    app = FastAPI()

    @app.get("/metrics")
    async def _metrics() -> Response:
        return Response(generate_latest(REGISTRY))

    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()


def free_ports(count: int) -> list[int]:
    """Return ports that no process listens on."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in taken]


class Cell:
    """Two base stations, with and without metrics, their devices, and the metrics' reader."""

    def __init__(self) -> None:
        checkpoint = Checkpoint(CONF.model_dir)
        nothing: dict[str, Any] = {field.name: NullMetric() for field in fields(BsMetrics)}
        self.bases = [BaseStation(checkpoint, m) for m in (bs_metrics(), BsMetrics(**nothing))]
        self.bases[1].layer_metrics.wlr = NullMetric()  # type: ignore[assignment]  # not computed either
        ports = free_ports(1 + CONF.devices)
        serve_metrics(ports[0])
        spawn = multiprocessing.get_context("spawn")
        self._scraped = spawn.Value("b", False)
        self._emulated = spawn.Value("i", 0)
        addresses = [base.port for base in self.bases]
        self._processes = [
            spawn.Process(
                target=serve_device, args=(q, self._emulated, addresses, port), daemon=True
            )
            for q, port in enumerate(ports[1:])
        ]
        scraper = spawn.Process(target=scrape, args=(ports, self._scraped), daemon=True)
        self._processes.append(scraper)
        for process in self._processes:
            process.start()
        while not all(device.admitted for base in self.bases for device in base.devices.devices):
            self.check()
            time.sleep(0.1)

    def check(self) -> None:
        """Raise unless devices and scraper are alive: without them the numbers mean nothing."""
        dead = [process.name for process in self._processes if not process.is_alive()]
        assert not dead, f"{', '.join(dead)} died"

    def end(self) -> None:
        """Kill the devices and the scraper."""
        for process in self._processes:
            process.kill()

    def emulate(self, name: str) -> None:
        """Let the devices emulate one of CHANNELS."""
        self._emulated.value = list(CHANNELS).index(name)
        for base in self.bases:
            base.feed.announced.append(CHANNELS[name])

    def turn(self, with_metrics: bool, clients: int, tokens: int, seed: int) -> tuple[float, float]:
        """Serve requests on one base station; return the elapsed time and the CPU time [s]."""
        self._scraped.value = with_metrics
        computed_s = time.process_time()
        took_s = self.bases[not with_metrics].serve(clients, tokens, seed)
        computed_s = time.process_time() - computed_s
        self._scraped.value = False
        self.check()
        return took_s, computed_s


def measure(cell: Cell, name: str, clients: int) -> str:
    """Measure one load; return its line of the table."""
    cell.emulate(name)
    warm_s = [cell.turn(on, clients, 32, 0)[0] for on in (True, False, True, False)][-1]
    tokens = max(1, round(32 / warm_s * TURN_S))
    seconds = np.empty((ROUNDS, 2, 2))  # without and with metrics; elapsed and CPU seconds
    for number in range(ROUNDS):
        for on in (True, False) if number % 2 else (False, True):
            seconds[number, int(on)] = cell.turn(on, clients, tokens, number)
    (off_s, off_cpu_s), (on_s, on_cpu_s) = seconds.transpose(1, 2, 0)
    lost = 100 * (1 - off_s / on_s)
    interval = bootstrap((lost,), np.median, rng=1).confidence_interval
    without, with_metrics = (clients * tokens / np.median(took_s) for took_s in (off_s, on_s))
    more = 1e3 * np.median((on_cpu_s - off_cpu_s) / off_s)
    return (
        f"| {name} | {clients} | {ROUNDS} | {without:.1f} | {with_metrics:.1f} "
        f"| {np.median(lost):+.2f} % | {interval.low:+.2f} … {interval.high:+.2f} % | {more:+.1f} |"
    )


def main() -> None:
    """Measure, and print the table."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as docker-compose.yml does
    cell = Cell()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, clients in LOADS:
        print(measure(cell, name, clients), flush=True)
    print(f"\nTokens per second, in turns of {TURN_S:g} s.")
    cell.end()


if __name__ == "__main__":
    main()
