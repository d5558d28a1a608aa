"""Read a Mixtral checkpoint in parts: the trunk without experts, or one expert of every layer.

A folder holds config.json and either model.safetensors or several files with an index. Expert
weights are separate tensors (as published), or fused over all experts (as transformers 5 saves
them):

    model.layers.I.block_sparse_moe.experts.Q.w1|w3|w2.weight     gate, up, down of expert Q
    model.layers.I.mlp.experts.gate_up_proj | down_proj           [E, 2·m_h, m] | [E, m, m_h]

Only the requested bytes are read; no process ever holds the whole checkpoint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from orchestrator.errors import InputError
from orchestrator.moe import fp8, model_file, safetensors_header

_EXPERT = re.compile(r"\.(block_sparse_moe|mlp)\.experts\.")
_DTYPES = ("F64", "F32", "F16", "BF16")
# Tensors that may be present and are ignored: scales of activations, caches and weights (those of
# FP8 weights are checked with their weights), and rotation angles, which are computed.
_SPARE = re.compile(r"(_scale|_scale_inv|_scale_ub|\.inv_freq)$")
_SAMPLE_BYTES = 4096


@dataclass(frozen=True)
class ModelInfo:
    """The model dimensions that devices and base station must agree on, and latency depends on."""

    layers: int
    experts: int
    top_k: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int


class Checkpoint:
    """A checkpoint folder: headers read and checked, tensors left on disk.

    Raises InputError if the folder is not a complete, supported mixture of experts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._config_file = folder / "config.json"
        self._config = self._read_config()
        self.info = ModelInfo(
            layers=self._positive("num_hidden_layers"),
            experts=self._positive("num_local_experts"),
            top_k=self._positive("num_experts_per_tok"),
            hidden_size=self._positive("hidden_size"),
            intermediate_size=self._positive("intermediate_size"),
            vocab_size=self._positive("vocab_size"),
        )
        self._entries = safetensors_header.read_entries(folder)
        self._fused = f"{self._moe(0)}.experts.gate_up_proj" in self._entries
        needed = {"lm_head.weight"}  # absent where the embedding is used in its place
        self._trunk = []
        for name, shape in self._needed():
            self._require(name, shape)
            needed.add(name)
            if not _EXPERT.search(name):
                self._trunk.append(name)
        for name in sorted(self._entries.keys() - needed):
            if not _SPARE.search(name):
                raise InputError(
                    f"{self._entries[name].file}: tensor {name} is not part of the model that "
                    "config.json describes"
                )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over config.json and name, dtype, shape and first 4 KiB of every tensor.

        Any training step changes some of those bytes in every tensor. This reads a few megabytes;
        the whole of Mixtral 8x7B is 93 GB.
        """
        digest = hashlib.sha256(self._config_file.read_bytes())
        for name, entry in sorted(self._entries.items()):
            digest.update(f"{name} {entry.dtype} {entry.shape}".encode())
            with entry.file.open("rb") as file:
                file.seek(entry.start)
                digest.update(file.read(_SAMPLE_BYTES))
        return digest.hexdigest()

    @property
    def files(self) -> set[Path]:
        """config.json and the files that contain tensors."""
        return {self._config_file, *(entry.file for entry in self._entries.values())}

    def trunk(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor but those of the experts, under the names that transformers 5 uses."""
        for name in self._trunk:
            yield name.replace(".block_sparse_moe.", ".mlp."), self._load(name)

    def expert(self, layer: int, q: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return expert q of a layer: gate and up fused (2·m_h × m), and down (m × m_h)."""
        if q >= self.info.experts:
            raise InputError(
                f"{self.folder}: expert {q} is requested, the checkpoint has experts "
                f"0 to {self.info.experts - 1}"
            )
        prefix = f"{self._moe(layer)}.experts"
        if self._fused:
            gate_up = self._load(f"{prefix}.gate_up_proj", row=q)
            return gate_up, self._load(f"{prefix}.down_proj", row=q)
        gate, up, down = (self._load(f"{prefix}.{q}.{w}.weight") for w in ("w1", "w3", "w2"))
        return torch.cat([gate, up]), down

    def _read_config(self) -> dict[str, Any]:
        try:
            is_folder = self.folder.is_dir()
        except OSError as error:
            raise InputError(f"{self.folder}: {error.strerror}") from None
        if not is_folder:
            raise InputError(f"{self.folder}: no such checkpoint folder")
        config = model_file.read_json(self._config_file, self._without_config())
        if config.get("model_type") != "mixtral":
            raise InputError(
                f"{self._config_file}: model_type is {config.get('model_type')!r}, "
                "supported: 'mixtral' (a mixture of experts)"
            )
        if config.get("hidden_act", "silu") != "silu":
            raise InputError(
                f"{self._config_file}: hidden_act is {config['hidden_act']!r}, supported: 'silu'"
            )
        try:
            fp8.check_config(config)
            self._block = fp8.block_of(config)
        except InputError as error:
            raise InputError(f"{self._config_file}: {error}") from None
        return config

    def _without_config(self) -> str:
        snapshots = sorted((self.folder / "snapshots").glob("*"))
        return f"a checkpoint is {snapshots[-1]}" if snapshots else "not a checkpoint folder"

    def _positive(self, field: str, default: int | None = None) -> int:
        value = self._config.get(field)
        if value is None and default is not None:
            return default
        if type(value) is not int or value < 1:
            raise InputError(
                f"{self._config_file}: {field} is {value!r}, allowed: an integer of at least 1"
            )
        return value

    def _needed(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield names and shapes of the tensors that trunk and experts need."""
        m, vocabulary = self.info.hidden_size, self.info.vocab_size
        yield "model.embed_tokens.weight", (vocabulary, m)
        yield "model.norm.weight", (m,)
        if not self._config.get("tie_word_embeddings", False):
            yield "lm_head.weight", (vocabulary, m)
        heads = self._positive("num_attention_heads", 32)
        # As in transformers: 8 if the field is absent, one per head if it is null.
        default = heads if "num_key_value_heads" in self._config else 8
        keys = self._positive("num_key_value_heads", default)
        width = self._positive("head_dim", m // heads)
        for i in range(self.info.layers):
            layer = f"model.layers.{i}"
            yield f"{layer}.input_layernorm.weight", (m,)
            yield f"{layer}.post_attention_layernorm.weight", (m,)
            yield f"{layer}.self_attn.q_proj.weight", (heads * width, m)
            yield f"{layer}.self_attn.k_proj.weight", (keys * width, m)
            yield f"{layer}.self_attn.v_proj.weight", (keys * width, m)
            yield f"{layer}.self_attn.o_proj.weight", (m, heads * width)
            yield f"{self._moe(i)}.gate.weight", (self.info.experts, m)
            yield from self._needed_experts(f"{self._moe(i)}.experts")

    def _needed_experts(self, experts: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        e, m, m_h = self.info.experts, self.info.hidden_size, self.info.intermediate_size
        if self._fused:
            yield f"{experts}.gate_up_proj", (e, 2 * m_h, m)
            yield f"{experts}.down_proj", (e, m, m_h)
            return
        for q in range(e):
            yield f"{experts}.{q}.w1.weight", (m_h, m)
            yield f"{experts}.{q}.w3.weight", (m_h, m)
            yield f"{experts}.{q}.w2.weight", (m, m_h)

    def _moe(self, layer: int) -> str:
        prefix = f"model.layers.{layer}"
        fused = f"{prefix}.mlp"
        return fused if f"{fused}.gate.weight" in self._entries else f"{prefix}.block_sparse_moe"

    def _require(self, name: str, shape: tuple[int, ...]) -> None:
        entry = self._entries.get(name)
        if entry is None:
            raise InputError(f"{self.folder}: tensor {name} is missing")
        if entry.shape != shape:
            raise InputError(
                f"{entry.file}: tensor {name} has shape {entry.shape}, config.json says {shape}"
            )
        if entry.dtype in fp8.DTYPES and len(shape) > 1:
            self._grid(name)
        elif entry.dtype not in _DTYPES:
            raise InputError(
                f"{entry.file}: tensor {name} is {entry.dtype}, supported: {', '.join(_DTYPES)}, "
                f"{', '.join(fp8.DTYPES)} with a scale"
            )

    def _scale(self, name: str) -> str:
        """Return the name of the scale of an FP8 tensor."""
        for suffix in fp8.SCALE_SUFFIXES:
            if name + suffix in self._entries:
                return name + suffix
        entry = self._entries[name]
        raise InputError(
            f"{entry.file}: tensor {name} is {entry.dtype}, but its scale is missing: tensor "
            f"{name}_scale or {name}_scale_inv"
        )

    def _grid(self, name: str) -> fp8.Block:
        """Return the rows and columns of an FP8 tensor that share one entry of its scale."""
        scale = self._entries[self._scale(name)]
        *experts, rows, columns = self._entries[name].shape
        shape = scale.shape
        if experts and self._per_expert(name):
            shape = shape[1:]
        grid = fp8.scale_grid((rows, columns), shape, self._block)
        if grid is None or scale.dtype not in _DTYPES:
            raise InputError(
                f"{scale.file}: tensor {self._scale(name)} is {scale.dtype} of shape "
                f"{scale.shape}; allowed: a scale for {self._entries[name].shape}"
            )
        return grid

    def _per_expert(self, name: str) -> bool:
        """Return whether the scale of a fused tensor has a part for each expert."""
        shape = self._entries[self._scale(name)].shape
        return len(shape) > 0 and shape[0] == self.info.experts

    def _load(self, name: str, row: int | None = None) -> torch.Tensor:
        """Return a tensor, or one expert's part of a fused one; FP8 weights with scale applied."""
        tensor = self._read(name, row)
        if self._entries[name].dtype not in fp8.DTYPES:
            return tensor
        part = row if self._per_expert(name) else None
        return fp8.dequantize(tensor, self._read(self._scale(name), part), self._grid(name))

    def _read(self, name: str, row: int | None) -> torch.Tensor:
        file = self._entries[name].file
        try:
            with safe_open(file, framework="pt") as opened:
                tensor: torch.Tensor = (
                    opened.get_tensor(name) if row is None else opened.get_slice(name)[row]
                )
        except SafetensorError as error:
            raise InputError(f"{file}: tensor {name} cannot be read ({error})") from None
        return tensor
