"""The fixtures of the base station."""

import pytest

from tests.harness.cell import Cell, emulating
from tests.harness.engine_room import EngineRoom


@pytest.fixture
def room(cell: Cell) -> EngineRoom:
    cell.channel.state = emulating(flops=1e15)
    cell.start_all()
    return EngineRoom(cell)
