"""What the stack's services answer, complete, but for what a test changes."""

from __future__ import annotations

from typing import Any

from orchestrator.contracts.http import (
    Device,
    Direction,
    Health,
    Lateness,
    Link,
    Model,
    Queue,
    Queues,
)
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.time_parts import PARTS
from orchestrator.contracts.timings import Experts, Timings

UNSHAPED = Direction(rate_bps=None, delay_s=0.0, jitter_s=0.0, loss_p=0.0, loss_r=1.0)
QUEUES = Queues(down=Queue(overflows=0), up=Queue(overflows=0))
NEVER = Lateness(n=0, p50_s=None, p99_s=None, max_s=None)
MODEL = Model(
    name="tiny",
    fingerprint="ab12",
    layers=4,
    experts=2,
    top_k=2,
    hidden_size=16,
    vocab_size=912,
)


def device(**changed: Any) -> Device:
    """An admitted device."""
    fields = {"admitted": True, "refused": None, "last_seen_age_s": 0.1}
    return Device(**{**fields, **changed})


def health(**changed: Any) -> Health:
    """A base station that is well."""
    fields: dict[str, Any] = {
        "status": "ok",
        "model": MODEL,
        "wire_dtype": "fp16",
        "curve": True,
        "torch_device": "cpu",
        "tcp_congestion_control": "cubic",
        "devices": {},
    }
    return Health(**{**fields, **changed})


def link(q: int = 0, **changed: Any) -> Link:
    """A link that is not shaped, as its device has reported."""
    fields: dict[str, Any] = {
        "device": q,
        "down": UNSHAPED,
        "up": UNSHAPED,
        "flops": None,
        "reachable": True,
        "backend": "tbf",
        "applied_epoch": 1,
        "applied_interval": 0,
        "reported_age_s": 0.1,
        "error": None,
        "queues": QUEUES,
        "lateness": NEVER,
    }
    return Link(**{**fields, **changed})


def timings(**changed: Any) -> Timings:
    """Those of a request that took 0.9 ms."""
    fields: dict[str, Any] = {
        "request_id": "r",
        "time_to_first_token_s": 0.0005,
        "end_to_end_s": 0.0009,
        "prompt_tokens": 4,
        "completion_tokens": 2,
        **dict.fromkeys(PARTS, 0.00009),
        "eq8_s": 0.0002,
        "batched_s": 0.0001,
        "experts": Experts(used={"0": 6}, dropped={}, deselected={}),
        "overruns": 0,
        "device_messages": 8,
        "policy": PolicySpec(name="topk", params={}),
        "profile": "near-far",
        "epoch": 3,
    }
    return Timings(**{**fields, **changed})
