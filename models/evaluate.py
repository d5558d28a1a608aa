"""Exact match and expert use of a model on the prompt sets: ``python -m models.evaluate DIR``.

The model answers each prompt set greedily under three expert selections. The gate module of
transformers' Mixtral maps a layer's tokens to (logits, weights, indices); it is replaced to change
the selection:

    tokens (n, m) ──► gate ──► weights, indices (n, k) ──► experts ──► sum (n, m)
                       ▲
                       top-2 | top-1 | random-2
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import MixtralForCausalLM, PreTrainedTokenizerFast

from models.tasks import TASKS
from orchestrator import selection as policies
from orchestrator.host.progress_display import progress_display
from orchestrator.prompts import prompt_sets
from orchestrator.prompts.prompt_sets import Prompt
from orchestrator.prompts.scoring import exact_match
from orchestrator.results import statistics
from orchestrator.results.table import percent

Gate = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # logits to (logits, weights, indices)


def main(
    model_dir: Annotated[Path, typer.Argument(help="Folder of a model in Hugging Face format.")],
    limit: Annotated[int, typer.Option(help="Number of items to take from each prompt set.")] = 300,
    seed: Annotated[int, typer.Option(help="Seed of the random selection.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not tables.")] = False,
) -> None:
    """Print the exact match per prompt set under top-2, top-1 and random-2, and expert shares."""
    console = Console()
    model, tokenizer = load(model_dir)
    sets = {name: prompt_sets.load(name).prompts[:limit] for name in TASKS}
    jobs = [(name, policy) for name in TASKS for policy in POLICIES]
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    shares: dict[str, Tensor] = {}
    with progress_display() as progress:
        for name, policy in progress.track(jobs, description="Answering"):
            with selection(model, POLICIES[policy](seed)):
                answers = complete(model, tokenizer, sets[name])
            pairs = zip(answers, sets[name], strict=True)
            right = [exact_match(answer, item.answer) for answer, item in pairs]
            scores[name][policy] = sum(right) / len(right)
            if policy == "top-2":
                texts = [item.prompt + text for item, text in zip(sets[name], answers, strict=True)]
                shares[name] = expert_shares(model, tokenizer, texts)
    if as_json:
        share_percent = {name: (100 * share).tolist() for name, share in shares.items()}
        report = {"items": limit, "exact_match": scores, "share_percent": share_percent}
        typer.echo(json.dumps(report))
        return
    console.print(score_table(scores, limit))
    console.print(share_table(shares))


def load(model_dir: Path) -> tuple[MixtralForCausalLM, PreTrainedTokenizerFast]:
    """Load the model in fp32, whatever the precision of its file, and its tokenizer."""
    model = MixtralForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model.eval()  # type: ignore[no-untyped-call]
    return model, PreTrainedTokenizerFast.from_pretrained(model_dir)


# --- expert selection -----------------------------------------------------------------------------


def top_k(k: int) -> Gate:
    """Select the k most likely experts, with weights that sum to 1; the model itself has k = 2."""
    published = policies.find("topk", {})

    def choose(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        chosen = published.select(policies.Gate(logits, k))
        return logits, chosen.weight, chosen.index

    return choose


def random_k(k: int, seed: int) -> Gate:
    """Select k different experts uniformly at random per token, with the gate's weights."""
    generator = torch.Generator().manual_seed(seed)

    def choose(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        indices = torch.rand(logits.shape, generator=generator).topk(k, dim=-1).indices
        weights = logits.softmax(dim=-1).gather(-1, indices)
        return logits, weights / weights.sum(dim=-1, keepdim=True), indices

    return choose


POLICIES: dict[str, Callable[[int], Gate]] = {
    "top-2": lambda seed: top_k(2),
    "top-1": lambda seed: top_k(1),
    "random-2": lambda seed: random_k(2, seed),
}


@contextmanager
def selection(model: MixtralForCausalLM, choose: Gate) -> Iterator[None]:
    """Let ``choose`` select the experts in every layer."""
    gates = [cast(Any, layer).mlp.gate for layer in model.model.layers]
    for gate in gates:
        # An instance attribute shadows the class's method; deleting it restores the method.
        gate.forward = lambda states, weight=gate.weight: choose(F.linear(states, weight))
    try:
        yield
    finally:
        for gate in gates:
            del gate.forward


# --- answering ------------------------------------------------------------------------------------


@torch.no_grad()
def complete(
    model: MixtralForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt]
) -> list[str]:
    """Return the greedy completion of each prompt, up to </s>, a stop text or ``max_tokens``.

    Prompts with the same number of tokens form one batch, so nothing is padded.
    """
    encoded = [tokenizer(prompt.prompt)["input_ids"] for prompt in prompts]
    groups: dict[int, list[int]] = defaultdict(list)
    for index, ids in enumerate(encoded):
        groups[len(ids)].append(index)
    answers = [""] * len(prompts)
    for group in groups.values():
        tokens = torch.tensor([encoded[index] for index in group])
        new = greedy(model, tokens, max(prompts[index].max_tokens for index in group))
        for index, row in zip(group, new.tolist(), strict=True):
            row = row[: prompts[index].max_tokens]
            if tokenizer.eos_token_id in row:
                row = row[: row.index(tokenizer.eos_token_id)]
            text = cast(str, tokenizer.decode(row))
            for stop in prompts[index].stop:
                text = text.partition(stop)[0]
            answers[index] = text
    return answers


def greedy(model: MixtralForCausalLM, tokens: Tensor, steps: int) -> Tensor:
    """Return (rows, steps) tokens that follow (rows, length) tokens; rows continue after </s>."""
    new: list[Tensor] = []
    cache = None
    for _ in range(steps):
        output = model(input_ids=tokens, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        tokens = output.logits[:, -1:].argmax(dim=-1)
        new.append(tokens)
    return torch.cat(new, dim=1)


@torch.no_grad()
def expert_shares(
    model: MixtralForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> Tensor:
    """Return each expert's share of a layer's (token, slot) pairs, (layers, experts)."""
    config = model.config
    used = torch.zeros(config.num_hidden_layers, config.num_local_experts)
    for text in texts:
        tokens = torch.tensor([tokenizer(text)["input_ids"]])
        logits = model.model(input_ids=tokens, output_router_logits=True).router_logits
        for layer, layer_logits in enumerate(logits):
            chosen = layer_logits.topk(config.num_experts_per_tok, dim=-1).indices.flatten()
            used[layer] += torch.bincount(chosen, minlength=config.num_local_experts)
    return used / used.sum(dim=-1, keepdim=True)


# --- tables ---------------------------------------------------------------------------------------


def score_table(scores: dict[str, dict[str, float]], items: int) -> Table:
    """Return a table of exact matches in per cent, with their 95 % intervals (Wilson)."""
    table = Table("prompt set", *POLICIES, title=f"Exact match, %, {items} items per set")
    for name, row in scores.items():
        cells = [
            percent(part, statistics.wilson(round(part * items), items)) for part in row.values()
        ]
        table.add_row(name, *cells)
    return table


def share_table(shares: dict[str, Tensor]) -> Table:
    """Return each layer's smallest and largest expert share, over all sets and for each set."""
    layers = len(next(iter(shares.values())))
    columns = [f"layer {layer}" for layer in range(layers)]
    table = Table("prompt set", *columns, title="Least and most used expert, % of tokens' choices")
    together = torch.stack(list(shares.values())).mean(dim=0)
    for name, share in {"all five": together, **shares}.items():
        table.add_row(name, *(f"{100 * row.min():.1f} … {100 * row.max():.1f}" for row in share))
    return table


if __name__ == "__main__":
    typer.run(main)
