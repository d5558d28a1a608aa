"""The number of series stays constant, however many requests arrive and whatever they contain."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import zmq
from prometheus_client import CollectorRegistry

from orchestrator.contracts.channel_state import PolicyState
from orchestrator.errors import InputError
from services.bs.engine.engine import Engine
from services.bs.engine.queue import MAX_WAITING
from services.bs.engine.request import Event, FullError
from services.net import wire
from tests.harness.cell import Cell, emulating
from tests.harness.control_plane import FAST, eventually, hear, profile, report, running
from tests.harness.engine_room import Answer, EngineRoom, asking

pytestmark = pytest.mark.slow

REQUESTS = 10_000
POLICIES = [
    PolicyState("topk"),
    PolicyState("wlr", {"theta": 0.3}),
    PolicyState("wlr", {"theta": 0.25, "max_drops": 2, "latency": "measured"}),
    PolicyState("top1"),
    PolicyState("random"),
    PolicyState("channel"),
    PolicyState("no such policy"),
]
HOSTILE = ["", "}", 'a"b', "a\\b", "a\nb", "wdmoe_requests_total 7", "x" * 200, "🦄", "\u202e"]


def series(registry: CollectorRegistry) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """Return the names and labels of all exported series; Prometheus requires them to be unique."""
    found = [
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in registry.collect()
        for sample in family.samples
    ]
    assert len(set(found)) == len(found)
    return set(found)


def leave(_: Event) -> None:
    raise OSError("the client has gone")


def batch(first: int) -> list[Answer]:
    """Return as many requests as the queue takes; some fail, some are cancelled early."""
    answers = []
    for n in range(first, first + MAX_WAITING - 1):
        prompt = [n % 40, n // 40 % 40, n // 1600 % 40][: 1 + n % 3]
        fail = {"also": leave} if n % 50 == 7 else {}
        answer = asking([prompt], n % 3, stop=(HOSTILE[n % 9],), logprobs=n % 4 or None, **fail)
        answer.request.id = HOSTILE[n % 9] + str(n)
        answer.request.cancelled = n % 50 == 11
        answers.append(answer)
    return answers


def overfill(engine: Engine) -> None:
    """Submit more requests than may wait, all cancelled, so that none is served."""
    answers = [asking([[1]], 1) for _ in range(MAX_WAITING)]
    for answer in answers:
        answer.request.cancelled = True
        engine.submit(answer.request)
    with pytest.raises(FullError):
        engine.submit(asking([[1]], 1).request)
    engine._drop_cancelled()


def test_ten_thousand_requests_add_no_series(cell: Cell) -> None:
    cell.channel.state = state = emulating(flops=1e15, rate_bps=1e9)
    cell.start_all()
    room = EngineRoom(cell)
    before = series(cell.registry)
    stranger = cell.socket(9)
    submitted = 0
    for number in range(-(-REQUESTS // (MAX_WAITING - 1))):
        policy = POLICIES[number % len(POLICIES)]
        name = HOSTILE[number % 9] + str(number)
        cell.channel.state = replace(state, profile=name, epoch=number, policy=policy)
        with contextlib.suppress(zmq.Again):
            stranger.send_multipart([name.encode()], zmq.NOBLOCK)
        answers = batch(submitted)
        submitted += len(answers)
        room.serve(*answers)
        if number % 20 == 0:
            overfill(room.engine)
    cell.devices.lose(1, "silent")
    room.serve(*batch(0))
    for q in range(cell.checkpoint.info.experts):
        cell.devices.lose(q, "silent")
    assert series(cell.registry) == before
    assert submitted >= REQUESTS
    counted = {
        outcome: cell.counted("wdmoe_requests_total", outcome=outcome)
        for outcome in ("ok", "error", "cancelled", "refused")
    }
    assert counted["ok"] > 0.9 * REQUESTS
    assert min(counted.values()) > 0
    assert cell.counted("wdmoe_refused_messages_total", reason="policy") > 0
    assert cell.counted("wdmoe_refused_messages_total", reason="identity") > 0
    dropped = sum(
        cell.counted("wdmoe_expert_dropped_total", device=str(q), layer="0", reason="policy")
        for q in range(4)
    )
    assert dropped > 0


def test_an_invalid_answer_adds_no_series(cell: Cell) -> None:
    before = series(cell.registry)
    device = cell.socket(1)
    assert cell.say(device, cell.hello(1)) == wire.Welcome()
    for word in HOSTILE:
        device.send_multipart(wire.encode(wire.Failed(7, word)))
        device.send_multipart([word.encode()])
    assert cell.say(device, cell.hello(1)) == wire.Welcome()
    assert series(cell.registry) == before


def test_the_orchestrator_exports_only_what_is_in_force() -> None:
    with running(FAST, None) as stack:
        states = stack.connect(zmq.SUB, "bs")
        reports = stack.connect(zmq.PUSH, "device-0")
        hear(states)
        before = {name for name, _ in series(stack.registry)}
        many = len(series(stack.registry))
        for number, word in enumerate(HOSTILE):
            stack.control.use(profile(FAST, name=f"profile-{number}"))
            stack.control.use_policy("wlr", {"theta": number / 100})
            with pytest.raises(InputError):
                stack.control.use_policy(word, {word: 1})
            reports.send(report(error=word))
            reports.send(word.encode())
        last = f"theta={(len(HOSTILE) - 1) / 100}"
        eventually(
            lambda: any(
                last in labels.get("params", "")
                for name, pairs in series(stack.registry)
                if name == "wdmoe_policy_info" and (labels := dict(pairs))
            )
        )
        eventually(
            lambda: (stack.metric("wdmoe_refused_messages_total", reason="malformed") or 0) > 0
        )
        assert {name for name, _ in series(stack.registry)} == before
        assert len(series(stack.registry)) == many
