"""The values of the base station's metrics after real requests."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.metrics.bs import DROP_REASONS, PARTS
from services.bs.engine.request import Event
from tests.harness.cell import EXPERTS, Cell, emulating
from tests.harness.engine_room import EngineRoom, asking

LAYERS = 3


@pytest.fixture
def room(cell: Cell) -> EngineRoom:
    cell.channel.state = emulating(flops=1e15, rate_bps=1e8)
    cell.start_all()
    return EngineRoom(cell)


def by_device(cell: Cell, name: str) -> float:
    return sum(cell.counted(name, device=str(q)) for q in range(EXPERTS))


def test_drops_begin_at_zero(cell: Cell) -> None:
    for q, layer, reason in itertools.product(range(EXPERTS), range(LAYERS), DROP_REASONS):
        labels = {"device": str(q), "layer": str(layer), "reason": reason}
        assert cell.registry.get_sample_value("wdmoe_expert_dropped_total", labels) == 0


def test_parts_of_requests_add_up_to_their_time(cell: Cell, room: EngineRoom) -> None:
    answers = [asking([[n + 1] * 3], 5) for n in range(4)]
    room.serve(*answers)
    name = "wdmoe_request_part_seconds_total"
    parts = {part: cell.counted(name, part=part) for part in PARTS}
    whole = cell.counted("wdmoe_request_seconds_sum")
    assert sum(parts.values()) == pytest.approx(whole, rel=1e-6)
    assert cell.counted("wdmoe_request_seconds_count") == 4
    assert parts["uplink"] == pytest.approx(sum(a.end.timings.uplink_s for a in answers))
    eq8_s = sum(answer.end.timings.eq8_s for answer in answers)
    assert cell.counted("wdmoe_request_eq8_seconds_total") == pytest.approx(eq8_s) != 0
    # A step that requests share counts for each of them, as it does in the parts.
    batched_s = sum(answer.end.timings.batched_s for answer in answers)
    assert cell.counted("wdmoe_request_batched_seconds_total") == pytest.approx(batched_s) != 0


def test_every_layer_of_every_step_is_timed_and_has_one_slowest_device(
    cell: Cell, room: EngineRoom
) -> None:
    room.serve(asking([[1, 2, 3]], 5))
    assert cell.counted("wdmoe_layer_seconds_count") == 5 * LAYERS
    assert by_device(cell, "wdmoe_slowest_device_total") == 5 * LAYERS
    assert by_device(cell, "wdmoe_device_messages_total") >= 5 * LAYERS
    whole = cell.counted("wdmoe_request_seconds_sum")
    assert 0 < cell.counted("wdmoe_layer_seconds_sum") < whole


def test_running_and_waiting_requests_are_exported_meanwhile(cell: Cell, room: EngineRoom) -> None:
    seen = []

    def look(_: Event) -> None:
        seen.append((cell.counted("wdmoe_requests_running"), cell.counted(waiting)))

    waiting = "wdmoe_requests_waiting"
    many = [asking([[1 + n]], 3, look if n == 0 else lambda _: None) for n in range(40)]
    room.serve(*many)
    assert max(seen) == (32, 8)
    assert cell.counted("wdmoe_requests_running") == cell.counted(waiting) == 0


def test_a_prompt_that_is_only_scored_has_no_first_token(cell: Cell, room: EngineRoom) -> None:
    room.serve(asking([[1, 2, 3]], 0, echo=True, logprobs=0))
    assert cell.counted("wdmoe_request_seconds_count") == 1
    assert cell.counted("wdmoe_time_to_first_token_seconds_count") == 0


def test_unscraped_values_of_single_tokens_are_bounded(cell: Cell, room: EngineRoom) -> None:
    room.serve(asking([[1]], 60))
    kept = cell.station.layer_metrics.wlr._kept
    assert 0 < len(kept) <= 128 < 60 * LAYERS


def test_unscraped_values_of_long_prompts_are_bounded(cell: Cell, room: EngineRoom) -> None:
    prompts = [asking([[n % 40 for n in range(900)]], 1) for _ in range(6)]
    room.serve(*prompts)
    kept = cell.station.layer_metrics.wlr._kept
    assert sum(len(choice.logits) for _, choice in kept) <= 4096
    for layer in range(LAYERS):
        assert cell.counted("wdmoe_kappa_count", layer=str(layer)) == 6 * 900
    assert not kept
