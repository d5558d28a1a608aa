"""How much memory keys and values may take."""

from __future__ import annotations

from pathlib import Path

import torch

# What is free when the trunk is loaded is also for a step's tensors, and on one host for devices.
SHARE = 4
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def kv_bytes(kv_mib: int, device: torch.device) -> int:
    """As configured, or of what is free where the trunk is one SHARE-th."""
    if kv_mib:
        return kv_mib << 20
    return _free_bytes(device) // SHARE


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = dict(line.split(":") for line in _MEMINFO.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) << 10
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except OSError:  # no cgroup v2, or not one of its own
        return free
    return free if limit == "max" else min(free, int(limit) - used)
