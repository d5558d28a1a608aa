"""What selecting experts costs: `python -m benchmarks.selection [ROUNDS]`, or `make bench`.

On a running stack, under `near-far`; afterwards it has the profile and the policy that it had. In
every round each policy serves completions that decode one token after another, and one prompt of
many tokens. Prints a Markdown table: of the time of the layers of one or of many tokens (gate,
selection, radio, devices, combining), selection's share.
"""

from __future__ import annotations

import random
import sys
import time
from collections import defaultdict
from contextlib import closing
from typing import Any

import numpy as np

from benchmarks.links import wdmoe
from orchestrator.cli.common import ask_bs, bs_url, orchestrator_url
from orchestrator.client.client import Client
from orchestrator.client.restore import restored

ROUNDS = 10
DECODED = 32
PROMPT = 512
POLICIES = {"topk": ["topk"], "wlr θ=0.2": ["wlr", "--theta", "0.2"]}
LAYER = ("gate", "selection", "downlink", "wait", "compute", "uplink", "combine")
PATIENCE_S = 300.0


def timings(prompt: list[int], max_tokens: int, seed: int) -> dict[str, Any]:
    """Of one completion. It is drawn, lest a greedy one end at once, again and again."""
    body = {"prompt": prompt, "max_tokens": max_tokens, "seed": seed, "temperature": 1.0}
    answer: dict[str, Any] = ask_bs("/v1/completions", {**body, "timings": True}, PATIENCE_S)
    return answer["timings"]  # type: ignore[no-any-return]


def use(policy: list[str]) -> None:
    """Put a policy into force, and wait until it is."""
    apply_at_s = wdmoe("policy", "use", *policy)["apply_at_s"]
    time.sleep(max(0.0, apply_at_s - time.time()) + 0.1)


def row(tokens: int, policy: str, layers: int, requests: list[dict[str, Any]]) -> str:
    """One line: the median request, and the one with the greatest share."""
    selection = np.array([one["selection_s"] for one in requests])
    layer = np.array([sum(one[f"{part}_s"] for part in LAYER) for one in requests])
    # One forward pass for the prompt, and one for every token made but the last.
    passes = np.array([one["completion_tokens"] for one in requests])
    share = 100 * selection / layer
    return (
        f"| {tokens} | {policy} | {len(requests)} | {layers * passes.sum()} "
        f"| {1e6 * np.median(selection / passes / layers):.0f} "
        f"| {1e3 * np.median(layer / passes / layers):.1f} "
        f"| {np.median(share):.2f} % | {share.max():.2f} % |"
    )


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    health = ask_bs("/healthz")
    layers, words = health["model"]["layers"], health["model"]["vocab_size"]
    many = min(PROMPT, health["context_length"] - 1)
    measured = defaultdict(list)
    draw = random.Random(1)
    with closing(Client(bs_url(), orchestrator_url())) as client, restored(client):
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
    print("\nMedians over requests, of a request's mean over its layers.")


if __name__ == "__main__":
    main()
