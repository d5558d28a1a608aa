"""Concurrent clients of the running stack do not affect each other's answers."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from orchestrator.process.root import ROOT
from services.bs.engine.queue import MAX_WAITING
from tests.stack.conftest import PATIENCE_S, Stack, until

CLIENTS = 16


def prompts() -> list[str]:
    """Return one prompt per client, from every bundled set."""
    files = sorted((ROOT / "prompts").glob("*.jsonl"))
    lines = [line for path in files for line in path.read_text().splitlines()[:4]]
    return [json.loads(line)["prompt"] for line in lines[:CLIENTS]]


def outcomes(stack: Stack, outcome: str) -> float:
    """Return the base station's count of requests with an outcome."""
    prefix = f'wdmoe_requests_total{{outcome="{outcome}"}} '
    lines = stack.bs.get("/metrics").raise_for_status().text.splitlines()
    return sum(float(line.removeprefix(prefix)) for line in lines if line.startswith(prefix))


def test_concurrent_answers_equal_those_of_single_clients(stack: Stack) -> None:
    stack.use("ideal")
    texts = prompts()
    alone = [stack.complete(prompt, max_tokens=24) for prompt in texts]
    with ThreadPoolExecutor(CLIENTS) as clients:
        together = list(clients.map(lambda prompt: stack.complete(prompt, max_tokens=24), texts))
    assert len(together) == CLIENTS
    assert [text_and_length(answer) for answer in together] == [
        text_and_length(answer) for answer in alone
    ]
    batches = [answer["timings"]["batch"] for answer in together]
    assert max(batches) > 1
    for answer in together:
        timings = answer["timings"]
        parts = ("queue", "gate", "selection", "downlink", "wait", "compute", "uplink", "combine")
        parts_s = sum(timings[f"{part}_s"] for part in (*parts, "trunk", "overhead"))
        assert abs(parts_s - timings["end_to_end_s"]) < 1e-6


def text_and_length(answer: dict[str, Any]) -> tuple[str, int]:
    """Return an answer's text and its number of tokens."""
    return answer["choices"][0]["text"], answer["usage"]["completion_tokens"]


def long_request(**fields: Any) -> dict[str, Any]:
    """Return a long streaming request, whose end no client awaits."""
    return {"prompt": "12 + 30 =", "max_tokens": 1900, "temperature": 2.0, "stream": True, **fields}


def test_a_disconnecting_client_frees_its_place(stack: Stack) -> None:
    stack.use("near-far")
    before = outcomes(stack, "cancelled")
    with stack.bs.stream("POST", "/v1/completions", json=long_request(seed=1)) as response:
        next(response.iter_lines())
    until(lambda: outcomes(stack, "cancelled") == before + 1, "the request is cancelled")
    assert stack.complete()["timings"]["batch"] == 1


def test_a_full_queue_rejects_requests_until_clients_leave(stack: Stack) -> None:
    stack.use("near-far")
    assert asyncio.run(first_error_status(stack)) == 429
    until(lambda: stack.bs.post("/v1/completions", json=PLAIN).status_code == 200, "there is room")
    assert stack.complete()["timings"]["batch"] == 1


PLAIN = {"prompt": "12 + 30 =", "max_tokens": 1}


def test_a_replay_with_more_requests_than_fit_backs_off_without_errors(
    stack: Stack, tmp_path: Path
) -> None:
    stack.use("ideal")
    before = outcomes(stack, "refused")
    out = ("--out", str(tmp_path / "run"))
    summary = stack.wdmoe("replay", "compare", "--concurrency", "128", *out)
    assert (summary["n"], summary["errors"]) == (300, 0)
    backoff = summary["backoff"]
    assert backoff["retries"] == outcomes(stack, "refused") - before > 0
    assert backoff["requests"] > 0 < backoff["mean_s"] <= backoff["most_s"]


async def first_error_status(stack: Stack) -> int | None:
    """Start more clients than fit, return the first status other than 200, and end them all."""
    limits = httpx.Limits(max_connections=None)
    url = stack.bs.base_url
    async with httpx.AsyncClient(
        base_url=url, limits=limits, timeout=PATIENCE_S, trust_env=False
    ) as client:

        async def complete(prompt: str | list[str]) -> int:
            async with client.stream(
                "POST", "/v1/completions", json=long_request(prompt=prompt)
            ) as response:
                async for _ in response.aiter_bytes():
                    pass
                return response.status_code

        # More sequences than may run, to occupy the engine while the queue fills.
        requests: list[str | list[str]] = [
            *[["12 + 30 ="] * 64] * 3,
            *["12 + 30 ="] * 2 * MAX_WAITING,
        ]
        clients = [asyncio.create_task(complete(prompt)) for prompt in requests]
        statuses = (await answer for answer in asyncio.as_completed(clients))
        first = await anext((status async for status in statuses if status != 200), None)
        for client_task in clients:
            client_task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        return first
