"""Measure what expert selection costs: `python -m benchmarks.selection [ROUNDS]`, or `make bench`.

Needs a running stack and uses `near-far`; profile and policy are restored afterwards. In every
round each policy serves one completion that decodes token by token, and one prompt of many tokens.
Prints a Markdown table: selection's share of the layers' time (gate, selection, radio, devices,
combining), for one token and for many.
"""

from __future__ import annotations

import random
import sys
import time
from collections import defaultdict
from typing import Any

import httpx
import numpy as np

from benchmarks.links import wdmoe
from orchestrator.cli import common
from orchestrator.client.restore import restored

ROUNDS = 10
DECODED = 32
PROMPT = 512
POLICIES = {"topk": ["topk"], "wlr θ=0.2": ["wlr", "--theta", "0.2"]}
LAYER = ("gate", "selection", "downlink", "wait", "compute", "uplink", "combine")
PATIENCE_S = 300.0


def timings(prompt: list[int], max_tokens: int, seed: int) -> dict[str, Any]:
    """Return the timings of one completion.

    Tokens are sampled: a greedy completion might end at once, every time.
    """
    body = {"prompt": prompt, "max_tokens": max_tokens, "seed": seed, "temperature": 1.0}
    url = f"{common.bs_url()}/v1/completions"
    answer = httpx.post(url, json={**body, "timings": True}, timeout=PATIENCE_S, trust_env=False)
    return answer.raise_for_status().json()["timings"]  # type: ignore[no-any-return]


def use(policy: list[str]) -> None:
    """Activate a policy, and wait until it is in force."""
    apply_at_s = wdmoe("policy", "use", *policy)["apply_at_s"]
    time.sleep(max(0.0, apply_at_s - time.time()) + 0.1)


def row(tokens: int, policy: str, layers: int, requests: list[dict[str, Any]]) -> str:
    """Return one line: the median request, and the one with the largest share."""
    selection = np.array([request["selection_s"] for request in requests])
    layer = np.array([sum(request[f"{part}_s"] for part in LAYER) for request in requests])
    # One forward pass for the prompt, and one for every generated token but the last.
    passes = np.array([request["completion_tokens"] for request in requests])
    share = 100 * selection / layer
    return (
        f"| {tokens} | {policy} | {len(requests)} | {layers * passes.sum()} "
        f"| {1e6 * np.median(selection / passes / layers):.0f} "
        f"| {1e3 * np.median(layer / passes / layers):.1f} "
        f"| {np.median(share):.2f} % | {share.max():.2f} % |"
    )


def main() -> None:
    """Measure, and print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    measured = defaultdict(list)
    draw = random.Random(1)
    with common.client() as client, restored(client):
        health = client.health()
        layers, words = health.model.layers, health.model.vocab_size
        many = min(PROMPT, (health.context_length or PROMPT) - 1)
        wdmoe("profile", "use", "near-far")
        for seed in range(rounds):
            short = [draw.randrange(words)]
            long = [draw.randrange(words) for _ in range(many)]
            for policy, arguments in POLICIES.items():
                use(arguments)
                measured[1, policy].append(timings(short, DECODED, seed))
                measured[many, policy].append(timings(long, 1, seed))
    print("| tokens | policy | requests | layers | selection, µs | layer, ms | share | greatest |")
    print("|---|---|---|---|---|---|---|---|")
    for (tokens, policy), requests in sorted(measured.items()):
        print(row(tokens, policy, layers, requests))
    print("\nMedians over requests of each request's mean over its layers.")


if __name__ == "__main__":
    main()
