"""Where the distributions of a benchmark put its splits, and how they name them.

    train.jsonl                    ARC-Easy-Train.jsonl           physics_dev.csv
    train-00000-of-00001.parquet   train/0000.parquet             each also with .gz behind it

Paths are taken as they are given: in a hub's cache files are links, and their targets have neither
names nor neighbours.
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
    """Where the file of another split may lie, the likeliest place first."""
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
    """The file's name, or FOLDER-NAME where that alone only says which part of a benchmark."""
    path = absolute(path)
    name = bare(path.name)
    if path.parent.name == "snapshots":
        return _folder_name(path)
    if _NUMBER.fullmatch(name):
        return f"{_folder_name(path.parent.parent)}-{path.parent.name}"
    return f"{_folder_name(path.parent)}-{name}" if name.lower() in SPLITS else name


def absolute(path: Path) -> Path:
    """A path from the root on, with links as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links


def bare(name: str) -> str:
    """A file's name without compression, type and number of the shard."""
    return _SHARD.sub("", Path(name.removesuffix(".gz")).stem)


def compressed(file: Path) -> list[Path]:
    """A file, and what it is called once it is compressed, or is not."""
    return [file, file.with_name(f"{file.name}.gz"), file.with_name(file.name.removesuffix(".gz"))]


def _shards(file: Path) -> list[Path]:
    """The file; of a split in several shards its first one, however many there are."""
    first = sorted(file.parent.glob(_SHARD.sub("-00000-of-*", file.name)))
    return first if _SHARD.search(file.name) and first else [file]


def _folder_name(folder: Path) -> str:
    """What a folder of splits is called; in a hub's cache the repository's name."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2]
    return _folder_name(folder.parent) if folder.name == "data" else folder.name
