"""The times of tokens, as a replay sees them: the bundled model on slow devices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from orchestrator.client.client import Client, now_s
from orchestrator.contracts.channel_state import ChannelState, DeviceState, Direction, Emulation
from orchestrator.contracts.http import Status
from orchestrator.moe.checkpoint import Checkpoint
from orchestrator.prompts.prompt import Prompt
from orchestrator.replay.fading import Realisation
from orchestrator.replay.request import ask
from orchestrator.results.schema import Request
from services.bs.http.app import create
from services.bs.http.chat.chat_template import ChatTemplate
from services.bs.http.submission import ServedModel
from services.bs.text.tokenizer import ModelTokenizer
from tests.harness import answers
from tests.harness.cell import around
from tests.harness.engine_room import EngineRoom
from tests.harness.parrot import FOLDER, Http, tokenizer
from tests.harness.replay_stack import CHANNEL
from tests.harness.serving import serve

TOKEN_S = 0.03
EMULATE = Emulation(hidden_size=512, intermediate_size=1024, bits_per_element=16)
PROMPT = "Name a material that is soft.\nAnswer:"
# The answer's whole text may be the beginning of the first one, which hides it until its end.
MET = Realisation(Status.model_validate(CHANNEL), 0)
STOPS = [["\n"], ["zzz", "\n\n"], [" a long stop string that never comes", "\n"]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    checkpoint = Checkpoint(FOLDER)
    flops = EMULATE.flop_per_token * checkpoint.info.layers / TOKEN_S
    device = DeviceState(Direction(), Direction(), flops)
    devices = (device,) * checkpoint.info.experts
    with around(checkpoint) as cell:
        cell.channel.state = ChannelState(1, 0, 0.0, "test", "0" * 64, devices, EMULATE)
        cell.start_all()
        vocabulary = ModelTokenizer(tokenizer())
        room = EngineRoom(cell, ends=frozenset([0]), decode=vocabulary.decode)
        desk = ServedModel(room.engine, vocabulary, "bundled", 2048, words=912)
        app = create(desk, ChatTemplate(FOLDER), 8, answers.health)
        with room.running(), serve(app) as url:
            yield url


def answered(url: str, stop: list[str]) -> Request:
    prompt = Prompt(id="p", prompt=PROMPT, answer="-", max_tokens=6, stop=stop)
    with closing(Client(url, url)) as client:
        request, _ = ask(0, prompt, client, "bundled", now_s(), MET)
    assert request.error is None
    return request


@pytest.mark.parametrize("stop", STOPS)
def test_a_replay_reports_the_time_of_each_token_whatever_the_stop_strings(
    url: str, stop: list[str]
) -> None:
    request = answered(url, stop)
    first_s, timings = request.time_to_first_token_s, request.timings
    assert first_s is not None
    assert timings is not None
    assert timings.completion_tokens > 2
    assert timings.time_to_first_token_s is not None
    assert first_s >= timings.time_to_first_token_s >= TOKEN_S
    per_token_s = (request.end_to_end_s - first_s) / (timings.completion_tokens - 1)
    assert per_token_s >= 0.99 * TOKEN_S


def test_each_token_of_a_stream_has_a_chunk_of_its_own(url: str) -> None:
    body = {"prompt": PROMPT, "max_tokens": 6, "stop": STOPS[-1], "stream": True, "timings": True}
    lines = Http(url).post("/v1/completions", body).text.split("\n\n")
    *chunks, last = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    made = last["timings"]["completion_tokens"]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["finish_reason"] is None for choice in choices[:made]] == [True] * made


def test_a_prompt_that_is_only_scored_has_no_first_token(url: str) -> None:
    body = {"prompt": PROMPT, "max_tokens": 0, "echo": True, "timings": True}
    timings = Http(url).post("/v1/completions", body).json()["timings"]
    assert timings["time_to_first_token_s"] is None
