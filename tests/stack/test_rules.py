"""promtool, from the stack's own image, checks configuration, rules and scrapes."""

from __future__ import annotations

import json
import subprocess

import pytest

from orchestrator.process.root import ROOT
from tests.stack.conftest import EXPERTS, Stack, container, docker, until

FOLDER = ROOT / "services" / "prometheus"


@pytest.fixture(scope="module")
def image() -> str:
    services = json.loads(docker("compose", "config", "--format", "json"))["services"]
    name: str = services["prometheus"]["image"]
    return name


def promtool(image: str, *arguments: str, stdin: str = "") -> tuple[bool, str]:
    """Run promtool on files in FOLDER or on `stdin`; return its success and output."""
    command = ["docker", "run", "--rm", "--interactive", "--entrypoint", "promtool"]
    command += ["--volume", f"{FOLDER}:/prometheus-files:ro", "--workdir", "/prometheus-files"]
    done = subprocess.run(
        [*command, image, *arguments], input=stdin, capture_output=True, text=True, timeout=120
    )
    return done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_configuration_and_its_rules(image: str) -> None:
    accepted, output = promtool(image, "check", "config", "prometheus.yml")
    assert accepted, output
    assert output.count("rules found") == len(list((FOLDER / "rules").glob("*.yml"))) == 2
    accepted, output = promtool(image, "check", "rules", "rules/alerts.yml", "rules/recording.yml")
    assert accepted, output


@pytest.mark.parametrize("name", ["alerts", "recording"])
def test_every_rule_passes_its_unit_test(image: str, name: str) -> None:
    accepted, output = promtool(image, "test", "rules", f"tests/{name}.yml")
    assert accepted, output


def test_promtool_accepts_every_scrape(stack: Stack, image: str) -> None:
    stack.complete()
    device = "import urllib.request as u; print(u.urlopen('http://localhost:9100/metrics').read().decode())"
    scraped = {
        "bs": stack.bs.get("/metrics").text,
        "orchestrator": stack.orchestrator.get("/metrics").text,
        "device": docker("exec", container("device-0"), "python", "-c", device),
    }
    for text in scraped.values():
        accepted, output = promtool(image, "check", "metrics", stdin=text)
        assert accepted, output
        for name in (
            "wdmoe_build_info",
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
        ):
            assert f"\n{name}" in text


def test_prometheus_runs_alerting_and_recording_rules(stack: Stack) -> None:
    answer = stack.prometheus.get("/api/v1/rules").raise_for_status().json()
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    assert {rule["type"] for rule in rules} == {"alerting", "recording"}


def test_every_target_is_up(stack: Stack) -> None:
    until(lambda: len(stack.query("up == 1")) == EXPERTS + 2, "all targets are scraped")
    assert len(stack.query("up")) == EXPERTS + 2
