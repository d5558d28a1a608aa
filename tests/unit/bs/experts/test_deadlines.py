"""How long the dispatcher waits for a device that computes."""

from __future__ import annotations

import time

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from orchestrator.moe.checkpoint import Checkpoint
from services.bs.experts.latency_estimator import ENOUGH
from services.bs.experts.patience import LEAST_FLOPS
from services.device.experts import Experts
from tests.harness.cell import TINY, Cell, around, emulating
from tests.harness.one_layer import run_layer

pytestmark = pytest.mark.slow


class SlowExperts(Experts):
    """The experts of a device that computes `flops` FLOP/s."""

    flops: float

    def __call__(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        gate_up, _ = self._weights[layer]
        time.sleep(3 * gate_up.numel() * len(x) / self.flops)
        return super().__call__(layer, x)


def slow(flops: float) -> type[Experts]:
    return type("Slow", (SlowExperts,), {"flops": flops})


def test_the_deadline_of_a_long_prompt_includes_its_computing_time(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("large")
    config = {**TINY.to_dict(), "intermediate_size": 4096, "num_hidden_layers": 2}
    MixtralForCausalLM(MixtralConfig(**config)).save_pretrained(folder)
    with around(Checkpoint(folder)) as cell:
        cell.start(0, slow(0.5 * LEAST_FLOPS))
        cell.admit(0)
        _, _, meter = run_layer(cell, [[0, 4]] * 3000, [[1.0, 0.0]] * 3000)
    assert meter.compute_s > 1.5  # the time-out
    assert meter.used == {0: 3000}


def test_the_deadline_of_a_device_follows_its_measured_speed(cell: Cell) -> None:
    token_s = 0.02
    cell.start(0, slow(6 * 16 * 24 / token_s))
    cell.admit(0)
    for n in range(1, ENOUGH):
        run_layer(cell, [[0, 4]] * n, [[1.0, 0.0]] * n)
    _, _, meter = run_layer(cell, [[0, 4]] * 100, [[1.0, 0.0]] * 100)
    assert meter.compute_s > 1.5
    assert meter.used == {0: 100}


def test_a_device_that_computes_for_an_abandoned_layer_is_not_silent(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e9)
    cell.start(0)
    cell.admit(0)
    with pytest.raises(IndexError):  # while the device works, for 3 s
        run_layer(cell, [[0, 4]] * 9, [[1.0, 0.0]] * 9, candidates=[[1]])
    time.sleep(2)
    cell.dispatcher.take_in()
    assert cell.devices.devices[0].admitted
