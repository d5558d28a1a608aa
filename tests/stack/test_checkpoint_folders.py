"""Checkpoint folders from the field: the containers run them, or `up` rejects them at once."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralForCausalLM

from orchestrator.errors import InputError
from orchestrator.host import readable
from tests.stack.conftest import (
    BUNDLED,
    EXPERTS,
    PATIENCE_S,
    Stack,
    container,
    docker,
    until,
    wdmoe,
)

IDS = [5, 17, 300, 42, 8]
ANOTHER_USER = 12345


def write_fp8(folder: Path, plain: Path) -> None:
    """Write the bundled model with FP8 weights and scales, and one with the scaled weights."""
    shutil.copytree(BUNDLED, folder)
    shutil.copytree(BUNDLED, plain)
    stored, scaled = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        stored[name] = scaled[name] = weight
        if "_proj" in name or ".experts." in name:
            scale = weight.float().abs().max() / 448
            stored[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
            stored[f"{name}_scale"] = scale.reshape(1)
            scaled[name] = stored[name].float() * scale
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    save_file(scaled, plain / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "static"}
    (folder / "config.json").write_text(json.dumps(config))


def as_snapshot(folder: Path, cache: Path) -> Path:
    """Copy a folder's files into the layout of Hugging Face's cache; return the snapshot."""
    snapshot = cache / "models--me--tiny-mixtral" / "snapshots" / "0123456789abcdef"
    blobs = cache / "models--me--tiny-mixtral" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, blobs / str(number))
        (blobs / str(number)).chmod(0o644)
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    return snapshot


@pytest.fixture
def bundled_again(stack: Stack) -> Iterator[None]:
    yield
    done = wdmoe("up", "--json", "--timeout-s", str(PATIENCE_S))
    assert done.returncode == 0, done.stderr
    until(lambda: stack.admitted() == set(range(EXPERTS)), "all devices admitted")


@pytest.mark.usefixtures("bundled_again")
def test_an_fp8_snapshot_of_the_hubs_cache_has_the_logits_of_its_scaled_weights(
    stack: Stack, tmp_path: Path
) -> None:
    write_fp8(tmp_path / "fp8", tmp_path / "plain")
    snapshot = as_snapshot(tmp_path / "fp8", tmp_path / "hub")
    env = {"WDMOE_MODEL": str(snapshot)}
    done = wdmoe("up", "--json", "--timeout-s", str(PATIENCE_S), env=env)
    assert done.returncode == 0, done.stderr
    until(lambda: stack.admitted() == set(range(EXPERTS)), "all devices admitted")
    stack.use("ideal")
    assert stack.health()["model"]["name"] == "tiny-mixtral"
    reply = stack.complete(IDS, max_tokens=1, logits=True)
    flat = np.frombuffer(base64.b64decode(reply["logits"]), dtype="<f4")
    whole = MixtralForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    with torch.inference_mode():
        expected = whole(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(flat.reshape(expected.shape) - expected).max() <= 1e-4


def test_a_model_readable_only_by_another_user_is_rejected_before_anything_starts(
    stack: Stack, tmp_path: Path
) -> None:
    before = docker("ps", "--no-trunc", "--quiet")
    folder = shutil.copytree(BUNDLED, tmp_path / "mine")
    close(folder)
    done = wdmoe("up", env={"WDMOE_MODEL": str(folder)})
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert str(folder) in line
    assert f"chmod -R go+rX {folder}" in line
    assert docker("ps", "--no-trunc", "--quiet") == before


def close(folder: Path) -> None:
    """Make a folder readable only by its owner, who is not the containers' root."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
        if os.getuid() == 0:
            os.chown(path, ANOTHER_USER, ANOTHER_USER)


def service(folder: Path) -> dict[str, object]:
    """Return a service that runs as root without capabilities."""
    image = docker("inspect", "--format", "{{.Config.Image}}", container("bs")).strip()
    volume = {"type": "bind", "source": str(folder), "target": "/etc/dashboards"}
    return {"image": image, "volumes": [volume, {"type": "volume", "source": "a", "target": "/a"}]}


def test_an_unreadable_mount_of_a_checkout_is_rejected_by_name(
    stack: Stack, tmp_path: Path
) -> None:
    folder = tmp_path / "dashboards"
    (folder / "json").mkdir(parents=True)
    (folder / "json/overview.json").write_text("{}")
    readable.check([service(folder)], {})
    close(folder / "json")
    with pytest.raises(InputError, match=rf"{folder}/json: containers may not read; allowed"):
        readable.check([service(folder)], {})
    (folder / "open.json").write_text("{}")
    readable.check([service(folder)], {folder: [folder / "open.json"]})


@pytest.mark.skipif(os.getuid() != 0, reason="creating files of root needs root")
def test_files_readable_only_by_root_are_readable_in_containers(
    stack: Stack, tmp_path: Path
) -> None:
    folder = tmp_path / "dashboards"
    folder.mkdir(mode=0o700)
    (folder / "overview.json").touch(mode=0o600)
    readable.check([service(folder)], {})
