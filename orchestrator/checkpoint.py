"""Reading a Mixtral checkpoint in parts: the trunk without experts, or one expert of every layer.

A folder holds config.json and either model.safetensors or several files with an index. Experts
come one tensor each (as published) or fused over all experts (as transformers 5 keeps them):

    model.layers.I.block_sparse_moe.experts.Q.w1|w3|w2.weight     gate, up, down of expert Q
    model.layers.I.mlp.experts.gate_up_proj | down_proj           [E, 2·m_h, m] | [E, m, m_h]

Only the bytes that are asked for are read; no process ever holds the whole checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from orchestrator.errors import InputError

_EXPERT = re.compile(r"\.(block_sparse_moe|mlp)\.experts\.")
_MAX_HEADER_BYTES = 100_000_000
_SAMPLE_BYTES = 4096


@dataclass(frozen=True)
class ModelInfo:
    """What a device and the base station have to agree on, and what latency depends on."""

    layers: int
    experts: int
    top_k: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int


@dataclass(frozen=True)
class _Entry:
    """Where one tensor lies."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


class Checkpoint:
    """A checkpoint folder, its headers read and checked, its tensors still on disk.

    Raises InputError when the folder is not a complete, supported mixture of experts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise InputError(f"{folder}: no such checkpoint folder")
        self._config_file = folder / "config.json"
        self.info = self._read_config()
        self._entries = self._read_headers()
        self._fused = f"{self._moe(0)}.experts.gate_up_proj" in self._entries
        for name, shape in self._expected():
            self._require(name, shape)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over config.json and name, dtype, shape and first 4 KiB of every tensor.

        Any training step changes some of those bytes in every tensor, and it reads a few
        megabytes where the whole of Mixtral 8x7B would be 93 GB.
        """
        digest = hashlib.sha256(self._config_file.read_bytes())
        for name, entry in sorted(self._entries.items()):
            digest.update(f"{name} {entry.dtype} {entry.shape}".encode())
            with entry.file.open("rb") as file:
                file.seek(entry.start)
                digest.update(file.read(_SAMPLE_BYTES))
        return digest.hexdigest()

    def trunk(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor but the experts', under the names that transformers 5 uses."""
        for name in self._entries:
            if not _EXPERT.search(name):
                yield name.replace(".block_sparse_moe.", ".mlp."), self._load(name)

    def expert(self, layer: int, q: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Expert q of a layer: gate and up fused (2·m_h × m), and down (m × m_h)."""
        if q >= self.info.experts:
            raise InputError(
                f"{self.folder}: expert {q} is asked for, the checkpoint has experts "
                f"0 to {self.info.experts - 1}"
            )
        prefix = f"{self._moe(layer)}.experts"
        if self._fused:
            gate_up = self._load(f"{prefix}.gate_up_proj", row=q)
            return gate_up, self._load(f"{prefix}.down_proj", row=q)
        gate, up, down = (self._load(f"{prefix}.{q}.{w}.weight") for w in ("w1", "w3", "w2"))
        return torch.cat([gate, up]), down

    def _read_config(self) -> ModelInfo:
        try:
            config = json.loads(self._config_file.read_text())
        except FileNotFoundError:
            raise InputError(f"{self._config_file}: missing; not a checkpoint folder") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{self._config_file}: not readable JSON ({error})") from None
        if not isinstance(config, dict) or config.get("model_type") != "mixtral":
            found = config.get("model_type") if isinstance(config, dict) else None
            raise InputError(
                f"{self._config_file}: model_type is {found!r}, supported: 'mixtral' "
                "(a mixture of experts)"
            )
        if config.get("hidden_act", "silu") != "silu":
            raise InputError(
                f"{self._config_file}: hidden_act is {config['hidden_act']!r}, supported: 'silu'"
            )
        return ModelInfo(
            layers=self._positive(config, "num_hidden_layers"),
            experts=self._positive(config, "num_local_experts"),
            top_k=self._positive(config, "num_experts_per_tok"),
            hidden_size=self._positive(config, "hidden_size"),
            intermediate_size=self._positive(config, "intermediate_size"),
            vocab_size=self._positive(config, "vocab_size"),
        )

    def _positive(self, config: dict[str, Any], field: str) -> int:
        value = config.get(field)
        if type(value) is not int or value < 1:
            raise InputError(
                f"{self._config_file}: {field} is {value!r}, allowed: an integer of at least 1"
            )
        return value

    def _read_headers(self) -> dict[str, _Entry]:
        index = self.folder / "model.safetensors.index.json"
        if not index.exists():
            return _header(self.folder / "model.safetensors")
        try:
            files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{index}: not an index with a weight_map") from None
        entries: dict[str, _Entry] = {}
        for file in files:
            if not isinstance(file, str) or Path(file).name != file:
                raise InputError(f"{index}: weight_map names {file!r}, allowed: a file beside it")
            entries |= _header(self.folder / file)
        return entries

    def _expected(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Tensors without which trunk or experts cannot run, and their shapes."""
        info = self.info
        m, m_h, e = info.hidden_size, info.intermediate_size, info.experts
        yield "model.embed_tokens.weight", (info.vocab_size, m)
        for i in range(info.layers):
            moe = self._moe(i)
            yield f"{moe}.gate.weight", (e, m)
            if self._fused:
                yield f"{moe}.experts.gate_up_proj", (e, 2 * m_h, m)
                yield f"{moe}.experts.down_proj", (e, m, m_h)
                continue
            for q in range(e):
                yield f"{moe}.experts.{q}.w1.weight", (m_h, m)
                yield f"{moe}.experts.{q}.w3.weight", (m_h, m)
                yield f"{moe}.experts.{q}.w2.weight", (m, m_h)

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

    def _load(self, name: str, row: int | None = None) -> torch.Tensor:
        file = self._entries[name].file
        try:
            with safe_open(file, framework="pt") as opened:
                tensor: torch.Tensor = (
                    opened.get_tensor(name) if row is None else opened.get_slice(name)[row]
                )
        except SafetensorError as error:
            raise InputError(f"{file}: tensor {name} cannot be read ({error})") from None
        return tensor


def _header(path: Path) -> dict[str, _Entry]:
    """The table of contents of one safetensors file, checked against the file's length."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _MAX_HEADER_BYTES:
                raise InputError(f"{path}: not a safetensors file (header of {length} bytes)")
            header = json.loads(file.read(length))
        size = path.stat().st_size
        entries = {
            name: _Entry(
                path, spec["dtype"], tuple(spec["shape"]), 8 + length + spec["data_offsets"][0]
            )
            for name, spec in header.items()
            if name != "__metadata__"
        }
        end = max(
            (s["data_offsets"][1] for n, s in header.items() if n != "__metadata__"), default=0
        )
    except FileNotFoundError:
        raise InputError(f"{path}: missing; weights are expected as safetensors") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise InputError(f"{path}: not a safetensors file (broken header)") from None
    if size != 8 + length + end:
        raise InputError(f"{path}: {size} bytes, its header says {8 + length + end}: damaged")
    return entries
