"""The code of the containers is compared with the checkout, and among the containers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fastapi import FastAPI

from orchestrator.contracts.http import Build as Recorded
from orchestrator.contracts.http import Health, Orchestrator
from orchestrator.process.build import DEVICE_PACKAGES, Build, describe, source
from orchestrator.process.root import ROOT
from orchestrator.results.provenance import code_warnings
from tests.harness import answers
from tests.harness.command import Wdmoe, source_of
from tests.harness.replay_stack import HEALTH
from tests.harness.serving import serve

BUILD = Build("0.1", "3.11.2", "abc", {"torch": "2.13.0", "numpy": "2.1", "fastapi": "0.115"})
OWN = "source abc, python 3.11.2, numpy 2.1, torch 2.13.0"


def recorded(build: Build) -> Recorded:
    return Recorded.model_validate(vars(build))


def health(build: Build | None = BUILD, **devices: str | None) -> Health:
    return Health.model_validate(HEALTH).model_copy(
        update={
            "build": build and recorded(build),
            "device_build": build and build.device_line,
            "devices": {
                q.removeprefix("q"): answers.device(build=line) for q, line in devices.items()
            },
        }
    )


def test_only_a_changed_copy_of_the_source_has_another_digest(tmp_path: Path) -> None:
    for folder in ("orchestrator", "services"):
        ignored = shutil.ignore_patterns("__pycache__", "grafana")  # as in .dockerignore
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    assert source_of(tmp_path) == source()
    (tmp_path / "services" / "wire.py").write_text("# changed\n")
    assert source_of(tmp_path) != source()


def test_a_process_describes_its_build() -> None:
    assert set(DEVICE_PACKAGES) <= set(describe().packages)
    assert describe().packages["torch"]
    assert BUILD.device_line == OWN
    assert len(describe().device_line) < 256


def test_a_stack_of_this_checkouts_source_has_no_warnings() -> None:
    orchestrator = Orchestrator(build=recorded(BUILD))
    assert code_warnings(health(q0=OWN, q1=None), orchestrator, "abc") == []


def test_source_other_than_the_checkout_s_causes_a_warning() -> None:
    warnings = code_warnings(health(), Orchestrator(), "def")
    assert [line.partition(":")[0] for line in warnings] == [
        "the base station runs source abc, this checkout has def",
        "the orchestrator runs other source, this checkout has def",
    ]


def test_devices_of_another_build_than_the_base_station_cause_a_warning() -> None:
    old = OWN.replace("2.13.0", "2.9.0")
    found = health(q0=OWN, q3=old, q7=old)
    assert code_warnings(found, Orchestrator(build=recorded(BUILD)), "abc") == [
        f"device-3, device-7: not the base station's build ({OWN}) but {old}"
    ]


def test_status_warns_of_containers_with_other_source(
    wdmoe: Wdmoe, orchestrator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = FastAPI()
    model = {"name": "tiny", "layers": 4, "experts": 8, "top_k": 2, "hidden_size": 160}
    answer = health(BUILD, q0="source 0123").model_dump()
    answer["model"] |= model
    answer["devices"]["0"] |= {"admitted": True, "refused": None}
    app.get("/healthz")(lambda: answer)
    with serve(app) as url:
        monkeypatch.setenv("WDMOE_BS_URL", url)
        shown = wdmoe("status")
        warnings = wdmoe.json("status")["warnings"]
    assert shown.code == 0
    assert len(warnings) == 2
    assert f"base station runs source abc, this checkout has {source()}: `wdmoe up`" in shown.err
    assert "Warning: device-0: not the base station's build" in shown.err
    assert "not the base station's build" not in shown.out
