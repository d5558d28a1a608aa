"""What serving side by side gains: `python -m benchmarks.batching [SECONDS]`, or `make bench`.

On a running stack; afterwards it has the profile and the policy that it had. One client, and then
CLIENTS at a time, ask one completion after another for SECONDS (default: 20), over the same links:

    equal links   20 Mbit/s both ways to every device, nothing emulated
    near-far      as bundled: messages and computing of Mixtral 8x7B

Prints a Markdown table: tokens made a second in all, and how many times those of one client. Where
computing is emulated a device takes n times as long for n tokens, and that is not shared.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.links import DEVICES, wdmoe
from orchestrator.cli.common import ask_bs, ask_orchestrator, bs_url, orchestrator_url
from orchestrator.client.client import Client
from orchestrator.client.restore import restored

CLIENTS = 8
SECONDS = 20.0
PROMPT = 4
MADE = 48
RATE_BPS = 20e6
RADIO = ("downlink", "wait", "compute", "uplink")
PATIENCE_S = 300.0
COLUMNS = (
    *("links", "clients", "tokens/s", "ratio", "tokens", "sequences", "messages"),
    *("radio", "Eq. 6, 7"),
)


@dataclass(frozen=True)
class Load:
    """What came of some clients: tokens a second, and means over their requests."""

    clients: int
    tokens_per_s: float
    tokens: float
    batch: float
    messages: float
    radio_s: float
    equations_s: float


def completion(http: httpx.Client, seed: int, words: int) -> dict[str, Any]:
    """The timings of one. Drawn, and hotly, lest it end after a few tokens."""
    draw = random.Random(seed)
    body = {
        "prompt": [draw.randrange(words) for _ in range(PROMPT)],
        "max_tokens": MADE,
        "seed": seed,
        "temperature": 2.0,
        "timings": True,
    }
    answer = http.post("/v1/completions", json=body).raise_for_status().json()
    return answer["timings"]  # type: ignore[no-any-return]


def load(clients: int, seconds: float, words: int, layers: int) -> Load:
    """Counted are the completions that have ended when the time is up."""
    until_s = time.monotonic() + seconds

    def client(number: int) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        while True:
            timings = completion(http, number + clients * len(told), words)
            if time.monotonic() > until_s:
                return told
            told.append(timings)

    with (
        httpx.Client(base_url=bs_url(), timeout=PATIENCE_S, trust_env=False) as http,
        ThreadPoolExecutor(clients) as pool,
    ):
        told = [timings for some in pool.map(client, range(clients)) for timings in some]
    made = np.array([timings["completion_tokens"] for timings in told])
    radio = [sum(timings[f"{part}_s"] for part in RADIO) for timings in told]
    return Load(
        clients=clients,
        tokens_per_s=float(made.sum() / seconds),
        tokens=float(made.mean()),
        batch=float(np.mean([timings["batch"] for timings in told])),
        messages=float(np.mean([timings["device_messages"] for timings in told] / made / layers)),
        radio_s=float(np.mean(radio / made / layers)),
        equations_s=float(np.mean([timings["batched_s"] for timings in told] / made / layers)),
    )


@contextmanager
def equal_links() -> Iterator[str]:
    """A profile's file."""
    link = {"down": {"rate_bps": RATE_BPS}, "up": {"rate_bps": RATE_BPS}}
    spec = {"description": "equal links", "fading": {"kind": "none"}, "devices": [link] * DEVICES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "equal-links.yaml"
        path.write_text(json.dumps(spec))
        yield str(path)


def use(profile: str) -> None:
    """Put a profile into force, and wait until every device has applied it."""
    epoch = wdmoe("profile", "use", profile)["epoch"]
    while any(link["applied_epoch"] != epoch for link in ask_orchestrator("/status")["links"]):
        time.sleep(0.1)


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    model = ask_bs("/healthz")["model"]
    words, layers = model["vocab_size"], model["layers"]
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with closing(Client(bs_url(), orchestrator_url())) as client, restored(client):
        wdmoe("policy", "use", "topk")
        with equal_links() as equal:
            for name, profile in (("equal links", equal), ("near-far", "near-far")):
                use(profile)
                load(CLIENTS, 2.0, words, layers)
                alone = load(1, seconds, words, layers)
                for one in (alone, load(CLIENTS, seconds, words, layers)):
                    print(row(name, one, alone), flush=True)
    print(f"\n{seconds:g} s each, prompts of {PROMPT} tokens, up to {MADE} drawn. Means: tokens of")
    print(
        "a request, sequences of a step, messages of a layer, its time on radio and devices [ms],"
    )
    print("and what Eq. 6 and 7 have for the same messages [ms].")


def row(name: str, one: Load, alone: Load) -> str:
    """One line of the table."""
    return (
        f"| {name} | {one.clients} | {one.tokens_per_s:.1f} "
        f"| {one.tokens_per_s / alone.tokens_per_s:.2f} | {one.tokens:.0f} | {one.batch:.1f} "
        f"| {one.messages:.1f} | {1e3 * one.radio_s:.1f} | {1e3 * one.equations_s:.1f} |"
    )


if __name__ == "__main__":
    main()
