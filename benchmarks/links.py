"""Measure how exactly links keep their configured rate: `python -m benchmarks.links [LINKS]`.

Needs a running stack. Each rate is applied to all devices in both directions, and `wdmoe link
verify` measures the first LINKS of them (default: 8). Prints a Markdown table; errors are those of
the devices' medians, with the smallest and the largest in parentheses.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from orchestrator.cli import common
from orchestrator.client.restore import restored

RATES_BPS = (5e6, 20e6, 50e6, 100e6)
DEVICES = 8


def verify(rate_bps: float, links: int, folder: Path) -> list[dict[str, Any]]:
    """Return the series of `wdmoe link verify`, with their backend, for every link at a rate."""
    profile = folder / f"{rate_bps / 1e6:g}-mbit.yaml"
    link = {"down": {"rate_bps": rate_bps}, "up": {"rate_bps": rate_bps}}
    spec = {
        "description": "equal links",
        "fading": {"kind": "none"},
        "devices": [link] * DEVICES,
    }
    profile.write_text(json.dumps(spec))
    wdmoe("profile", "use", str(profile))
    reports = [wdmoe("link", "verify", "--device", str(q)) for q in range(links)]
    return [{**s, "backend": report["backends"][0]} for report in reports for s in report["series"]]


def wdmoe(*arguments: str) -> dict[str, Any]:
    """Run a command that must succeed, and return its JSON output."""
    done = subprocess.run(["wdmoe", *arguments, "--json"], check=True, capture_output=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Measure, and print the table."""
    links = int(sys.argv[1]) if len(sys.argv) > 1 else DEVICES
    print("| Mbit/s | direction | KiB | n | expected | median | unshaped | error | as is |")
    print("|---|---|---|---|---|---|---|---|---|")
    with (
        common.client() as client,
        restored(client),
        tempfile.TemporaryDirectory() as folder,
    ):
        for rate_bps in RATES_BPS:
            series = verify(rate_bps, links, Path(folder))
            for direction in ("down", "up"):
                for size in sorted({s["size_bytes"] for s in series}):
                    print(row(rate_bps, direction, size, series), flush=True)
    print(f"\nTimes in ms; backend {series[0]['backend']}, {links} links.")


def row(rate_bps: float, direction: str, size: int, series: list[dict[str, Any]]) -> str:
    """Return one line: the medians over devices, and the spread of the errors."""
    selected = [s for s in series if (s["direction"], s["size_bytes"]) == (direction, size)]

    def ms(name: str) -> str:
        return f"{1e3 * median(s[name] for s in selected):.2f}"

    def percent(name: str) -> str:
        errors = sorted(100 * s[name] for s in selected)
        return f"{median(errors):+.1f} % ({errors[0]:+.1f} … {errors[-1]:+.1f})"

    return " | ".join(
        [
            f"| {rate_bps / 1e6:g} | {direction} | {size >> 10} | {sum(s['n'] for s in selected)}",
            *map(ms, ("expected_s", "measured_s", "unshaped_s")),
            percent("error"),
            f"{percent('error_as_is')} |",
        ]
    )


if __name__ == "__main__":
    main()
