"""Train the bundled model from a seed: ``python -m models.train --out models/bundled``.

`main` builds the tokenizer and the model, takes `STEPS` steps, logs the exact match on validation
items and writes a Hugging Face folder. Nothing depends on the clock, so the same seed on the same
machine with the same torch gives the same model.
"""

import socket
import time
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Annotated

import torch
import torch.distributed as dist
import torch.nn.functional as F
import typer
from rich.console import Console
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

from models.tasks import TASKS, TRAINING, Item, draw

STEPS = 1400
DECAY_STEPS = 500  # the rate is constant, then falls linearly to zero over the last steps
WARMUP_STEPS = 50
WORKERS = 2  # single-threaded processes: on two cores faster than one process with two threads
BATCH = {
    "arithmetic": 32,
    "compare": 24,
    "order": 16,
    "facts": 32,
    "reading": 32,
    "recall": 24,
    "match": 16,
}
# Tasks of similar length share a forward pass, because padding costs compute.
GROUPS = (("arithmetic",), ("compare", "order", "facts", "reading", "recall", "match"))
PEAK_LR = 2e-3
MUON_LR = 0.01
BALANCE = 0.05  # weight of the load-balancing loss of each layer
IGNORED = -100  # label of a position without loss
VOCABULARY_LIMIT = 1024
END, PAD = "</s>", "<pad>"
END_ID, PAD_ID = 0, 1
# The model has not been trained on chats: the last user message is the prompt.
CHAT_TEMPLATE = (
    "{% for message in messages if message.role == 'user' %}"
    "{% if loop.last %}{{ message.content }}{% endif %}"
    "{% endfor %}"
)


def main(
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")],
    seed: Annotated[int, typer.Option(help="Seed of weights and training items.")] = 7,
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = STEPS,
) -> None:
    """Train the bundled model and write it in Hugging Face format."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    spawn(work, (port, out, seed, steps), nprocs=WORKERS)  # type: ignore[no-untyped-call]


def work(worker: int, port: int, out: Path, seed: int, steps: int) -> None:
    """Train on one worker's part of every batch.

    All workers keep the same weights: they start from one seed, and every update uses the mean of
    their gradients. Worker 0 reports and saves.
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=worker, world_size=WORKERS
    )
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer.get_vocab_size())
    optimizers = build_optimizers(model)
    streams = {name: Random(f"{seed} train {worker} {name}") for name in BATCH}
    held_out = {
        name: [draw(task, rng, "validation") for _ in range(100)]
        for name, task in TASKS.items()
        for rng in [Random(f"{seed} validation {name}")]
    }
    console = Console(quiet=worker > 0)
    started = time.monotonic()
    for step in range(steps):
        for optimizer in optimizers:
            for parameters in optimizer.param_groups:
                parameters["lr"] = parameters["peak_lr"] * learning_rate(step, steps)
        answer_loss = balance_loss = 0.0
        for group in GROUPS:
            items = [
                draw(TRAINING[name], streams[name], "train")
                for name in group
                for _ in range(BATCH[name] // WORKERS)
            ]
            answer, balance = losses(model, *encode(tokenizer, items))
            share = len(items) * WORKERS / sum(BATCH.values())
            ((answer + BALANCE * balance) * share).backward()  # type: ignore[no-untyped-call]
            answer_loss += answer.item() * share
            balance_loss += balance.item() * share
        average_gradients(model)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if worker == 0 and ((step + 1) % 100 == 0 or step + 1 == steps):
            correct = {name: exact_match(model, tokenizer, held_out[name]) for name in TASKS}
            console.print(
                f"step {step + 1}/{steps}  {time.monotonic() - started:.0f} s  "
                f"loss {answer_loss:.4f}  balance {balance_loss:.3f}  "
                + "  ".join(f"{name} {value:.2f}" for name, value in correct.items()),
                soft_wrap=True,
            )
            save(model, tokenizer, out)
    console.print(f"{(time.monotonic() - started) / 60:.1f} minutes, written to {out}")
    dist.destroy_process_group()


def average_gradients(model: nn.Module) -> None:
    """Replace every gradient by its mean over the workers, clipped to a joint norm of 1."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    joint = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joint)
    joint /= max(WORKERS, joint.norm().item())
    parts = joint.split([g.numel() for g in gradients])  # type: ignore[no-untyped-call]
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def learning_rate(step: int, steps: int) -> float:
    """Return the fraction of the peak rate at a step: warm-up, constant, linear decay to zero."""
    return min(1.0, (step + 1) / WARMUP_STEPS, (steps - step) / DECAY_STEPS)


def build_tokenizer() -> Tokenizer:
    """Train a byte-level BPE, which can encode any text, on the tasks' own text.

    The tasks' words take one or two tokens; digits and the spaces before them are single tokens.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(
        [
            Split(Regex(r"\d| ?\p{L}+| ?[^\s\d\p{L}]+|\s"), "isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.train_from_iterator(
        corpus(),
        BpeTrainer(
            vocab_size=VOCABULARY_LIMIT,
            special_tokens=[END, PAD],
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def corpus() -> Iterable[str]:
    """Yield the texts that the tokenizer is trained on."""
    rng = Random(0)
    for task in TRAINING.values():
        for _ in range(4000):
            item = draw(task, rng, "train")
            yield item.prompt + item.completion


def build_model(vocabulary: int) -> MixtralForCausalLM:
    """Return a Mixtral with random weights; on a CPU, grouped_mm is the fastest for experts."""
    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=vocabulary,
            hidden_size=160,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=5,
            num_key_value_heads=5,
            num_local_experts=8,
            num_experts_per_tok=2,
            max_position_embeddings=2048,
            sliding_window=None,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            router_aux_loss_coef=BALANCE,
            bos_token_id=None,
            eos_token_id=END_ID,
            pad_token_id=PAD_ID,
            experts_implementation="grouped_mm",  # type: ignore[call-arg]
        )
    )


def encode(tokenizer: Tokenizer, items: list[Item]) -> tuple[Tensor, Tensor]:
    """Return tokens and labels, both (items, longest), padded on the right.

    Only the completion has labels. Prompt and completion are encoded separately, as they are when
    the model answers.
    """
    prompts = tokenizer.encode_batch([item.prompt for item in items])
    completions = tokenizer.encode_batch([item.completion + END for item in items])
    rows = [p.ids + c.ids for p, c in zip(prompts, completions, strict=True)]
    tokens = torch.full((len(items), max(map(len, rows))), PAD_ID)
    labels = torch.full_like(tokens, IGNORED)
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        tokens[index, : len(row)] = torch.tensor(row)
        labels[index, len(prompt.ids) : len(row)] = torch.tensor(row[len(prompt.ids) :])
    return tokens, labels


def losses(model: MixtralForCausalLM, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross entropy of the completions and the load-balancing loss.

    The head runs only where there is a label. No attention mask is needed: attention is causal and
    the padding is on the right.
    """
    output = model.model(input_ids=tokens, output_router_logits=True, use_cache=False)
    targets = labels[:, 1:]
    states = output.last_hidden_state[:, :-1][targets != IGNORED]
    answer = F.cross_entropy(model.lm_head(states), targets[targets != IGNORED])
    read = tokens.flatten() != PAD_ID
    balance = torch.stack([load_balance(logits[read]) for logits in output.router_logits]).mean()
    return answer, balance


def load_balance(logits: Tensor) -> Tensor:
    """Return the Switch Transformer's loss of one layer's (tokens, experts) logits; 1 when even.

    Computed layer by layer: transformers' own loss pools all layers, so that an imbalance in one
    could offset that in another.
    """
    experts = logits.shape[-1]
    chosen = logits.topk(2, dim=-1).indices
    share = torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel()
    return experts * (share * logits.softmax(dim=-1).mean(dim=0)).sum()


def build_optimizers(model: MixtralForCausalLM) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of attention and experts, and AdamW for everything else."""
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if "_proj" in name]
    others = [p for name, p in named.items() if "_proj" not in name]
    adamw = torch.optim.AdamW(others, lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.01)
    for group in adamw.param_groups:
        group["peak_lr"] = PEAK_LR
    return [Muon(matrices), adamw]


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates (Jordan et al., 2024), also for stacks of matrices.

    ``torch.optim.Muon`` takes single matrices only; here a layer's experts are one
    (8, rows, columns) parameter, and each expert is a separate matrix.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": MUON_LR, "peak_lr": MUON_LR})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix once."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                momentum = state.setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 0.05)
                rows, columns = parameter.shape[-2:]
                update = orthogonal(parameter.grad.lerp(momentum, 0.95))
                parameter.mul_(1 - group["lr"] * 0.05)
                parameter.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return the nearest semi-orthogonal matrices, by five Newton-Schulz steps."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result.float()


@torch.no_grad()
def exact_match(model: MixtralForCausalLM, tokenizer: Tokenizer, items: list[Item]) -> float:
    """Return the fraction of items whose completion is the model's greedy choice at every token."""
    tokens, labels = encode(tokenizer, items)
    chosen = model(input_ids=tokens, use_cache=False).logits[:, :-1].argmax(dim=-1)
    right = (chosen == labels[:, 1:]) | (labels[:, 1:] == IGNORED)
    return right.all(dim=-1).double().mean().item()  # type: ignore[no-any-return]


def save(model: MixtralForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write config, bfloat16 weights (a tensor per expert), tokenizer and chat template."""
    rounded = deepcopy(model).bfloat16()
    rounded.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # for containers that run as another user
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=model.config.max_position_embeddings,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(out)


if __name__ == "__main__":
    typer.run(main)
