"""One layer of the base station, run over chosen experts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from orchestrator.selection import Selection
from orchestrator.selection.policies.topk import TopK
from services.bs.batch.batch import ForwardBatch
from services.bs.batch.decision import RoutingDecision
from services.bs.batch.layer_record import LayerRecord
from services.bs.batch.request_context import RequestContext
from services.device.experts import Experts
from tests.harness.cell import CPU, EXPERTS, ROOM, Cell, part


def chosen(
    cell: Cell,
    index: list[list[int]],
    weight: list[list[float]],
    candidates: list[list[int]] | None = None,
) -> RoutingDecision:
    """A decision for len(index) tokens, of experts that can all be reached."""
    before = torch.tensor(candidates or index)
    selected = Selection(torch.tensor(index), torch.tensor(weight), before)
    return RoutingDecision(
        selected=selected,
        used=selected,
        logits=torch.zeros(len(index), EXPERTS),
        latency_s=np.zeros(EXPERTS),
        reachable=torch.ones(EXPERTS, dtype=torch.bool),
        channel=cell.channel.current(),
    )


def run(
    cell: Cell, hidden: torch.Tensor, decision: RoutingDecision, batch: ForwardBatch
) -> torch.Tensor:
    """Run layer 1 as RemoteMoe does after selection."""
    record = LayerRecord(1, decisions=[decision])
    with cell.dispatcher.dispatched(hidden, record):
        cell.station.layer_metrics.book_selection(record, batch)
    output = cell.dispatcher.combine(hidden, record)
    cell.station.layer_metrics.book_answers(record, batch)
    batch.book(record)
    return output


def run_layer(
    cell: Cell,
    index: list[list[int]],
    weight: list[list[float]],
    candidates: list[list[int]] | None = None,
) -> Any:
    """Run a layer over len(index) tokens; return the inputs, the output, and the meter."""
    torch.manual_seed(1)
    hidden = torch.randn(len(index), 16)
    choice = chosen(cell, index, weight, candidates)
    served = RequestContext(TopK())
    step = ForwardBatch([part([0] * len(index), cell.station.trunk().cache(ROOM), served)], EXPERTS)
    output = run(cell, hidden, choice, step)
    step.close()
    return hidden, output, served.meter


def expert(cell: Cell, q: int, hidden: torch.Tensor) -> torch.Tensor:
    return Experts(cell.checkpoint, q, CPU, torch.float32)(1, hidden)
