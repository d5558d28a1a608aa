"""Splitting a checkpoint: each part reads its own tensors, or says what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralForCausalLM

from orchestrator.checkpoint import Checkpoint
from orchestrator.errors import InputError
from services.device.experts import Experts
from tests.unit.cell import TINY


@pytest.fixture(scope="module")
def model() -> MixtralForCausalLM:
    torch.manual_seed(5)
    whole = MixtralForCausalLM(TINY)
    whole.train(False)
    return whole


def per_expert(model: MixtralForCausalLM, folder: Path) -> None:
    model.save_pretrained(folder)


def sharded(model: MixtralForCausalLM, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="8KB")
    assert len(list(folder.glob("*.safetensors"))) > 2


def fused(model: MixtralForCausalLM, folder: Path) -> None:
    folder.mkdir()
    model.config.save_pretrained(folder)
    save_file({k: v.clone() for k, v in model.state_dict().items()}, folder / "model.safetensors")


@pytest.fixture(params=[per_expert, sharded, fused], ids=lambda write: write.__name__)
def folder(request: pytest.FixtureRequest, model: MixtralForCausalLM, tmp_path: Path) -> Path:
    request.param(model, tmp_path / "model")
    return tmp_path / "model"


def test_a_devices_expert_computes_what_transformers_computes(
    folder: Path, model: MixtralForCausalLM
) -> None:
    checkpoint = Checkpoint(folder)
    x = torch.randn(5, 16)
    for q in range(4):
        experts = Experts(checkpoint, q, torch.device("cpu"), torch.float32)
        for layer in range(3):
            whole = model.model.layers[layer].mlp.experts
            with torch.inference_mode():
                expected = whole(x, torch.full((5, 1), q), torch.ones(5, 1))
            torch.testing.assert_close(experts(layer, x), expected, atol=1e-6, rtol=1e-5)


def test_a_device_holds_its_expert_of_every_layer_and_nothing_else(folder: Path) -> None:
    experts = Experts(Checkpoint(folder), 2, torch.device("cpu"), torch.float32)
    assert experts.weight_bytes == 3 * (3 * 16 * 24) * 4


def test_the_trunk_is_everything_but_experts(folder: Path, model: MixtralForCausalLM) -> None:
    whole = {k: v for k, v in model.state_dict().items() if ".mlp.experts." not in k}
    trunk = dict(Checkpoint(folder).trunk())
    assert trunk.keys() == whole.keys()
    assert all(torch.equal(trunk[name], whole[name]) for name in whole)


def test_the_fingerprint_follows_the_weights(model: MixtralForCausalLM, tmp_path: Path) -> None:
    per_expert(model, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    shutil.copytree(tmp_path / "a", tmp_path / "other")
    weights = load_file(tmp_path / "a/model.safetensors")
    weights["model.layers.1.block_sparse_moe.experts.3.w2.weight"][0, 0] += 1
    save_file(weights, tmp_path / "other/model.safetensors")
    of = {name: Checkpoint(tmp_path / name).fingerprint for name in ("a", "copy", "other")}
    assert of["a"] == of["copy"] != of["other"]


def test_an_expert_beyond_the_checkpoint_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"expert 4 is asked for.*experts 0 to 3"):
        Checkpoint(folder).expert(0, 4)


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def replace(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return damage


def without(tensor: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        del weights[tensor]
        save_file(weights, folder / "model.safetensors")

    return damage


EXPERT = "model.layers.2.block_sparse_moe.experts.1.w3.weight"
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such checkpoint folder"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json: missing"),
        (replace("config.json", b"{"), r"config\.json: not readable JSON"),
        (replace("config.json", b"[]"), "model_type is None, supported: 'mixtral'"),
        (edit_config(model_type="llama"), "model_type is 'llama', supported: 'mixtral'"),
        (edit_config(hidden_act="relu"), "hidden_act is 'relu', supported: 'silu'"),
        (edit_config(num_local_experts="8"), "num_local_experts is '8', allowed: an integer"),
        (edit_config(num_hidden_layers=0), "num_hidden_layers is 0, allowed: an integer"),
        (edit_config(hidden_size=32), r"embed_tokens.weight has shape \(40, 16\)"),
        (edit_config(num_local_experts=8), r"gate\.weight has shape \(4, 16\)"),
        (edit_config(num_hidden_layers=4), r"model\.layers\.3\..* is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors: missing"),
        (replace("model.safetensors", b"\0" * 100), "not a safetensors file"),
        (replace("model.safetensors", b"\x10\0\0\0\0\0\0\0" + b"x" * 16), "broken header"),
        (truncate, "damaged"),
        (without(EXPERT), f"tensor {EXPERT} is missing"),
        (replace(INDEX, b'{"weight_map": 3}'), "not an index"),
        (replace(INDEX, b'{"weight_map": {"a": "../a"}}'), "allowed: a file beside it"),
        (replace(INDEX, b'{"weight_map": {"a": "b.safetensors"}}'), r"b\.safetensors: missing"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    model: MixtralForCausalLM, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    per_expert(model, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(InputError, match=message) as caught:
        Checkpoint(tmp_path / "model")
    assert "\n" not in str(caught.value)
