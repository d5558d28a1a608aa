"""A small HTTP server in the place of base station and orchestrator, and replays against it.

A prompt's first word selects how the server answers it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse

from orchestrator.client.client import Client
from orchestrator.contracts.http import Build
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.replay_progress import Progress
from orchestrator.contracts.time_parts import PARTS
from orchestrator.contracts.timings import Experts
from orchestrator.process.build import describe
from orchestrator.prompts.prompt_sets import Prompt, PromptSet
from orchestrator.replay.run import Outcome, replay
from orchestrator.results.schema import Request
from tests.harness import answers
from tests.harness.serving import serve

HEALTH = answers.health(
    compute_dtype="fp32",
    device_timeout_s=3.0,
    build=Build(**asdict(describe())),
    device_build=describe().device_line,
    devices={"0": answers.device(build=describe().device_line)},
).model_dump()
CHANNEL: dict[str, Any] = {
    "profile": "near-far",
    "profile_sha256": "cd34",
    "profile_text": "seed: 7\n",
    "seed": 7,
    "epoch": 3,
    "interval": 0,
    "apply_at_s": 1000.5,
    "policy": {"name": "wlr", "params": {"theta": 0.2}},
    "emulate": None,
    "degraded": False,
    "verification": None,
    "links": [answers.link(applied_epoch=3).model_dump()],
}
PROFILE = {
    "name": "near-far",
    "text": """
description: raw links
seed: 7
fading: {kind: none}
devices: [{down: {rate_bps: 1e6}, up: {rate_bps: 1e6}}]
""",
    "traces": {},
}
INTERVALS = [
    {"device": 0, "epoch": 3, "interval": n, "apply_at_s": 4e9 + n, "applied_at_s": 4e9 + n + 0.005}
    for n in range(3)  # part of any run: they are in the future
]
TIMINGS = answers.timings(
    time_to_first_token_s=0.001,
    experts=Experts(used={"0": 6}, dropped={}, outage={"1": 2}, deselected={"2": 4}),
    policy=PolicySpec(**CHANNEL["policy"]),
    **dict.fromkeys(PARTS, 0.0001),
).model_dump()
SLOW_S = 0.15
# The spans of a request with one device's answer.
SPANS = [
    [0, "request", 0, 900, {}],
    [1, "queue", 0, 100, {}],
    [1, "step", 100, 800, {"step": 0, "tokens": 4}],
    [2, "layer", 200, 700, {"layer": 3, "tokens": 4}],
    [3, "round_trip", 300, 600, {"device": 2, "tokens": 4, "answered": True}],
    [4, "downlink", 300, 400, {}],
    [4, "wait", 400, 400, {}],
    [4, "compute", 400, 500, {}],
    [4, "pack", 500, 500, {}],
    [4, "uplink", 500, 600, {}],
    [1, "between", 800, 900, {}],
]
ROUTING = b"PK\x03\x04 routing"

app = FastAPI()
received: list[dict[str, Any]] = []
# Each request takes the first item and is refused; an item that is not None is its Retry-After.
full: list[str | None] = []
reported: list[Progress] = []
answered: list[Progress] = []  # those reports that got their answer
# While it is cleared, progress reports get no answer.
answering = threading.Event()
answering.set()


@app.get("/healthz")
def healthz() -> JSONResponse:
    gone = any(body["prompt"].startswith("gone") for body in received)
    status = {"status": "engine stopped" if gone else "ok"}
    return JSONResponse(HEALTH | status, 503 if gone else 200)


@app.get("/status")
def status() -> dict[str, Any]:
    return CHANNEL


@app.get("/profile")
def profile() -> dict[str, Any]:
    return PROFILE


@app.get("/intervals")
def intervals(since_s: float) -> list[dict[str, Any]]:
    return [item for item in INTERVALS[::-1] if item["apply_at_s"] >= since_s]


@app.post("/replay", status_code=204)
def hear(body: dict[str, Any]) -> None:
    reported.append(progress := Progress.model_validate(body))
    try:
        assert answering.wait(60)
    finally:
        answered.append(progress)


@app.post("/v1/completions")
async def completions(body: dict[str, Any]) -> StreamingResponse:
    received.append(body)
    if full:
        after = full.pop(0)
        headers = None if after is None else {"Retry-After": after}
        raise HTTPException(429, "too many requests are waiting", headers)
    word = body["prompt"].split()[0]
    if word in ("500", "gone"):
        raise HTTPException(500, "device-3\nis gone")
    extra: dict[str, Any] = {}
    if body.get("routing"):
        extra["routing"] = base64.b64encode(ROUTING).decode()
    if body.get("trace"):
        extra["trace"] = {"start_unix_ns": time.time_ns(), "spans": SPANS}
    return StreamingResponse(_stream(word, extra), media_type="text/event-stream")


async def _stream(word: str, extra: dict[str, Any]) -> AsyncIterator[str]:
    def event(**chunk: Any) -> str:
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

    def text(piece: str, finish: str | None = None) -> dict[str, Any]:
        return {"id": "c", "choices": [{"index": 0, "text": piece, "finish_reason": finish}]}

    if word == "slow":
        await asyncio.sleep(SLOW_S)
    if word == "garbage":
        yield "data: {oops\n\n"
    if word == "mute":
        yield event(**text("", "stop"), timings=TIMINGS) + "data: [DONE]\n\n"
        return
    yield event(**text(""))
    if word == "late":
        await asyncio.sleep(SLOW_S)
    yield ": a comment\n\n" + event(**text(" 21\u2028"))
    if word == "broken":
        raise ConnectionError
    if word == "error":
        yield event(error={"message": "all devices are down"})
    if word == "cut":
        return
    timings = {} if word == "untimed" else {"timings": TIMINGS}
    if word == "switched":
        timings = {"timings": TIMINGS | {"epoch": 4, "profile": "ideal"}}
    # Two events in one block, split within the second one.
    if word == "opaque":
        extra = {}
    block = event(**text(" ####")) + event(**text(" 12", "stop"), **timings, **extra)
    yield block[:-9]
    yield block[-9:] + "data: [DONE]\n\n"


def prompt(text: str) -> Prompt:
    return Prompt(id=f"id-{text}", prompt=text, answer="12", max_tokens=5, stop=["\n"])


def run(
    url: str,
    out: Path,
    *texts: str,
    on_request: Callable[[Request], None] = lambda request: None,
) -> Outcome:
    """Replay prompts of these texts, or resume their run."""
    prompts = PromptSet("mine", Path("mine"), "ab", tuple(map(prompt, texts)))
    with closing(Client(url, url)) as client:
        return replay(prompts, client, out, on_request, resume=out.exists())


def interrupt(request: Request) -> None:
    """Act like Ctrl-C when the second request ends."""
    if request.id == 1:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Yield the URL of both services."""
    with serve(app) as url:
        yield url
