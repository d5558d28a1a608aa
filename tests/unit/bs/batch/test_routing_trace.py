"""The routing trace: its file has everything that was recorded."""

from __future__ import annotations

import io
import math

import numpy as np
import torch

from orchestrator.selection import Gate, drop_unreachable
from orchestrator.selection.policies.wlr import WeightToLatencyRatio
from services.bs.batch.decision import RoutingDecision
from services.bs.batch.routing_trace import RoutingTrace

LATENCY_S = np.array([0.001, 0.5, math.inf, 0.002, 0.0])


def choice(n: int, seed: int) -> RoutingDecision:
    """The decision of `wlr` for random logits, with device 2 out of reach and 4 not shaped."""
    logits = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    latency_s = torch.from_numpy(LATENCY_S).float()
    selected = WeightToLatencyRatio(theta=0.2).select(Gate(logits, 2, latency_s))
    reachable = torch.tensor([True, True, False, True, True])
    used = drop_unreachable(selected, logits, reachable)
    return RoutingDecision(selected, used, logits, LATENCY_S, reachable, None)


def test_every_decision_is_in_the_file_with_its_inputs() -> None:
    trace = RoutingTrace()
    prompt = [choice(6, seed) for seed in (1, 2)]
    decoded = [choice(1, seed) for seed in (3, 4)]
    for forward in (prompt, decoded):
        for layer, decision in enumerate(forward):
            trace.add(layer, decision, slice(None))
    with np.load(io.BytesIO(trace.npz())) as file:
        rows = dict(file)
    kinds = {name: (column.dtype.name, column.shape) for name, column in rows.items()}
    assert kinds == {
        "layer": ("uint16", (14,)),
        "token": ("uint32", (14,)),
        "expert": ("uint16", (14, 2)),
        "weight": ("float32", (14, 2)),
        "latency_s": ("float32", (14, 2)),
        "wlr": ("float32", (14, 2)),
        "kept": ("bool", (14, 2)),
    }
    assert rows["layer"].tolist() == [0] * 6 + [1] * 6 + [0, 1]
    assert rows["token"].tolist() == [*range(6), *range(6), 6, 6]
    made = [*prompt, *decoded]
    expert = torch.cat([decision.used.candidates for decision in made]).numpy()
    assert np.array_equal(rows["expert"], expert)
    kept = torch.cat([decision.used.index < 5 for decision in made]).numpy()
    assert np.array_equal(rows["kept"], kept)
    np.testing.assert_array_equal(rows["latency_s"], LATENCY_S.astype(np.float32)[expert])
    np.testing.assert_allclose(rows["weight"].sum(axis=1), 1, rtol=1e-6)
    logits = torch.cat([decision.logits for decision in made]).numpy()
    chosen = np.take_along_axis(logits, expert, axis=1)
    np.testing.assert_allclose(
        np.log(rows["weight"][:, 0] / rows["weight"][:, 1]), chosen[:, 0] - chosen[:, 1], rtol=1e-3
    )
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(rows["wlr"], rows["weight"] / rows["latency_s"], rtol=1e-6)
    assert not rows["kept"][expert == 2].any()
