"""Prompts in chunks: what they compute, what goes on meanwhile, and how much of them a step has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from orchestrator.contracts.channel_state import PolicyState
from services.bs.batch.batch import Segment
from services.bs.engine import prefill
from services.bs.engine.engine import MAX_RUNNING
from services.bs.engine.request import Event, Piece
from services.bs.engine.trunk import Trunk
from tests.harness.cell import Cell, emulating
from tests.harness.engine_room import Answer, EngineRoom, asking

STEP = 8  # so that a chunk has 4
BEGINNING = [(7 * n + 3) % 40 for n in range(9)]
PROMPTS = [[(3 * n + i) % 40 for i in range(tokens)] for n, tokens in enumerate((1, 4, 5, 12, 19))]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The tokens of each step of the test, and how many of them have logits."""
    found: list[tuple[int, int]] = []
    forward = Trunk.forward

    def look(trunk: Trunk, parts: list[Segment]) -> None:
        found.append((sum(map(len, parts)), sum(part.wanted for part in parts)))
        forward(trunk, parts)

    monkeypatch.setattr(Trunk, "forward", look)
    return found


def in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "STEP_TOKENS", STEP)


def several() -> list[Answer]:
    with_one_beginning = [[*BEGINNING, 8], [*BEGINNING, *range(11)], [*BEGINNING, 1, 2]]
    return [
        *(asking([prompt], 5, logprobs=2) for prompt in PROMPTS),
        *(asking([prompt], 2, echo=True, logprobs=2) for prompt in PROMPTS),
        asking(with_one_beginning, 3, echo=True, logprobs=1),
        asking([PROMPTS[-1]], 3, want_logits=True),
    ]


def scored(answers: Iterable[Answer]) -> list[tuple[list[int], list[float]]]:
    """Each sequence's tokens and their log-probabilities, with its prompt's if it is echoed."""
    found = []
    for answer in answers:
        for index in range(len(answer.request.prompts)):
            tokens = answer.tokens(index)
            if answer.request.echo:
                tokens = [*answer.echo(index), *tokens]
            logprobs = [0.0 if each.logprob is None else each.logprob for each in tokens]
            found.append(([each.token for each in tokens], logprobs))
    return found


def test_chunks_compute_what_whole_prompts_do(
    room: EngineRoom, steps: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, actual = several(), several()
    room.serve(*expected)
    assert max(tokens for tokens, _ in steps) > STEP + MAX_RUNNING
    steps.clear()
    in_chunks(monkeypatch)
    room.serve(*actual)
    assert max(tokens for tokens, _ in steps) <= STEP + MAX_RUNNING
    assert max(wanted for _, wanted in steps) <= STEP + MAX_RUNNING
    for one, other in zip(scored(actual), scored(expected), strict=True):
        assert one[0] == other[0]
        assert one[1] == pytest.approx(other[1], abs=1e-4)
    first, second = (answers[-1].end.logits for answers in (actual, expected))
    assert first is not None
    assert second is not None
    assert first.shape == second.shape == (19 + 2, 40)
    assert (first - second).abs().max() < 1e-4
    used = [[a.end.timings.experts.used for a in answers] for answers in (actual, expected)]
    assert used[0] == used[1]


def test_other_requests_go_on_while_a_long_prompt_is_read(
    room: EngineRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_chunks(monkeypatch)
    order: list[str] = []

    def hear(name: str) -> Callable[[Event], None]:
        return lambda event: order.append(name) if isinstance(event, Piece) else None

    room.serve(asking([[1, 2]], 12, hear("short")), asking([list(range(32))], 4, hear("long")))
    # 8 steps read the long prompt, and the last of them makes its first token.
    assert order.index("long") == 8


def test_chunk_boundaries_depend_on_the_prompt_alone(
    cell: Cell, room: EngineRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_chunks(monkeypatch)
    cell.channel.state = replace(emulating(flops=1e15), policy=PolicyState("random"))
    alone = [asking([prompt], 6) for prompt in PROMPTS]
    for answer in alone:
        room.serve(answer)
    together = [asking([prompt], 6) for prompt in PROMPTS]
    room.serve(*together)
    assert [answer.text() for answer in together] == [answer.text() for answer in alone]


@pytest.mark.parametrize("words", [40, 32_000, 152_064, 1 << 26])
def test_a_steps_logits_are_bounded_by_bytes(words: int) -> None:
    tokens = prefill.step_tokens(words)
    assert 2 <= tokens <= prefill.STEP_TOKENS
    assert tokens == 2 or 4 * words * tokens <= prefill.LOGITS_BYTES
