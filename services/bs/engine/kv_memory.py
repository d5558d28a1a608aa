"""The memory budget for keys and values."""

from __future__ import annotations

from pathlib import Path

import torch

# Memory that is free once the trunk is loaded must also hold a step's tensors and, on one host, the
# devices.
SHARE = 4
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def kv_bytes(kv_mib: int, device: torch.device) -> int:
    """Return the configured size or, if it is 0, one SHARE-th of the trunk device's free memory."""
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
    except OSError:  # no cgroup v2, or the root cgroup
        return free
    return free if limit == "max" else min(free, int(limit) - used)
