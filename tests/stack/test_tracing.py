"""Traces of the running stack: a replay's Chrome trace, and OTLP export to a collector."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.collector import Collector, Trace, attributes, collecting
from tests.harness.traced import SEQUENCE, check_chrome, check_spans
from tests.stack.conftest import EXPERTS, PATIENCE_S, PROJECT, Stack, docker, until

WITHIN = 0.02


@pytest.fixture
def collector(stack: Stack) -> Iterator[Collector]:
    """Run a collector on the host and have the base station export to it."""
    gateway = "{{(index .IPAM.Config 0).Gateway}}"
    host = docker("network", "inspect", f"{PROJECT}_control", "-f", gateway).strip()
    with collecting(host) as collector:
        up(stack, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        yield collector
    up(stack)


def up(stack: Stack, **env: str) -> None:
    """Restart the stack with these environment variables."""
    stack.wdmoe("up", "--timeout-s", str(PATIENCE_S), env=env)
    until(lambda: stack.admitted() == set(range(EXPERTS)), "all devices admitted")


def test_the_spans_of_a_replays_trace_add_up_to_the_measured_times(
    stack: Stack, tmp_path: Path
) -> None:
    stack.use("near-far")
    out, file = tmp_path / "run", tmp_path / "trace.json"
    where = ("--out", str(out), "--trace-file", str(file))
    stack.wdmoe("replay", "compare", "--limit", "8", "--concurrency", "3", *where)
    document = json.loads(file.read_bytes())
    check_chrome(document)
    tracks: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in document["traceEvents"]:
        if event["ph"] in "be":
            name = event["name"].split()[0]
            tracks[int(event["id2"]["local"], 16)][name] += event["ts"] * (
                1 if event["ph"] == "e" else -1
            )
    lines = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    assert sorted(tracks) == sorted(line["id"] for line in lines) == list(range(8))
    for line in lines:
        took_us, timings = tracks[line["id"]], line["timings"]
        whole_us = 1e6 * timings["end_to_end_s"]
        assert took_us["base"] == pytest.approx(whole_us, rel=WITHIN)
        assert sum(took_us[part] for part in SEQUENCE) == pytest.approx(whole_us, rel=WITHIN)
        client_us = 1e6 * (line["end_to_end_s"] + line["intended_start_s"])
        client_us -= 1e6 * line["actual_start_s"]
        assert took_us["HTTP"] == pytest.approx(client_us, rel=WITHIN)
    threads = [
        event["args"]["name"] for event in document["traceEvents"] if event["name"] == "thread_name"
    ]
    assert sorted(threads) == [*(f"device-{q}" for q in range(EXPERTS)), "steps"]


def test_every_exported_trace_adds_up_to_the_measured_times(
    stack: Stack, collector: Collector
) -> None:
    stack.use("near-far")
    replies = [stack.complete("What is 120 + 45?", max_tokens=8) for _ in range(3)]
    until(lambda: len(collector.whole()) == 3, "all traces are exported", 60)
    by_request = {_attribute(trace, "gen_ai.response.id"): trace for trace in collector.whole()}
    for reply in replies:
        trace, timings = by_request[reply["id"]], reply["timings"]
        assert trace.services == {"wdmoe-bs"}
        spans = trace.reported_spans()
        check_spans(spans)
        sums: dict[str, int] = defaultdict(int)
        for _, name, start_ns, end_ns, _ in spans:
            sums[name] += end_ns - start_ns
        whole_ns = 1e9 * timings["end_to_end_s"]
        assert sums["request"] == pytest.approx(whole_ns, rel=WITHIN)
        assert sum(sums[part] for part in SEQUENCE) == pytest.approx(whole_ns, rel=WITHIN)
        trips = [attrs for _, name, _, _, attrs in spans if name == "round_trip"]
        assert len(trips) == timings["device_messages"]


def _attribute(trace: Trace, name: str) -> Any:
    return attributes(trace.root)[name]
