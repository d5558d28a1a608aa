"""Shared fixtures of the unit tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from orchestrator.selection import policies
from tests.harness.cell import cell as cell
from tests.harness.cell import checkpoint as checkpoint
from tests.harness.command import orchestrator as orchestrator
from tests.harness.command import wdmoe as wdmoe
from tests.harness.control_plane import STILL, Stack, running
from tests.harness.parrot import Http, Parrot, base_station

# A busy host is not a failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Add a second folder of policies, and return it."""
    monkeypatch.setattr(policies, "__path__", [*policies.__path__, str(tmp_path)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        parent, _, file = name.rpartition(".")
        if parent == policies.__name__:
            del sys.modules[name]
            vars(policies).pop(file, None)


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def http(parrot: Parrot) -> Iterator[Http]:
    with base_station(parrot) as url:
        yield Http(url)


@pytest.fixture(params=["curve", "plain"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    with running(STILL, tmp_path if request.param == "curve" else None) as stack:
        yield stack
