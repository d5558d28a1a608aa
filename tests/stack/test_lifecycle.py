"""Containers stop and start: requests are answered, links are reshaped, nothing is left behind."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.process.root import ROOT
from tests.stack.conftest import EXPERTS, Stack, container, docker, until
from tests.stack.test_shaping import TOKENS, write_profile


def qdiscs(q: int) -> list[tuple[str, str]]:
    """Return kind and handle of every qdisc in a device's container."""
    listing = json.loads(docker("exec", container(f"device-{q}"), "tc", "-json", "qdisc"))
    return sorted((item["kind"], item["handle"]) for item in listing)


def ready(stack: Stack) -> None:
    """Wait until every device is admitted and has applied the current epoch."""

    def applied() -> bool:
        now = stack.status()
        return all(link["applied_epoch"] == now["epoch"] for link in now["links"])

    until(lambda: stack.admitted() == set(range(EXPERTS)), "all devices admitted")
    until(applied, "all links applied")


@pytest.mark.parametrize("service", ["bs", "device-3", "orchestrator", "prometheus"])
def test_a_restarted_service_returns_to_its_previous_state(stack: Stack, service: str) -> None:
    before = [qdiscs(q) for q in range(EXPERTS)]
    docker("stop", container(service))
    if service == "device-3":
        until(lambda: 3 not in stack.admitted(), "the base station notices the missing device")
    docker("start", container(service))
    until(lambda: _answers(stack), "orchestrator and base station answer")
    ready(stack)
    assert [qdiscs(q) for q in range(EXPERTS)] == before
    assert stack.complete()["timings"]["experts"]["dropped"] == {}


def test_profile_and_policy_survive_an_orchestrator_restart(stack: Stack) -> None:
    stack.use("mobility")
    stack.wdmoe("policy", "use", "wlr", "--theta", "0.2")
    before = stack.status()
    docker("kill", container("orchestrator"))
    docker("start", container("orchestrator"))
    until(lambda: _answers(stack), "the orchestrator answers")
    after = stack.status()
    stack.wdmoe("policy", "use", "topk")
    stack.use("near-far")
    for key in ("profile", "profile_sha256", "policy"):
        assert after[key] == before[key]
    assert after["epoch"] > before["epoch"]
    # 50 ms intervals, as if there had been no restart; the first state is announced 0.1 s ahead
    due_s = before["apply_at_s"] + 0.05 * (after["interval"] - before["interval"])
    assert due_s - 0.11 < after["apply_at_s"] < due_s + 0.11


def test_the_whole_stack_restarts(stack: Stack) -> None:
    before = [qdiscs(q) for q in range(EXPERTS)]
    # Not `compose restart`: engine 20.10 miscounts the endpoints of containers that stop together.
    compose = ("compose", "--project-directory", str(ROOT))
    names = docker(*compose, "ps", "--format", "{{.Name}}").split()
    for name in names:
        docker("stop", name)
    assert len(names) > EXPERTS
    assert docker(*compose, "ps", "-q") == ""
    docker(*compose, "start")
    until(lambda: _answers(stack), "orchestrator and base station answer")
    ready(stack)
    assert [qdiscs(q) for q in range(EXPERTS)] == before
    assert stack.complete()["timings"]["experts"]["dropped"] == {}


@pytest.mark.parametrize(("fault", "repair"), [("kill", "start"), ("pause", "unpause")])
def test_a_device_lost_during_a_request_costs_its_share_but_not_the_answer(
    stack: Stack, tmp_path: Path, fault: str, repair: str
) -> None:
    # slow enough for the fault to occur during the request
    stack.use(write_profile(tmp_path, 2e6, 2e6))
    lost, sent = counted(stack, "expert_dropped"), counted(stack, "radio_bytes")
    body = {"max_tokens": 20, "temperature": 2, "seed": 1}
    with ThreadPoolExecutor(1) as background:
        request = background.submit(stack.complete, TOKENS, **body)
        until(lambda: counted(stack, "radio_bytes") > sent, "work is on its way to the device")
        docker(fault, container("device-5"))
        try:
            assert request.result()["timings"]["experts"]["dropped"].keys() == {"5"}
            assert counted(stack, "expert_dropped") > lost
            assert stack.admitted() == set(range(EXPERTS)) - {5}
            again = stack.complete(TOKENS)["timings"]["experts"]
            assert "5" in again["dropped"]
            assert "5" not in again["used"]
        finally:
            docker(repair, container("device-5"))
    ready(stack)
    assert stack.complete(TOKENS)["timings"]["experts"]["dropped"] == {}


def test_a_request_without_any_device_fails(stack: Stack, tmp_path: Path) -> None:
    stack.use(write_profile(tmp_path, 2e6, 2e6))
    sent = counted(stack, "radio_bytes")
    devices = [container(f"device-{q}") for q in range(EXPERTS)]
    body = {"prompt": TOKENS, "max_tokens": 1000, "ignore_eos": True}
    with ThreadPoolExecutor(1) as background:
        request = background.submit(stack.bs.post, "/v1/completions", json=body)
        until(lambda: counted(stack, "radio_bytes") > sent, "devices have work")
        docker("kill", *devices)
        try:
            reply = request.result()
        finally:
            docker("start", *devices)
    assert reply.status_code == 503
    assert "no device" in reply.json()["error"]["message"]
    ready(stack)
    assert stack.complete(TOKENS)["timings"]["experts"]["dropped"] == {}


def counted(stack: Stack, metric: str) -> float:
    """Return a counter of the base station for device 5, summed over all other labels."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in stack.bs.get("/metrics").text.splitlines()
        if line.startswith(f'wdmoe_{metric}_total{{device="5"')
    )


def _answers(stack: Stack) -> bool:
    try:
        return bool(stack.status()) and bool(stack.health())
    except Exception:  # connection refused, reset, or no JSON yet: all mean "not yet"
        return False
