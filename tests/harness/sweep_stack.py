"""A small HTTP server in the place of base station and orchestrator, and sweeps against it.

Whether an answer is right depends on the policy in force; a prompt's first word can cause faults.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, Response
from typer.testing import CliRunner

from orchestrator.cli.sweep import sweep
from orchestrator.contracts.http import Build
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.replay_progress import Progress
from orchestrator.contracts.time_parts import PARTS
from orchestrator.contracts.timings import Experts
from orchestrator.process.build import describe
from orchestrator.prompts.prompt_sets import Prompt
from orchestrator.radio import profiles
from tests.harness import answers
from tests.harness.serving import serve

STILL = """
description: raw links
seed: 7
carrier_ghz: 3.5
bandwidth_hz: 1e6
noise_dbm_per_hz: -174
bs_power_w: 10
device_power_w: 0.2
fading: {kind: none}
devices:
  - {distance_m: 50, flops: 1e12}
"""
MOVING = STILL.replace("{kind: none}", "{kind: rayleigh, coherence_s: 0.05}")
DRAWN = STILL.replace("{kind: none}", "{kind: rayleigh}")
TOPK: dict[str, Any] = {"name": "topk", "params": {}}
LEAD_S = 0.02


class Stack:
    """The server's state and faults, and the requests that it received."""

    def __init__(self) -> None:
        self.profile = {"name": "before", "text": STILL, "traces": {}}
        self.policy: dict[str, Any] = {"name": "top1", "params": {}}
        self.epoch = 10
        self.apply_at_s = time.time()
        self.first_interval: int | None = None
        self.sent: list[tuple[str, str, str, int | None]] = []  # profile, policy, prompt, interval
        self.reported: list[Progress] = []
        self.well = True
        self.deaf_to_policies = False
        self.meddled = 0  # how many requests end with another user's switch in force
        self.late = 0  # how many answers report the epoch before a switch
        self.wire_dtype = "fp16"

    def switch(self) -> dict[str, Any]:
        self.epoch += 1
        self.apply_at_s = time.time() + LEAD_S
        return self.status()

    def status(self) -> dict[str, Any]:
        profile = profiles.parse(str(self.profile["text"]), str(self.profile["name"]), "posted")
        return {
            "profile": profile.name,
            "profile_sha256": profile.sha256,
            "profile_text": profile.text,
            "seed": 7,
            "epoch": self.epoch,
            "interval": self.first_interval or 0,
            "apply_at_s": self.apply_at_s,
            "policy": self.policy,
            "emulate": None,
            "degraded": False,
            "verification": None,
            "links": [answers.link(applied_epoch=self.epoch, queues=None).model_dump()],
        }

    def timings(self) -> dict[str, Any]:
        assert time.time() >= self.apply_at_s, "sent before the switch has taken effect"
        dropped = self.policy["name"] == "wlr"
        used = {"0": 30 if dropped else 40}  # 5 tokens in 4 layers
        return answers.timings(
            time_to_first_token_s=0.001,
            eq8_s=0.0008,
            batched_s=0.0002,
            experts=Experts(used=used, dropped={}, deselected={}),
            policy=PolicySpec(**(TOPK if self.deaf_to_policies else self.policy)),
            profile=self.profile["name"],
            epoch=self.epoch - self.epochs_behind(),
            **dict.fromkeys(PARTS, 0.0001),
        ).model_dump()

    def epochs_behind(self) -> int:
        self.late -= 1
        return int(self.late >= 0)


stack = Stack()
app = FastAPI()


@app.get("/healthz")
def healthz() -> JSONResponse:
    build = Build(**asdict(describe()))
    status = "ok" if stack.well else "engine stopped"
    health = answers.health(status=status, wire_dtype=stack.wire_dtype, build=build)
    return JSONResponse(health.model_dump(), 200 if stack.well else 503)


@app.get("/status")
def status() -> dict[str, Any]:
    return stack.status()


@app.get("/profile")
def profile() -> dict[str, Any]:
    return stack.profile


@app.post("/profile")
def use_profile(body: dict[str, Any]) -> dict[str, Any]:
    stack.profile = {key: body[key] for key in ("name", "text", "traces")}
    stack.first_interval = body["first_interval"]
    return stack.switch()


@app.post("/policy")
def use_policy(body: dict[str, Any]) -> JSONResponse:
    if body["name"] == "channel":
        return JSONResponse({"detail": "policy channel: not today"}, 400)
    stack.policy = body
    return JSONResponse(stack.switch())


@app.get("/intervals")
def intervals(since_s: float) -> list[dict[str, Any]]:
    assert since_s <= stack.apply_at_s
    at = {"apply_at_s": stack.apply_at_s, "applied_at_s": stack.apply_at_s + 0.001}
    epochs = (stack.epoch - 1, stack.epoch)
    return [{"device": 0, "epoch": epoch, "interval": 0, **at} for epoch in epochs]


@app.post("/replay", status_code=204)
def replay(body: dict[str, Any]) -> None:
    stack.reported.append(Progress.model_validate(body))


@app.post("/v1/completions")
def completions(body: dict[str, Any]) -> Response:
    word = body["prompt"].split()[0]
    policy = stack.policy["name"]
    sent = (str(stack.profile["name"]), policy, body["prompt"], stack.first_interval)
    if word == "stop" and len(stack.sent) == int(body["prompt"].split()[1]):
        stack.well = False
    if not stack.well or word == "500":
        raise HTTPException(500, "gone")
    stack.sent.append(sent)
    right = policy == "topk" or not body["prompt"].endswith("hard")
    text = {"text": "12" if right else "13", "finish_reason": "stop"}
    chunk = {"choices": [text], "timings": stack.timings()}
    if stack.meddled:
        stack.meddled -= 1
        stack.switch()
    return Response(
        f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n", media_type="text/event-stream"
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve(app) as url:
        yield url


@pytest.fixture(autouse=True)
def ready(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Reset the server, set the URLs of the commands to it, and write three profiles."""
    stack.__init__()  # type: ignore[misc]
    monkeypatch.setenv("WDMOE_BS_URL", url)
    monkeypatch.setenv("WDMOE_ORCHESTRATOR_URL", url)
    monkeypatch.chdir(tmp_path)
    for name, text in (("still", STILL), ("moving", MOVING), ("drawn", DRAWN)):
        Path(f"{name}.yaml").write_text(text)


def invoke(*arguments: str) -> tuple[str, Any]:
    """Run `wdmoe sweep` with these arguments; return its output and the error it ends with."""
    command = typer.Typer()
    command.command()(sweep)
    result = CliRunner().invoke(command, arguments)
    return result.stdout, result.exception


def prompts(name: str, *texts: str) -> str:
    items = [
        Prompt(id=f"{name}-{n}", prompt=text, answer="12", max_tokens=5, stop=[])
        for n, text in enumerate(texts)
    ]
    Path(f"{name}.jsonl").write_text("".join(item.model_dump_json() + "\n" for item in items))
    return f"jsonl:{name}.jsonl"


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]
