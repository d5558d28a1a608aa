"""Every query of dashboards and rules returns data from Prometheus while a replay runs."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from orchestrator.process.root import ROOT
from tests.harness.dashboards import panels
from tests.stack.conftest import ENVIRONMENT, EXPERTS, Stack, container, docker, until

BOARDS = {
    path.stem: json.loads(path.read_text())
    for path in (ROOT / "services/grafana/dashboards").glob("*.json")
}
RULES = ROOT / "services/prometheus/rules"
VERIFIED = "0"
# A p99 needs 100 requests, or states, within five minutes.
REQUESTS = 120
# Time for a one-minute rate, two scrapes and two evaluations on a busy host.
SOON_S = 60
STEP_S = 10


@pytest.fixture(scope="module", autouse=True)
def replay(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Replay under the model's own policy, after quick requests and a link verification."""
    stack.wdmoe("policy", "use", "topk")
    stack.use("mobility")
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda _: stack.complete(max_tokens=1), range(REQUESTS)))
    stack.use("near-far")
    stack.wdmoe("link", "verify", "--device", VERIFIED)
    out = tmp_path_factory.mktemp("runs") / "run"
    wdmoe = Path(sys.executable).parent / "wdmoe"
    command = [str(wdmoe), "replay", "compare", "--out", str(out), "--json"]
    command += ["--arrivals", "poisson", "--rate", "1"]  # five minutes, however fast the host is
    running = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield
    lasted = running.poll() is None
    running.terminate()
    running.wait(30)
    stack.wdmoe("policy", "use", "topk")
    assert lasted, "the replay ended before the last test"


def numbers(results: list[dict[str, Any]]) -> list[float]:
    """Return the values of an instant query that are not NaN."""
    values = (float(result["value"][1]) for result in results)
    return [value for value in values if not math.isnan(value)]


def has_data(stack: Stack, panel: dict[str, Any], expression: str) -> bool:
    """Whether a query returns numbers; for a heatmap, whether any is not zero."""
    values = numbers(stack.query(expression))
    heatmap = any(query["format"] == "heatmap" for query in panel["targets"])
    return any(values) if heatmap else bool(values)


def eventually_all(stack: Stack, pending: dict[str, tuple[dict[str, Any], list[str]]]) -> None:
    """Wait until at least one expression of each name returns data."""
    deadline = time.monotonic() + SOON_S
    while pending:
        pending = {
            name: (panel, expressions)
            for name, (panel, expressions) in pending.items()
            if not any(has_data(stack, panel, expression) for expression in expressions)
        }
        assert not pending or time.monotonic() < deadline, "\n".join(pending)
        time.sleep(0.5)


def of_device(query: dict[str, Any], device: str) -> str:
    """Return a query's expression for the row of one device."""
    expression: str = query["expr"]
    return expression.replace("$device", device)


def test_no_panel_is_empty_under_the_models_own_policy(stack: Stack) -> None:
    eventually_all(
        stack,
        {
            f"{name}: {panel['title']} ({device})": (
                panel,
                [of_device(query, device) for query in panel["targets"]],
            )
            for name, board in BOARDS.items()
            for panel in panels(board)
            for device in (map(str, range(EXPERTS)) if name == "devices" else [VERIFIED])
        },
    )


def test_every_query_of_every_panel_returns_data(stack: Stack) -> None:
    stack.wdmoe("policy", "use", "wlr", "--theta", "0.3")
    eventually_all(
        stack,
        {
            f"{name}: {panel['title']}: {query['expr']}": (panel, [of_device(query, VERIFIED)])
            for name, board in BOARDS.items()
            for panel in panels(board)
            for query in panel["targets"]
        },
    )


def test_every_recording_rule_returns_data(stack: Stack) -> None:
    groups = [
        group
        for path in RULES.glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    assert recorded
    until(lambda: all(numbers(stack.query(name)) for name in recorded), "all are recorded", SOON_S)
    answer = stack.prometheus.get("/api/v1/rules").raise_for_status().json()["data"]["groups"]
    health = {rule["name"]: rule["health"] for group in answer for rule in group["rules"]}
    assert set(health) == recorded | {
        rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule
    }
    assert set(health.values()) == {"ok"}


def test_the_variable_lists_every_device(stack: Stack) -> None:
    (variable,) = BOARDS["devices"]["templating"]["list"]
    assert variable["query"]["query"] == "label_values(wdmoe_device_up, device)"
    answer = stack.prometheus.get(
        "/api/v1/label/device/values", params={"match[]": "wdmoe_device_up"}
    )
    assert answer.raise_for_status().json()["data"] == [str(q) for q in range(EXPERTS)]


def marks(stack: Stack, name: str) -> list[dict[str, str]]:
    """Return the labels of an annotation's marks in the last five minutes, queried like Grafana."""
    annotations = BOARDS["overview"]["annotations"]["list"]
    (annotation,) = (item for item in annotations if item["name"] == name)
    now = time.time()
    answer: httpx.Response = stack.prometheus.get(
        "/api/v1/query_range",
        params={
            "query": annotation["expr"].replace("$__interval", f"{STEP_S}s"),
            "start": now - 300,
            "end": now,
            "step": STEP_S,
        },
    )
    return [result["metric"] for result in answer.raise_for_status().json()["data"]["result"]]


def test_changes_and_the_replay_are_annotated(stack: Stack) -> None:
    for name, label, value in (
        ("Profile", "profile", "near-far"),
        ("Policy", "name", "wlr"),
        ("Replay", "prompts", "compare"),
    ):
        until(
            lambda name=name, label=label, value=value: (
                value in {mark[label] for mark in marks(stack, name)}
            ),
            f"{name} {value} is marked",
            SOON_S,
        )


def test_an_alert_is_annotated(stack: Stack) -> None:
    docker("pause", container("device-7"))
    try:
        until(
            lambda: (
                ("DeviceGone", "7")
                in {(mark["alertname"], mark.get("device")) for mark in marks(stack, "Alert")}
            ),
            "the paused device is marked",
            SOON_S,
        )
    finally:
        docker("unpause", container("device-7"))
