"""The bundled model's answers do not depend on other requests in the batch."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tokenizers import Tokenizer

from orchestrator.contracts.channel_state import ChannelState, DeviceState, Direction
from orchestrator.moe.checkpoint import Checkpoint
from orchestrator.process.root import ROOT
from tests.harness.cell import Cell, around
from tests.harness.engine_room import EngineRoom, asking

pytestmark = pytest.mark.slow

MODEL = ROOT / "models" / "bundled"


@pytest.fixture
def bundled() -> Iterator[Cell]:
    checkpoint = Checkpoint(MODEL)
    with around(checkpoint) as cell:
        devices = (DeviceState(Direction(), Direction()),) * checkpoint.info.experts
        cell.channel.state = ChannelState(1, 0, 0.0, "test", "0" * 64, devices)
        cell.start_all()
        yield cell


def prompts() -> list[list[int]]:
    """Return seventeen prompts, from every bundled set."""
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    texts = [
        json.loads(line)["prompt"]
        for path in sorted((ROOT / "prompts").glob("*.jsonl"))
        for line in path.read_text().splitlines()[:4]
    ]
    return [tokenizer.encode(text).ids for text in texts[:17]]


def test_an_answer_is_the_same_alone_and_among_sixteen_others(bundled: Cell) -> None:
    room = EngineRoom(bundled, ends=frozenset([0]))
    alone = [asking([prompt], 16) for prompt in prompts()]
    for answer in alone:
        room.serve(answer)
    together = [asking([prompt], 16) for prompt in prompts()]
    room.serve(*together)
    assert len(together) == 17
    assert [answer.text() for answer in together] == [answer.text() for answer in alone]
    assert max(answer.end.timings.batch for answer in together) > 10
