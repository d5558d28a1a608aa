"""Measure a channel that changes every 50 ms: `python -m benchmarks.mobility [MINUTES]`.

Needs a running stack; takes ten minutes by default. Prints the cost of the control plane (CPU time
of all containers without a request, with a static channel and with a moving one), then how late
intervals were applied while prompts were replayed, and the drops and backlogs of the queues.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from benchmarks.links import wdmoe
from orchestrator.cli import common
from orchestrator.cli.common import orchestrator_url
from orchestrator.client.restore import restored

IDLE_S = 60.0


def cpu_s() -> float:
    """Return the CPU time that the stack's containers have used so far [s]."""
    names = subprocess.run(
        ["docker", "ps", "--format", "{{.Names}}", "--filter", "name=wdmoe-"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    read = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || cat /sys/fs/cgroup/cpu.stat"
    total = 0.0
    for name in names:
        fields = subprocess.run(
            ["docker", "exec", name, "sh", "-c", read], check=True, capture_output=True, text=True
        ).stdout.split()
        total += int(fields[0]) / 1e9 if len(fields) == 1 else int(fields[1]) / 1e6
    return total


def idle_load(profile: str) -> float:
    """Return the CPU seconds per second of the whole stack under a profile, without requests."""
    wdmoe("profile", "use", profile)
    time.sleep(2)
    began_s, before_s = time.monotonic(), cpu_s()
    time.sleep(IDLE_S)
    return (cpu_s() - before_s) / (time.monotonic() - began_s)


def main() -> None:
    """Measure and print; the stack is restored afterwards."""
    with common.client() as client, restored(client):
        measure(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)


def measure(minutes: float) -> None:
    """Measure, and print; the `mobility` profile stays active."""
    still, moving = idle_load("near-far"), idle_load("mobility")
    print(f"CPU of the idle stack: {still:.3f} cores (static), {moving:.3f} cores (moving);")
    print(f"the control plane costs {moving - still:.3f} cores.", flush=True)
    began_s, requests = time.monotonic(), 0
    backlogs, applied, faults = [], [], set()
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() - began_s < 60 * minutes:
            out = Path(folder) / str(requests)
            summary = wdmoe(
                "replay", "facts", "--limit", "280", "--fading", "one", "--out", str(out)
            )
            requests += summary["n"]
            faults.update(summary["warnings"])
            lines = (out / "intervals.jsonl").read_text().splitlines()
            applied += [json.loads(line) for line in lines]
            links = httpx.get(f"{orchestrator_url()}/status").json()["links"]
            faults.update(link["error"] for link in links if link["error"])
            queues = [queue for link in links for queue in link["queues"].values()]
            backlogs.append(max(queue["backlog_bytes"] for queue in queues))
            drops = sum(queue["drops"] for queue in queues)
    late_ms = [1e3 * (item["applied_at_s"] - item["apply_at_s"]) for item in applied]
    p50, p95, p99 = np.percentile(late_ms, [50, 95, 99])
    minutes = (time.monotonic() - began_s) / 60
    print(f"{minutes:.1f} min, {requests} requests, n = {len(late_ms)} intervals on 8 devices:")
    print(f"late p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f}, max {max(late_ms):.2f} ms")
    print(f"packets dropped {drops}; longest queue after a replay {max(backlogs)} bytes")
    print("\n".join(sorted(faults)) or "no fault, no warning")


if __name__ == "__main__":
    main()
