"""Places and names of the splits of a benchmark in its distributions.

    train.jsonl                    ARC-Easy-Train.jsonl           physics_dev.csv
    train-00000-of-00001.parquet   train/0000.parquet             each also with suffix .gz

Links are not resolved: files in a hub's cache are links to targets without meaningful names or
neighbours.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

SPLITS = ("train", "dev", "val", "valid", "validation", "test")

_SPLIT = re.compile(rf"(?<![a-z])(?:{'|'.join(SPLITS)})(?![a-z])", re.IGNORECASE)
_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}")
_NUMBER = re.compile(r"[0-9]{4}")


def of_split(path: Path, split: str) -> list[Path]:
    """Return the possible paths of another split of a file, the likeliest first."""
    names = [f"{split}.jsonl"]
    if found := list(_SPLIT.finditer(path.name)):
        place = found[-1]
        name = split.capitalize() if place[0][0].isupper() else split
        names.insert(0, f"{path.name[: place.start()]}{name}{path.name[place.end() :]}")
    places = [path.parent / name for name in dict.fromkeys(names)]
    if _NUMBER.fullmatch(bare(path.name)) and absolute(path).parent.name in SPLITS:
        places.insert(0, absolute(path).parent.parent / split / path.name)
    return [file for place in places for file in _shards(place)]


def set_name(path: Path) -> str:
    """Return the file's name, or FOLDER-NAME if the name is only that of a split."""
    path = absolute(path)
    name = bare(path.name)
    if path.parent.name == "snapshots":
        return _folder_name(path)
    if _NUMBER.fullmatch(name):
        return f"{_folder_name(path.parent.parent)}-{path.parent.name}"
    return f"{_folder_name(path.parent)}-{name}" if name.lower() in SPLITS else name


def absolute(path: Path) -> Path:
    """Return an absolute path, with links not resolved."""
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links


def bare(name: str) -> str:
    """Return a file's name without suffixes and shard number."""
    return _SHARD.sub("", Path(name.removesuffix(".gz")).stem)


def compressed(file: Path) -> list[Path]:
    """Return a file's path, and its path with and without the suffix of compression."""
    return [file, file.with_name(f"{file.name}.gz"), file.with_name(file.name.removesuffix(".gz"))]


def _shards(file: Path) -> list[Path]:
    """Return the file, or the first shard of a split in any number of shards."""
    first = sorted(file.parent.glob(_SHARD.sub("-00000-of-*", file.name)))
    return first if _SHARD.search(file.name) and first else [file]


def _folder_name(folder: Path) -> str:
    """Return the name of a folder of splits; in a hub's cache that of the repository."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2]
    return _folder_name(folder.parent) if folder.name == "data" else folder.name
