"""Location of the tensors of a checkpoint: headers of its safetensors files, and their index.

8 bytes: length of the header │ header: JSON, dtype, shape and offsets per tensor │ the tensors
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.moe import model_file

_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Entry:
    """Location of one tensor; `dtype` as in safetensors, `start` in bytes from the file's start."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


def read_entries(folder: Path) -> dict[str, Entry]:
    """Return every tensor of a folder: of the files that its index names, or of its only file.

    Raises:
        InputError: a file is missing or damaged, or does not hold what the index says.
    """
    index = folder / _INDEX
    if not (index.exists() or index.is_symlink()):
        shards = sorted(path.name for path in folder.glob("model-*-of-*.safetensors"))
        if shards and not (folder / _FILE).exists():
            raise InputError(f"{index}: missing; {shards[0]} is one file of several")
        return read_header(folder / _FILE)
    files = model_file.read_json(index, "an index").get("weight_map")
    if not isinstance(files, dict) or not files:
        raise InputError(f"{index}: not an index with a weight_map")
    headers: dict[str, dict[str, Entry]] = {}
    entries = {}
    for name, file in files.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise InputError(f"{index}: weight_map names {file!r}, allowed: a file beside it")
        if file not in headers:
            headers[file] = read_header(folder / file)
        if name not in headers[file]:
            raise InputError(f"{folder / file}: has no tensor {name}, which {_INDEX} says it has")
        entries[name] = headers[file][name]
    return entries


def read_header(path: Path) -> dict[str, Entry]:
    """Return the tensors of one file, its header checked against the file size."""
    model_file.require(path, "weights are expected as safetensors")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _MAX_HEADER_BYTES:
                raise InputError(f"{path}: not a safetensors file (header of {length} bytes)")
            header = json.loads(file.read(length))
        size = path.stat().st_size
        header.pop("__metadata__", None)
        entries = {
            name: Entry(
                path, spec["dtype"], tuple(spec["shape"]), 8 + length + spec["data_offsets"][0]
            )
            for name, spec in header.items()
        }
        end = max((spec["data_offsets"][1] for spec in header.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise InputError(f"{path}: not a safetensors file (broken header)") from None
    if size != 8 + length + end:
        raise InputError(f"{path}: {size} bytes, its header says {8 + length + end}: damaged")
    return entries
