"""Prometheus' own checks, by the image that the stack runs: configuration, rules, scrapes."""

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
    """Whether it is content with the files in FOLDER or with what it reads; what it says."""
    command = ["docker", "run", "--rm", "--interactive", "--entrypoint", "promtool"]
    command += ["--volume", f"{FOLDER}:/prometheus-files:ro", "--workdir", "/prometheus-files"]
    done = subprocess.run(
        [*command, image, *arguments], input=stdin, capture_output=True, text=True, timeout=120
    )
    return done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_configuration_and_its_rules(image: str) -> None:
    content, said = promtool(image, "check", "config", "prometheus.yml")
    assert content, said
    assert said.count("rules found") == len(list((FOLDER / "rules").glob("*.yml"))) == 2
    content, said = promtool(image, "check", "rules", "rules/alerts.yml", "rules/recording.yml")
    assert content, said


@pytest.mark.parametrize("name", ["alerts", "recording"])
def test_every_rule_gives_what_its_test_expects(image: str, name: str) -> None:
    content, said = promtool(image, "test", "rules", f"tests/{name}.yml")
    assert content, said


def test_promtool_finds_nothing_to_better_in_what_is_scraped(stack: Stack, image: str) -> None:
    stack.complete()
    device = "import urllib.request as u; print(u.urlopen('http://localhost:9100/metrics').read().decode())"
    scraped = {
        "bs": stack.bs.get("/metrics").text,
        "orchestrator": stack.orchestrator.get("/metrics").text,
        "device": docker("exec", container("device-0"), "python", "-c", device),
    }
    for text in scraped.values():
        content, said = promtool(image, "check", "metrics", stdin=text)
        assert content, said
        for name in (
            "wdmoe_build_info",
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
        ):
            assert f"\n{name}" in text


def test_prometheus_runs_every_rule(stack: Stack) -> None:
    answer = stack.prometheus.get("/api/v1/rules").raise_for_status().json()
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    assert {rule["type"] for rule in rules} == {"alerting", "recording"}


def test_every_target_answers(stack: Stack) -> None:
    until(lambda: len(stack.query("up == 1")) == EXPERTS + 2, "all are scraped")
    assert len(stack.query("up")) == EXPERTS + 2
