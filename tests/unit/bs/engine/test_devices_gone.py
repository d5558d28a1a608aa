"""A request that loses all of its experts, over HTTP: an engine and devices behind a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from services.bs.http.app import create
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.submission import ServedModel
from services.bs.text.tokenizer import ModelTokenizer
from tests.harness import answers
from tests.harness.cell import Cell, emulating
from tests.harness.engine_room import EngineRoom
from tests.harness.parrot import FOLDER, tokenizer
from tests.harness.serving import serve

LONG = {"max_tokens": 1900, "stream": True}
REQUESTS = {
    "/v1/completions": LONG | {"prompt": [1, 2]},
    "/v1/chat/completions": LONG | {"messages": [{"role": "user", "content": "0"}]},
}


@pytest.fixture
def url(cell: Cell) -> Iterator[str]:
    cell.channel.state = emulating(flops=1e12)
    cell.start_all()
    vocabulary = ModelTokenizer(tokenizer())
    # Tokens of the bundled vocabulary that the tiny model does not know are not in these texts.
    room = EngineRoom(cell, decode=vocabulary.decode)
    desk = ServedModel(room.engine, vocabulary, "tiny", 2048, words=40)
    app = create(desk, ChatTemplate(FOLDER), 8, answers.health)
    with room.running(), serve(app) as url:
        yield url


@pytest.mark.parametrize("path", REQUESTS)
def test_a_stream_ends_with_an_error_when_the_last_device_goes(
    cell: Cell, url: str, path: str
) -> None:
    state = cell.channel.state
    assert state is not None
    with httpx.stream("POST", url + path, json=REQUESTS[path], trust_env=False) as reply:
        assert reply.status_code == 200
        lines = (line for line in reply.iter_lines() if line)
        next(lines)
        away = tuple(replace(device, reachable=False) for device in state.devices)
        cell.channel.state = replace(state, devices=away)
        *_, last = lines
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["message"].startswith("no device answered in layer ")
    assert error["type"] == "server_error"
    cell.channel.state = state
