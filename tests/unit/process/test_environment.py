"""Settings in the checkout's .env apply to every command, as they do to compose."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.process import environment
from orchestrator.process.environment import setting
from tests.harness.command import Wdmoe


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's .env, and an environment without settings."""
    file = tmp_path / ".env"
    monkeypatch.setattr(environment, "FILE", file)
    for name in ("WDMOE_BS_URL", "WDMOE_BS_PORT", "WDMOE_ORCHESTRATOR_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("WDMOE_ORCHESTRATOR_PORT", raising=False)
    return file


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["top", "--json"],
        ["profile", "use", "ideal"],
        ["policy", "show"],
        ["policy", "use", "topk"],
        ["link", "verify"],
        ["replay", "facts"],
        ["sweep", "facts"],
    ],
    ids=" ".join,
)
def test_every_command_uses_the_ports_in_the_file(
    wdmoe: Wdmoe,
    env_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # a run would create its folder there
    env_file.write_text("WDMOE_BS_PORT=9\nexport WDMOE_ORCHESTRATOR_PORT='10'  # free\n")
    failed = wdmoe(*command)
    assert failed.code == 1
    assert "127.0.0.1:9" in failed.err or "127.0.0.1:10" in failed.err


def test_the_environment_overrides_the_file(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text("\ufeffWDMOE_BS_PORT=18000\nBASE=1\nWDMOE_PROMPTS_DIR=/${BASE}\n")
    assert setting("WDMOE_BS_PORT", "8000") == "18000"
    assert setting("WDMOE_PROMPTS_DIR") == "/1"
    assert setting("WDMOE_BS_URL", "nowhere") == "nowhere"
    monkeypatch.setenv("WDMOE_BS_PORT", "8001")
    assert setting("WDMOE_BS_PORT", "8000") == "8001"
    monkeypatch.setenv("WDMOE_BS_PORT", "")
    assert setting("WDMOE_BS_PORT", "8000") == "8000"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"WDMOE_ORCHESTRATOR_PORT=70000\n", "WDMOE_ORCHESTRATOR_PORT is '70000'; allowed: 1 to"),
        (b"WDMOE_ORCHESTRATOR_PORT=\xff\n", ".env: not UTF-8 text"),
    ],
)
def test_an_invalid_file_is_refused_in_one_line(
    wdmoe: Wdmoe, env_file: Path, content: bytes, message: str
) -> None:
    env_file.write_bytes(content)
    refused = wdmoe("status")
    assert refused.code == 2
    (line,) = refused.err.splitlines()
    assert message in line
