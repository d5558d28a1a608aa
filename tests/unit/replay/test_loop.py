"""An impossible schedule ends the senders with an error; they do not wait for ever."""

from __future__ import annotations

import math

import pytest

from orchestrator.client.client import now_s
from orchestrator.prompts.prompt_sets import Prompt
from orchestrator.replay.loop import Answer, Due, send
from tests.harness.replay_stack import prompt


def never(number: int, prompt: Prompt, start_s: float) -> Answer:
    raise AssertionError("nothing is due")


@pytest.mark.parametrize("start_s", [math.inf, 1e300])
def test_a_start_that_never_comes_is_an_error(start_s: float) -> None:
    due = [Due(0, prompt("ok"), start_s), Due(1, prompt("ok"), now_s())]
    with pytest.raises(OverflowError):
        list(send(due, never, senders=2))
