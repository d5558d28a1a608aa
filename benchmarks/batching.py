"""Measure what batching gains: `python -m benchmarks.batching [SECONDS]`, or `make bench`.

Needs a running stack; its profile and policy are restored afterwards. One client, and then CLIENTS
in parallel, send one completion request after another for SECONDS (default: 20) over the same
links:

    equal links   20 Mbit/s both ways to every device, no emulation
    near-far      as bundled: message sizes and compute times of Mixtral 8x7B

Prints a Markdown table: tokens per second of all clients, and their ratio to those of one client. A
device with emulated compute takes n times as long for n tokens, so batching does not save that
time.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.links import DEVICES, wdmoe
from orchestrator.cli import common
from orchestrator.cli.common import bs_url
from orchestrator.client.applied import wait_applied
from orchestrator.client.client import Client
from orchestrator.client.restore import restored
from orchestrator.radio import profiles

CLIENTS = 8
SECONDS = 20.0
PROMPT = 4
MAX_TOKENS = 48
RATE_BPS = 20e6
RADIO = ("downlink", "wait", "compute", "uplink")
PATIENCE_S = 300.0
COLUMNS = (
    *("links", "clients", "tokens/s", "ratio", "tokens", "sequences", "messages"),
    *("radio", "Eq. 6, 7"),
)


@dataclass(frozen=True)
class Load:
    """The result for a number of clients: tokens per second, and means over their requests."""

    clients: int
    tokens_per_s: float
    tokens: float
    batch: float
    messages: float
    radio_s: float
    equations_s: float


def completion(http: httpx.Client, seed: int, words: int) -> dict[str, Any]:
    """Return the timings of one completion.

    Tokens are sampled at a high temperature, so that the completion does not end after a few.
    """
    draw = random.Random(seed)
    body = {
        "prompt": [draw.randrange(words) for _ in range(PROMPT)],
        "max_tokens": MAX_TOKENS,
        "seed": seed,
        "temperature": 2.0,
        "timings": True,
    }
    answer = http.post("/v1/completions", json=body).raise_for_status().json()
    return answer["timings"]  # type: ignore[no-any-return]


def load(clients: int, seconds: float, words: int, layers: int) -> Load:
    """Run the clients for `seconds`; only completions that end within that time count."""
    deadline_s = time.monotonic() + seconds

    def client(number: int) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = []
        while True:
            timings = completion(http, number + clients * len(requests), words)
            if time.monotonic() > deadline_s:
                return requests
            requests.append(timings)

    with (
        httpx.Client(base_url=bs_url(), timeout=PATIENCE_S, trust_env=False) as http,
        ThreadPoolExecutor(clients) as pool,
    ):
        requests = [timings for served in pool.map(client, range(clients)) for timings in served]
    tokens = np.array([timings["completion_tokens"] for timings in requests])
    radio = [sum(timings[f"{part}_s"] for part in RADIO) for timings in requests]
    return Load(
        clients=clients,
        tokens_per_s=float(tokens.sum() / seconds),
        tokens=float(tokens.mean()),
        batch=float(np.mean([timings["batch"] for timings in requests])),
        messages=float(
            np.mean([timings["device_messages"] for timings in requests] / tokens / layers)
        ),
        radio_s=float(np.mean(radio / tokens / layers)),
        equations_s=float(
            np.mean([timings["batched_s"] for timings in requests] / tokens / layers)
        ),
    )


@contextmanager
def equal_links() -> Iterator[str]:
    """Yield the path of a profile with equal links."""
    link = {"down": {"rate_bps": RATE_BPS}, "up": {"rate_bps": RATE_BPS}}
    spec = {"description": "equal links", "fading": {"kind": "none"}, "devices": [link] * DEVICES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "equal-links.yaml"
        path.write_text(json.dumps(spec))
        yield str(path)


def use(client: Client, profile: str) -> None:
    """Put a profile into force, and wait until every device has applied it."""
    wait_applied(client, client.use_profile(profiles.find(profile)), range(DEVICES))


def main() -> None:
    """Measure, and print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with common.client() as client, restored(client):
        model = client.health().model
        words, layers = model.vocab_size, model.layers
        wdmoe("policy", "use", "topk")
        with equal_links() as equal:
            for name, profile in (("equal links", equal), ("near-far", "near-far")):
                use(client, profile)
                load(CLIENTS, 2.0, words, layers)
                alone = load(1, seconds, words, layers)
                for run in (alone, load(CLIENTS, seconds, words, layers)):
                    print(row(name, run, alone), flush=True)
    print(f"\n{seconds:g} s each, prompts of {PROMPT} tokens, up to {MAX_TOKENS} sampled. Means:")
    print("tokens per request, sequences per step, messages per layer, a layer's time on radio and")
    print("devices [ms], and the time that Eq. 6 and 7 give for the same messages [ms].")


def row(name: str, run: Load, alone: Load) -> str:
    """Return run line of the table."""
    return (
        f"| {name} | {run.clients} | {run.tokens_per_s:.1f} "
        f"| {run.tokens_per_s / alone.tokens_per_s:.2f} | {run.tokens:.0f} | {run.batch:.1f} "
        f"| {run.messages:.1f} | {1e3 * run.radio_s:.1f} | {1e3 * run.equations_s:.1f} |"
    )


if __name__ == "__main__":
    main()
