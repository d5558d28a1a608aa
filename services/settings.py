"""The settings of a container, from its environment, checked once at the start."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.errors import InputError
from services.net.wire import DTYPES

RADIO_PORT = 5555
DEVICE_HTTP_PORT = 9100
BS_HTTP_PORT = 8000
# Threads that compute give way to those that shape links, which have deadlines.
COMPUTE_NICENESS = 5

_ORIGIN = re.compile(r"https?://[^/*?#\s]+")
_COMPUTE = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Settings:
    """The settings of base station and devices; `compute_dtype` is the data type of the weights.

    `kv_mib` is the base station's memory for keys and values [MiB]; 0: a share of what is free.
    `cors_origins`: web origins whose pages may read the base station's answers; `*` is all.
    """

    model_dir: Path
    model_name: str
    keys_dir: Path
    curve: bool
    devices: int
    torch_device: torch.device
    compute_dtype: torch.dtype
    wire_dtype: str
    device_timeout_s: float
    kv_mib: int
    orchestrator_host: str
    bs_radio_host: str
    cors_origins: tuple[str, ...]

    @property
    def compute_dtype_name(self) -> str:
        """The name of the data type, as in WDMOE_COMPUTE_DTYPE."""
        return next(name for name, dtype in _COMPUTE.items() if dtype == self.compute_dtype)


def load() -> Settings:
    """Return the settings from the environment; InputError names the variable."""
    env = os.environ
    model_dir = env.get("WDMOE_MODEL_DIR", "models/bundled")
    return Settings(
        model_dir=Path(model_dir),
        # In a container the folder is always /model: the name is that of the host's folder.
        model_name=Path(env.get("WDMOE_MODEL_NAME") or model_dir).name,
        keys_dir=Path(env.get("WDMOE_KEYS_DIR", "/keys")),
        curve=_one_of("WDMOE_CURVE", "1", ("0", "1")) == "1",
        devices=integer("WDMOE_DEVICES", "8", most=1024),
        torch_device=_torch_device(env.get("WDMOE_TORCH_DEVICE", "cpu")),
        compute_dtype=_COMPUTE[_one_of("WDMOE_COMPUTE_DTYPE", "fp32", tuple(_COMPUTE))],
        wire_dtype=_one_of("WDMOE_WIRE_DTYPE", "fp16", DTYPES),
        device_timeout_s=_positive("WDMOE_DEVICE_TIMEOUT_S", "3"),
        kv_mib=integer("WDMOE_KV_MIB", "0", least=0, most=1 << 24),
        orchestrator_host=env.get("WDMOE_ORCHESTRATOR_HOST", "orchestrator"),
        bs_radio_host=env.get("WDMOE_BS_RADIO_HOST", "bs-radio"),
        cors_origins=_origins("WDMOE_CORS_ORIGINS"),
    )


def integer(name: str, default: str | None, *, least: int = 1, most: int) -> int:
    """Return an integer from the environment; without a default it is required."""
    text = os.environ.get(name, default)
    if text is None or not text.isdigit() or not least <= int(text) <= most:
        raise InputError(f"{name} is {text!r}, allowed: an integer from {least} to {most}")
    return int(text)


def _one_of(name: str, default: str, allowed: tuple[str, ...]) -> str:
    value = os.environ.get(name, default)
    if value not in allowed:
        raise InputError(f"{name} is {value!r}, allowed: {', '.join(allowed)}")
    return value


def _positive(name: str, default: str) -> float:
    text = os.environ.get(name, default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 3600:
        raise InputError(f"{name} is {text!r}, allowed: seconds above 0 and below 3600")
    return value


def _origins(name: str) -> tuple[str, ...]:
    text = os.environ.get(name, "")
    origins = tuple(text.replace(",", " ").split())
    if origins != ("*",) and not all(_ORIGIN.fullmatch(origin) for origin in origins):
        allowed = "*, or origins such as http://HOST:PORT, separated by commas"
        raise InputError(f"{name} is {text!r}, allowed: {allowed}")
    return origins


def _torch_device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        raise InputError(f"WDMOE_TORCH_DEVICE is {text!r}, allowed: cpu, cuda, cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"WDMOE_TORCH_DEVICE is {text!r}, but torch sees no CUDA device here")
    return device
