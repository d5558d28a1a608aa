"""Bad input gives one clear line and the right exit code, and the stack keeps serving."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

from orchestrator.process.root import ROOT
from tests.stack.conftest import (
    ENVIRONMENT,
    EXPERTS,
    MODEL,
    Stack,
    container,
    docker,
    until,
    wdmoe,
)


@pytest.fixture(autouse=True)
def _still_serving(stack: Stack) -> Iterator[None]:
    yield
    until(lambda: stack.admitted() == set(range(EXPERTS)), "all devices admitted")
    assert stack.complete()["timings"]["experts"]["dropped"] == {}


def error_line(*arguments: str, code: int, env: dict[str, str] | None = None) -> str:
    """Run a command that must fail; return its one line of error."""
    done = wdmoe(*arguments, env=env)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    return lines[0]


def test_an_unknown_profile_is_rejected(stack: Stack) -> None:
    line = error_line("profile", "use", "no-such-profile", code=2)
    assert "no-such-profile" in line
    assert "near-far" in line


def test_a_malformed_profile_is_rejected(stack: Stack, tmp_path: Path) -> None:
    before = stack.status()["profile"]
    path = tmp_path / "bad.yaml"
    path.write_text("description: x\nseed: 1\nfading: {kind: none}\ndevices: 3\n")
    line = error_line("profile", "use", str(path), code=2)
    assert "bad.yaml" in line
    assert "devices" in line
    assert stack.status()["profile"] == before


def test_a_profile_for_another_number_of_devices_is_rejected(stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "three.yaml"
    devices = [{"distance_m": 50, "flops": 1e12}] * 3
    profile = {"description": "x", "seed": 1, "fading": {"kind": "none"}, "devices": devices}
    path.write_text(json.dumps(profile))
    assert "devices has 3 entries" in error_line("profile", "use", str(path), code=2)


def test_a_missing_checkpoint_is_rejected(stack: Stack, tmp_path: Path) -> None:
    line = error_line("up", code=2, env={"WDMOE_MODEL": str(tmp_path / "nowhere")})
    assert str(tmp_path / "nowhere") in line


def test_a_broken_checkpoint_is_rejected(stack: Stack, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(MODEL, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "model.safetensors" in error_line("up", code=2, env={"WDMOE_MODEL": str(broken)})


def test_a_port_in_use_is_reported(stack: Stack) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        env = {"COMPOSE_PROJECT_NAME": "wdmoe-test-port", "WDMOE_BS_PORT": port}
        line = error_line("up", code=1, env=env)
    assert port in line
    assert "WDMOE_BS_PORT" in line


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_too_old_compose_is_rejected(stack: Stack, tmp_path: Path, command: str) -> None:
    line = error_line(command, code=1, env=old_compose(tmp_path, "2.19.1"))
    assert line.endswith("docker compose is 2.19.1; allowed: 2.20 or newer")


def test_a_compose_that_lists_containers_as_one_array_works(stack: Stack, tmp_path: Path) -> None:
    done = wdmoe("up", "--json", env=old_compose(tmp_path, "2.20.3"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["urls"]["bs"] == "http://127.0.0.1:18000"


def old_compose(folder: Path, version: str) -> dict[str, str]:
    """Return a PATH with a docker that reports this version and lists containers as an array."""
    script = folder / "docker"
    script.write_text(f"""#!/bin/sh
    case "$*" in
        "compose version"*) echo {version} ;;
        "compose ps"*json*) echo "[]" ;;
        *) exec {shutil.which("docker")} "$@" ;;
    esac
    """)
    script.chmod(0o755)
    return {"PATH": f"{folder}:{ENVIRONMENT['PATH']}"}


def test_a_device_with_another_checkpoints_experts_is_rejected(
    stack: Stack, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(MODEL, other)
    tensors = load_file(other / "model.safetensors")
    name = next(name for name in tensors if ".experts." in name)
    tensors[name] += 1
    save_file(tensors, other / "model.safetensors")
    docker("stop", container("device-6"))
    options = ["run", "--rm", "-T", "--no-deps"]
    try:
        done = subprocess.run(
            ["docker", "compose", *options, "-v", f"{other}:/model:ro", "device-6"],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "refused by the base station: its fingerprint" in done.stderr
        assert "fingerprint" in stack.health()["devices"]["6"]["refused"]
    finally:
        docker("start", container("device-6"))


@pytest.mark.parametrize(
    ("content", "word"),
    [("", "empty"), ("{", "line 1"), ('{"id": "a"}\n', "prompt"), ("[]\n", "line 1")],
)
def test_an_empty_or_malformed_prompt_file_is_rejected(
    stack: Stack, tmp_path: Path, content: str, word: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    line = error_line("replay", f"jsonl:{path}", "--out", str(tmp_path / "run"), code=2)
    assert str(path) in line
    assert word in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "JSON"),
        (b"[]", "body"),
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": [1 << 30]}, "prompt"),
        ({"prompt": ["a", 3]}, "prompt"),
        ({"prompt": "x" * 100_000}, "context"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "max_tokens": "5"}, "max_tokens"),
        ({"prompt": "x", "max_tokens": 100_000}, "context"),
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "x", "temperature": float("nan")}, ""),
        ({"prompt": "x", "stop": [""]}, "stop"),
        ({"prompt": "x", "n": 65}, "n: Input should be less than or equal to 64"),
        ({"prompt": "x", "suffix": "y"}, "suffix: is not served"),
        (b'{"prompt": "x" "y"}', "body: not JSON at character 15"),
        ({"prompt": "x", "model": "gpt-4"}, "gpt-4"),
        ({"prompt": "x", "no_such_field": 1, "strict": True}, "no_such_field: is not a field"),
    ],
)
def test_a_malformed_request_is_rejected(stack: Stack, body: Any, word: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = stack.bs.post(
        "/v1/completions", content=content, headers={"Content-Type": "application/json"}
    )
    assert 400 <= answer.status_code < 500
    assert word in answer.json()["error"]["message"]


def test_an_unknown_path_and_an_oversized_body_are_rejected(stack: Stack) -> None:
    assert stack.bs.get("/v2/nothing").status_code == 404
    huge = b'{"prompt": "' + b"x" * (9 << 20) + b'"}'
    answer = httpx.post(f"{stack.bs.base_url}/v1/completions", content=huge, trust_env=False)
    assert answer.status_code == 413
