"""A piece of work that one device was given."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from services import wire


@dataclass
class Job:
    """Work that is with a device: which tokens (rows) and which of their k slots.

    `ended_s` is when its answer arrived, or the device was given up.
    """

    device: int
    rows: torch.Tensor
    slots: torch.Tensor
    sent_s: float
    deadline_s: float
    sent_bytes: int
    answer_bytes: int = 0
    done: wire.Done | None = None
    ended_s: float = 0.0
    output: torch.Tensor | None = None
