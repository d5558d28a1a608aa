"""Keys and values in bounded memory: requests that wait for room, and requests that never fit."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import torch

from services.bs.batch.attention import KvCache
from services.bs.engine import kv_memory
from services.bs.engine.engine import MAX_RUNNING
from services.bs.engine.request import Event, TooLargeError
from services.bs.engine.trunk import Trunk
from services.bs.http.app import create
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.openai import completions
from services.bs.http.submission import ServedModel
from services.bs.text.tokenizer import ModelTokenizer
from tests.harness import answers
from tests.harness.cell import CPU, Cell, emulating
from tests.harness.engine_room import Answer, EngineRoom, asking
from tests.harness.parrot import FOLDER, Http, Parrot, tokenizer
from tests.harness.serving import serve

POSITIONS = 40


@pytest.fixture
def room(cell: Cell) -> EngineRoom:
    cell.channel.state = emulating(flops=1e15)
    cell.start_all()
    # 3 layers, of 1 head with 8 keys and 8 values in fp32.
    return EngineRoom(cell, kv_bytes=POSITIONS * 3 * 2 * 8 * 4 + 1)


def held(room: EngineRoom) -> int:
    return sum(request.positions for request in room.engine._running)


def test_a_position_takes_the_bytes_of_its_cache(cell: Cell) -> None:
    split = cell.station.trunk()
    cache = split.cache(7)
    tensors = [tensor for layer in cache._layers for tensor in layer]
    assert sum(tensor.nbytes for tensor in tensors) == 7 * split.position_bytes


def test_requests_wait_until_there_is_memory_for_them(room: EngineRoom) -> None:
    seen: list[int] = []

    def look(_: Event) -> None:
        seen.append(held(room))

    answers = [asking([[n, 1, 2, 3]], 4 + n, look) for n in range(8)]
    choices = [[*range(9), n] for n in range(6)]
    answers.append(asking(choices, 3, look))
    room.serve(*answers)
    assert [answer.end.completion_tokens for answer in answers] == [*range(4, 12), 18]
    assert POSITIONS / 2 < max(seen) <= POSITIONS
    assert held(room) == 0


def test_scarce_and_ample_memory_give_the_same_answers(cell: Cell, room: EngineRoom) -> None:
    def several() -> list[Answer]:
        prompts = [[[n, 1, 2, 3]] for n in range(8)]
        return [asking(prompt, 6) for prompt in [*prompts, [[5, 6, 7, n] for n in range(6)]]]

    tight, roomy = several(), several()
    room.serve(*tight)
    room.engine.positions = POSITIONS * MAX_RUNNING
    room.serve(*roomy)
    for one, other in zip(tight, roomy, strict=True):
        sequences = range(len(one.request.prompts))
        assert [one.text(n) for n in sequences] == [other.text(n) for n in sequences]


def test_running_out_of_memory_ends_only_the_request_that_needs_it(
    room: EngineRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Trunk.cache

    def cache(trunk: Trunk, positions: int, *also: Any) -> KvCache:
        if positions == 13:
            raise torch.OutOfMemoryError
        return make(trunk, positions, *also)

    monkeypatch.setattr(Trunk, "cache", cache)
    long, second, good = asking([[1] * 9], 4), asking([[1, 2], [1, 2, *range(9)]], 2), asking([[1]])
    room.serve(long, second, good)
    assert long.failure == second.failure == "internal error: OutOfMemoryError"
    assert good.end.completion_tokens == 4
    assert held(room) == 0


@pytest.mark.parametrize("prompts", [[[1] * 30], [[1] * 12, [2] * 17]])
def test_a_request_that_never_fits_is_refused_with_the_reason(
    cell: Cell, room: EngineRoom, prompts: list[list[int]]
) -> None:
    with pytest.raises(TooLargeError, match=r"need 4\d positions .* WDMOE_KV_MIB allows 40"):
        room.engine.submit(asking(prompts, 12).request)
    assert cell.counted("wdmoe_requests_total", outcome="refused") == 1
    fits = asking([[1] * 28], 12)
    room.serve(fits)
    assert fits.end.completion_tokens == 12


def test_a_request_that_never_fits_is_a_400_over_http(room: EngineRoom) -> None:
    desk = ServedModel(room.engine, ModelTokenizer(tokenizer()), "tiny", 2048, words=40)
    app = create(desk, ChatTemplate(FOLDER), 8, answers.health)
    with room.running(), serve(app) as url:
        http = Http(url)
        message = http.refused("/v1/completions", {"prompt": [1, 2], "max_tokens": 500})
        assert "WDMOE_KV_MIB allows 40" in message
        reply: httpx.Response = http.post("/v1/completions", {"prompt": [1, 2], "max_tokens": 5})
        assert reply.status_code == 200


def test_a_chat_without_max_tokens_takes_what_memory_leaves(http: Http, parrot: Parrot) -> None:
    parrot.positions = 40
    http.chat({"role": "user", "content": "a b"})
    http.chat({"role": "user", "content": "a b"}, max_tokens=3)
    default, given = parrot.requests
    assert default.max_tokens == 40 - len(default.prompts[0])
    assert given.max_tokens == 3


def test_logits_of_every_position_are_bounded_by_bytes(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "MAX_LOGITS_BYTES", 4 * 912 * 20)
    body = {"prompt": [300] * 15, "logits": True}
    assert http.post("/v1/completions", body | {"max_tokens": 5}).status_code == 200
    message = http.refused("/v1/completions", body | {"max_tokens": 6})
    assert message == "logits: would have 76608 bytes; allowed: with up to 20 tokens"


def test_the_configured_size_holds_or_else_a_share_of_free_memory() -> None:
    assert kv_memory.kv_bytes(3, CPU) == 3 << 20
    assert 1 << 20 < kv_memory.kv_bytes(0, torch.device("cpu")) < 1 << 45
