"""The engine: requests from the queue to their ends, side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.contracts.channel_state import PolicyState
from orchestrator.contracts.http import Probes
from orchestrator.contracts.policy import PolicySpec
from orchestrator.contracts.time_parts import PARTS
from orchestrator.selection.policies.topk import TopK
from services.bs.engine.engine import MAX_RUNNING
from services.bs.engine.queue import MAX_WAITING
from services.bs.engine.request import Event, Finished, FullError, Piece
from services.bs.experts.prober import ProbeSeries
from tests.harness.cell import Cell, emulating
from tests.harness.engine_room import Answer, EngineRoom, asking

LIMITED = """\
from orchestrator.selection import Gate, Policy, Selection
from orchestrator.selection.policies.topk import TopK


class Limited(Policy):
    \"\"\"A policy with an optional parameter.\"\"\"

    limit: int | None = None
    share: float = 0.5

    def select(self, gate: Gate) -> Selection:
        return TopK().select(gate)
"""


def texts(answers: list[Answer]) -> list[str]:
    return [answer.text() for answer in answers]


def test_a_parameter_without_a_value_is_not_reported(cell: Cell, folder: Path) -> None:
    (folder / "limited.py").write_text(LIMITED)
    cell.channel.state = replace(emulating(flops=1e12), policy=PolicyState("limited"))
    cell.start_all()
    answer = asking([[1, 2]], 2)
    EngineRoom(cell).serve(answer)
    policy = answer.end.timings.policy
    assert policy == PolicySpec(name="limited", params={"share": 0.5})
    assert policy.label == "limited"


def test_requests_share_messages_and_count_their_own_tokens(cell: Cell, room: EngineRoom) -> None:
    answers = [asking([[n + 1] * (n + 2)], 6) for n in range(4)]
    room.serve(*answers)
    all_timings = [answer.end.timings for answer in answers]
    for n, timings in enumerate(all_timings):
        assert (timings.prompt_tokens, timings.completion_tokens) == (n + 2, 6)
        assert sum(timings.experts.used.values()) == 2 * 3 * (n + 2 + 5)
        assert timings.batch == 4
        assert sum(getattr(timings, part) for part in PARTS) == pytest.approx(
            timings.end_to_end_s, rel=1e-9
        )
        assert timings.trunk_s > 0 < timings.uplink_s
    sent = sum(cell.counted("wdmoe_device_messages_total", device=str(q)) for q in range(4))
    assert sent <= 4 * 3 * 6
    assert sent < sum(timings.device_messages for timings in all_timings)
    assert len({timings.batched_s for timings in all_timings}) == 1
    assert sum(timings.eq8_s for timings in all_timings) > all_timings[0].batched_s


def test_a_shared_prefix_counts_as_tokens_of_one_prompt(room: EngineRoom) -> None:
    beginning = [3, 14, 15, 9, 2]
    answer = asking([[*beginning, 6], [*beginning, 5, 35], [*beginning, 8]], 0, echo=True)
    alone = asking([[*beginning, 6]], 0, echo=True)
    room.serve(answer, alone)
    timings = answer.end.timings
    assert timings.prompt_tokens == 5 + 1 + 2 + 1
    assert sum(timings.experts.used.values()) == 2 * 3 * timings.prompt_tokens
    a_token_s = [a.end.timings.eq8_s / a.end.timings.prompt_tokens for a in (answer, alone)]
    assert a_token_s[0] == pytest.approx(a_token_s[1])  # all devices are equal


def test_ended_requests_leave_and_waiting_ones_join_in_order(room: EngineRoom) -> None:
    began: list[int] = []

    def begins(n: int) -> Answer:
        return asking([[1 + n % 7]], 2 + n % 3, lambda event: hear(n, event))

    def hear(n: int, event: Event) -> None:
        if isinstance(event, Piece) and n not in began:
            began.append(n)

    answers = [begins(n) for n in range(MAX_WAITING - 1)]
    room.serve(*answers)
    assert began == list(range(len(answers)))
    assert [a.end.completion_tokens for a in answers] == [2 + n % 3 for n in range(len(answers))]
    assert max(a.end.timings.batch for a in answers) <= MAX_RUNNING


def test_a_full_queue_refuses(room: EngineRoom) -> None:
    for _ in range(MAX_WAITING):
        room.engine.submit(asking([[1]], 1).request)
    with pytest.raises(FullError):
        room.engine.submit(asking([[1]], 1).request)


def test_a_cancelled_request_does_not_change_the_others(cell: Cell, room: EngineRoom) -> None:
    alone = asking([[4, 5]], 8)
    room.serve(alone)
    stays, in_the_queue = asking([[4, 5]], 8), asking([[3]], 500)

    def leave(event: Event) -> None:
        if isinstance(event, Piece) and len(gone.events) == 3:
            gone.request.cancelled = True

    gone = asking([[1, 2]], 500, leave)
    in_the_queue.request.cancelled = True
    room.serve(gone, stays, in_the_queue)
    assert len(gone.events) == 3
    assert in_the_queue.events == []
    assert stays.text() == alone.text()
    assert cell.counted("wdmoe_requests_total", outcome="cancelled") == 2
    assert cell.counted("wdmoe_requests_total", outcome="ok") == 2


def test_a_failing_request_does_not_end_the_others(cell: Cell, room: EngineRoom) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, Piece):
            raise OSError("no client listens")

    bad, good = asking([[1, 2]], 8, fail), asking([[4, 5]], 8)
    room.serve(bad, good)
    assert bad.failure == "internal error: OSError"
    assert good.end.completion_tokens == 8
    assert cell.counted("wdmoe_requests_total", outcome="error") == 1


def test_the_engine_goes_on_after_a_failed_step(
    room: EngineRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [asking([[1, 2]], 8), asking([[4, 5]], 8)]
    with monkeypatch.context() as broken:
        broken.setattr(TopK, "select", lambda *_: 1 / 0)
        room.serve(*first)
    assert [answer.failure for answer in first] == ["internal error: ZeroDivisionError"] * 2
    later = asking([[1, 2]], 8)
    room.serve(later)
    assert later.end.completion_tokens == 8


def test_a_request_fails_without_any_device(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e15)
    answer = asking([[1]])
    EngineRoom(cell).serve(answer)
    assert answer.failure == "no device can be reached"


def test_a_request_fails_when_its_last_device_goes(cell: Cell, room: EngineRoom) -> None:
    def end_devices(event: Event) -> None:
        if isinstance(event, Piece):
            cell.end_devices()

    answer = asking([[1, 2]], 8, end_devices)
    room.serve(answer)
    assert answer.failure.startswith("no device answered in layer ")
    assert [type(event) for event in answer.events[:-1]] == [Piece]
    assert cell.counted("wdmoe_requests_total", outcome="no_device") == 1
    assert cell.counted("wdmoe_requests_total", outcome="ok") == 0


def test_an_answer_counts_the_experts_that_its_tokens_lost(cell: Cell) -> None:
    cell.channel.state = emulating(flops=1e15)
    for q in range(3):
        cell.start(q)
    cell.admit(0, 1, 2)
    answer = asking([list(range(20))], 8)
    EngineRoom(cell).serve(answer)
    lost = sum(answer.end.timings.experts.dropped.values())
    (finished,) = (event for event in answer.events if isinstance(event, Finished))
    assert finished.experts_lost == answer.end.experts_lost == lost > 0


def test_requests_are_served_between_the_probes_of_a_series(room: EngineRoom) -> None:
    order: list[str] = []

    def named(name: str) -> Answer:
        return asking([[1, 2]], 5, lambda event: order.append(name))

    def probed(probes: Probes | str) -> None:
        assert isinstance(probes, Probes)
        assert len(probes.down) == len(probes.up) == len(probes.loopback_s) == 3
        order.append("probes")

    series = ProbeSeries(1, 100, 3, probed)
    room.serve(named("before"), series, named("after"))
    assert list(dict.fromkeys(order)) == ["before", "after", "probes"]
    assert order.index("after") == order.count("before")


def test_a_series_of_probes_ends_when_its_client_leaves(room: EngineRoom) -> None:
    def leave(_: Event) -> None:
        series.cancelled = True

    delivered: list[Probes | str] = []
    series = ProbeSeries(1, 100, 100, delivered.append)
    room.serve(series, asking([[1, 2]], 2, leave))
    assert series.probes is not None
    assert len(series.probes.down) == 1
    assert delivered == []


def test_a_request_keeps_the_policy_that_it_began_with(cell: Cell, room: EngineRoom) -> None:
    state = cell.channel.state
    assert state is not None
    alone = asking([[7, 8, 9]], 6)
    room.serve(alone)

    def switch(_: Event) -> None:
        cell.channel.state = replace(state, policy=PolicyState("top1"))

    first, later = asking([[7, 8, 9]], 6, switch), asking([[7, 8, 9]], 6)
    room.serve(first)
    room.serve(later)
    assert first.text() == alone.text()
    all_timings = [answer.end.timings for answer in (first, later)]
    assert [timings.policy.name for timings in all_timings] == ["topk", "top1"]
    used = [sum(timings.experts.used.values()) for timings in all_timings]
    assert used == [2 * 3 * (3 + 5), 3 * (3 + 5)]


@pytest.mark.parametrize("policy", ["topk", "random"])
def test_an_answer_does_not_depend_on_the_others_beside_it(
    cell: Cell, room: EngineRoom, policy: str
) -> None:
    cell.channel.state = replace(emulating(flops=1e15), policy=PolicyState(policy))
    prompts = [[(3 * n + i) % 40 for i in range(1 + n % 5)] for n in range(9)]
    alone = [asking([prompt], 10, want_routing=True) for prompt in prompts]
    for answer in alone:
        room.serve(answer)
    together = [asking([prompt], 10) for prompt in prompts]
    room.serve(*together)
    assert texts(together) == texts(alone)
    used = [[a.end.timings.experts.used for a in some] for some in (alone, together)]
    assert used[0] == used[1]
