"""Containers come and go: requests are answered, links are shaped again, nothing is left behind."""

import json
from pathlib import Path

import pytest

from tests.stack.conftest import EXPERTS, ROOT, Stack, container, docker, until
from tests.stack.test_shaping import TOKENS, write_profile


def qdiscs(q: int) -> list[tuple[str, str]]:
    """Kind and handle of every queue in a device's container."""
    listing = json.loads(docker("exec", container(f"device-{q}"), "tc", "-json", "qdisc"))
    return sorted((item["kind"], item["handle"]) for item in listing)


def ready(stack: Stack) -> None:
    """Wait until every device is admitted and has applied what is in force now."""

    def applied() -> bool:
        now = stack.status()
        return all(link["applied_epoch"] == now["epoch"] for link in now["links"])

    until(lambda: stack.admitted() == set(range(EXPERTS)), "all devices admitted")
    until(applied, "all links applied")


@pytest.mark.parametrize("service", ["bs", "device-3", "orchestrator", "prometheus"])
def test_a_service_that_was_stopped_comes_back_as_it_was(stack: Stack, service: str) -> None:
    before = [qdiscs(q) for q in range(EXPERTS)]
    docker("stop", container(service))
    docker("start", container(service))
    until(lambda: _answers(stack), "orchestrator and base station answer")
    ready(stack)
    assert [qdiscs(q) for q in range(EXPERTS)] == before
    assert stack.complete()["timings"]["experts"]["dropped"] == {}


def test_the_whole_stack_restarts(stack: Stack) -> None:
    before = [qdiscs(q) for q in range(EXPERTS)]
    docker("compose", "--project-directory", str(ROOT), "restart")
    until(lambda: _answers(stack), "orchestrator and base station answer")
    ready(stack)
    assert [qdiscs(q) for q in range(EXPERTS)] == before
    assert stack.complete()["timings"]["experts"]["dropped"] == {}


@pytest.mark.parametrize(("fault", "repair"), [("kill", "start"), ("pause", "unpause")])
def test_a_device_lost_in_the_middle_costs_its_share_and_not_the_answer(
    stack: Stack, tmp_path: Path, fault: str, repair: str
) -> None:
    stack.use(write_profile(tmp_path, 20e6, 20e6))
    before = dropped(stack)
    body = {"prompt": TOKENS, "max_tokens": 100, "temperature": 1, "seed": 1}
    body |= {"stream": True, "timings": True}
    try:
        with stack.bs.stream("POST", "/v1/completions", json=body) as answer:
            lines = (line for line in answer.iter_lines() if line)
            next(lines)  # it is under way
            docker(fault, container("device-5"))
            *_, last, done = lines
        assert done == "data: [DONE]"
        timings = json.loads(last.removeprefix("data: "))["timings"]
        assert timings["experts"]["dropped"].keys() == {"5"}
        assert dropped(stack) > before
        assert stack.admitted() == set(range(EXPERTS)) - {5}
        assert stack.complete(TOKENS)["timings"]["experts"]["dropped"].keys() <= {"5"}
    finally:
        docker(repair, container("device-5"))
    ready(stack)
    assert stack.complete(TOKENS)["timings"]["experts"]["dropped"] == {}


def dropped(stack: Stack) -> float:
    """Dropped (token, expert) pairs of device 5 that the base station has counted."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in stack.bs.get("/metrics").text.splitlines()
        if line.startswith('wdmoe_expert_dropped_total{device="5"')
    )


def _answers(stack: Stack) -> bool:
    try:
        return bool(stack.status()) and bool(stack.health())
    except Exception:  # connection refused, reset, or no JSON yet: all mean "not yet"
        return False
