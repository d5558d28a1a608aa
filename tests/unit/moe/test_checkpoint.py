"""Splitting a checkpoint: each part reads its own tensors, or reports the fault."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralForCausalLM

from orchestrator.errors import InputError
from orchestrator.moe.checkpoint import Checkpoint
from services.device.experts import Experts
from tests.harness.cell import TINY


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
    prints = {name: Checkpoint(tmp_path / name).fingerprint for name in ("a", "copy", "other")}
    assert prints["a"] == prints["copy"] != prints["other"]


def test_an_expert_beyond_the_checkpoint_is_refused_by_number(folder: Path) -> None:
    with pytest.raises(InputError, match=r"expert 4 is requested.*experts 0 to 3"):
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


def change(tensor: str, to: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights[tensor] = to(weights[tensor])
        save_file(weights, folder / "model.safetensors")

    return damage


def add(tensor: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file(weights | {tensor: torch.ones(2)}, folder / "model.safetensors")

    return damage


def in_shards(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """Split the model into two files with an index, then change it."""

    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(weights)
        parts = {"model-00001-of-00002.safetensors": names[:20], SECOND: names[20:]}
        for file, part in parts.items():
            save_file({name: weights[name] for name in part}, folder / file)
        placed = {name: file for file, part in parts.items() for name in part}
        (folder / INDEX).write_text(json.dumps({"weight_map": placed}))
        Checkpoint(folder)
        change(folder)

    return damage


def edit_index(tensor: str, file: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"][tensor] = file
        (folder / INDEX).write_text(json.dumps(index))

    return damage


def link_to_nothing(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("../blobs/abc")


def convert_to_hub_cache(folder: Path) -> None:
    shutil.copytree(folder, folder / "snapshots/0123")
    (folder / "config.json").unlink()


def remove(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()

    return damage


TRUNK = (
    "lm_head.weight",
    "model.norm.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.self_attn.k_proj.weight",
    "model.layers.2.self_attn.v_proj.weight",
    "model.layers.0.self_attn.o_proj.weight",
    "model.layers.1.input_layernorm.weight",
    "model.layers.2.post_attention_layernorm.weight",
)
EXPERT = "model.layers.2.block_sparse_moe.experts.1.w3.weight"
QUERY = "model.layers.1.self_attn.q_proj.weight"
INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00002.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
GPTQ = {"quant_method": "gptq", "bits": 4}
INT8 = {"quant_method": "compressed-tensors", "format": "int-quantized"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such checkpoint folder"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json: missing"),
        (replace("config.json", b"{"), r"config\.json: not readable JSON"),
        (replace("config.json", b"[]"), r"config\.json: not a JSON object"),
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
        *((without(tensor), f"tensor {tensor} is missing") for tensor in TRUNK),
        (change(QUERY, lambda w: w[:8].clone()), rf"{QUERY} has shape \(8, 16\)"),
        (edit_config(num_attention_heads=4), r"0\.self_attn\.k_proj.* has shape \(8, 16\)"),
        (change(EXPERT, lambda w: w.to(torch.int8)), f"tensor {EXPERT} is I8, supported: F64"),
        (change(QUERY, lambda w: w.to(torch.uint8)), f"tensor {QUERY} is U8, supported: F64"),
        (
            change("model.norm.weight", lambda w: w.to(torch.float8_e4m3fn)),
            r"tensor model\.norm\.weight is F8_E4M3, supported",
        ),
        (add(QUERY.replace("weight", "bias")), r"q_proj\.bias is not part of the model"),
        (edit_config(num_hidden_layers=2), r"model\.layers\.2\..* is not part of the model"),
        (edit_config(quantization_config=GPTQ), r"config\.json: .*quant_method is 'gptq', supp"),
        (edit_config(quantization_config="awq"), "quant_method is 'awq'"),
        (edit_config(quantization_config={"quant_method": "mxfp4"}), "quant_method is 'mxfp4'"),
        (edit_config(quantization_config=INT8), "format is 'int-quantized'.*'float-quantized'"),
        (edit_config(quantization_config={"load_in_4bit": True}), "quant_method is None"),
        (replace("config.json", POINTER), r"config\.json: a git-lfs pointer"),
        (replace("model.safetensors", POINTER), r"model\.safetensors: a git-lfs pointer"),
        (in_shards(replace(SECOND, POINTER)), f"{SECOND}: a git-lfs pointer"),
        (in_shards(replace(INDEX, POINTER)), r"index\.json: a git-lfs pointer"),
        (in_shards(remove(SECOND)), f"{SECOND}: missing"),
        (in_shards(remove(INDEX)), r"index\.json: missing; model-00001-of-00002\.safetensors is"),
        (
            in_shards(edit_index("a.b", SECOND)),
            rf"{SECOND}: has no tensor a\.b, which {INDEX} says",
        ),
        (in_shards(edit_index("lm_head.weight", "b")), "/b: missing; weights are expected"),
        (link_to_nothing, r"config\.json: a link to \.\./blobs/abc, which does not exist"),
        (convert_to_hub_cache, r"config\.json: missing; a checkpoint is .*/snapshots/0123"),
        (replace(INDEX, b'{"weight_map": 3}'), "not an index"),
        (replace(INDEX, b'{"weight_map": {"a": "../a"}}'), "allowed: a file beside it"),
        (replace(INDEX, b'{"weight_map": {"a": "b.safetensors"}}'), r"b\.safetensors: missing"),
    ],
)
def test_an_unusable_folder_is_refused_in_one_line(
    model: MixtralForCausalLM, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    per_expert(model, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(InputError, match=message) as caught:
        Checkpoint(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_spare_tensors_and_unused_files_are_ignored(
    model: MixtralForCausalLM, tmp_path: Path
) -> None:
    per_expert(model, tmp_path / "model")
    add("model.layers.0.self_attn.rotary_emb.inv_freq")(tmp_path / "model")
    add("model.layers.0.self_attn.k_scale")(tmp_path / "model")
    (tmp_path / "model/consolidated.safetensors").write_bytes(POINTER)
    assert dict(Checkpoint(tmp_path / "model").trunk()).keys() == {
        name for name in model.state_dict() if ".mlp.experts." not in name
    }


def test_a_tied_model_needs_no_head(model: MixtralForCausalLM, tmp_path: Path) -> None:
    per_expert(model, tmp_path / "model")
    without("lm_head.weight")(tmp_path / "model")
    edit_config(tie_word_embeddings=True)(tmp_path / "model")
    assert "lm_head.weight" not in dict(Checkpoint(tmp_path / "model").trunk())


def test_a_folder_without_access_is_refused_by_name(tmp_path: Path) -> None:
    """Run as another user: root has access everywhere."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = (
        "import os, pathlib, sys\n"
        "from orchestrator.moe.checkpoint import Checkpoint\n"
        "from orchestrator.errors import InputError\n"
        "os.setuid(65534)\n"
        "try:\n"
        "    Checkpoint(pathlib.Path(sys.argv[1]))\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, closed / "model"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == f"{closed}/model: Permission denied", result.stderr
