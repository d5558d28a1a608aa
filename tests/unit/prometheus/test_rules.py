"""Prometheus' rules use exported metrics, are all tested, and each alert says what to do."""

from __future__ import annotations

import re
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from orchestrator.metrics import bs_metrics, device_metrics, orchestrator_metrics
from orchestrator.process.root import ROOT
from orchestrator.verify.measure import SIZES_BYTES

FOLDER = ROOT / "services" / "prometheus"
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "info": ("_info",)}


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules" / f"{name}.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def exported() -> set[str]:
    registry = CollectorRegistry()
    for role in (bs_metrics, orchestrator_metrics, device_metrics):
        role_registry = CollectorRegistry()
        role(role_registry)
        registry.register(role_registry)  # nested, because two roles share a metric name
    return {
        family.name + suffix
        for family in registry.collect()
        for suffix in SUFFIXES.get(family.type, ("",))
    }


def test_rules_use_metrics_that_some_role_exports() -> None:
    used = {
        word
        for rule in (*rules("recording"), *rules("alerts"))
        for word in re.findall(r"\bwdmoe_\w+", rule["expr"])
    }
    assert used
    assert used <= exported()


def test_every_rule_is_tested() -> None:
    tests = {
        name: (FOLDER / "tests" / f"{name}.yml").read_text() for name in ("recording", "alerts")
    }
    for rule in rules("recording"):
        assert rule["record"] in tests["recording"]
    for rule in rules("alerts"):
        assert f'alertname="{rule["alert"]}",alertstate="firing"' in tests["alerts"]


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for rule in rules("alerts"):
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description", "action"}


def test_links_are_judged_by_the_largest_messages_of_a_verification() -> None:
    (rule,) = (rule for rule in rules("alerts") if rule["alert"] == "LinkErrorAboveBound")
    assert set(re.findall(r'bytes="(\d+)"', rule["expr"])) == {str(max(SIZES_BYTES))}
