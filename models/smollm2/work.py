"""The working folder of a build, beside its result, from which it is resumed.

    .NAME.building/
      settings.json            the build's settings; a build with others does not resume here
      texts-I.safetensors      one batch of calibration texts
      layer-II.safetensors     a carved layer
      model/                   the result, renamed to NAME at the end

Each file is complete or absent.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.smollm2.carving import Carved
from orchestrator.errors import InputError
from orchestrator.files import json_file


class Settings(BaseModel):
    """Everything that determines the weights, besides the host and its other libraries."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    source_sha256: str
    code_sha256: str
    experts: int
    hidden: int
    seed: int
    calibration_sha256: list[str]
    torch: str
    threads: int


class Report(BaseModel):
    """The settings of a build and its errors on held-out text; `build.json`.

    For each layer, `layers` has the squared error relative to the dense FFN's output, the applied
    part of the drift's correction, the stream's error with it, and the smallest and largest expert
    share.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    settings: Settings
    dense_perplexity: float
    perplexity: float
    layers: list[dict[str, float]]


@dataclass(frozen=True)
class Work:
    """The working folder of one build."""

    folder: Path

    @classmethod
    def begin(cls, out: Path, settings: Settings) -> Work:
        """Return the working folder for `out`, new or left by an interrupted build.

        Raises:
            InputError: it belongs to a build with other settings.
        """
        folder = out.with_name(f".{out.name}.building")
        file = folder / "settings.json"
        if file.exists():
            begun = json_file.read(file, Settings, "the settings of a build")
            for field, value in begun.model_dump().items():
                if value != (now := getattr(settings, field)):
                    raise InputError(
                        f"{folder}: holds a build started with {field} {value}, this one has "
                        f"{now}; delete the folder to start over"
                    )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            json_file.write(file, settings)
        return cls(folder)

    def texts(self, batch: int, make: Callable[[], Tensor]) -> Tensor:
        """Return a batch of texts; make it unless it exists."""
        file = self.folder / f"texts-{batch}.safetensors"
        if not file.exists():
            _save(file, {"texts": make()}, {})
        return load_file(file)["texts"]

    def has_layer(self, number: int) -> bool:
        """Whether a layer has been carved."""
        return self._layer(number).exists()

    def layer(self, number: int) -> Carved:
        """Read a carved layer."""
        with safe_open(self._layer(number), framework="pt") as file:
            measured = json.loads(file.metadata()["measured"])
            gate, neurons, down = (file.get_tensor(name) for name in ("gate", "neurons", "down"))
        return Carved(gate.float(), neurons, down.float(), measured)

    def keep_layer(self, number: int, carved: Carved) -> None:
        """Write a carved layer; its weights are already rounded to bf16."""
        tensors = {
            "gate": carved.gate.bfloat16(),
            "neurons": carved.neurons,
            "down": carved.down.bfloat16(),
        }
        _save(self._layer(number), tensors, {"measured": json.dumps(carved.measured)})

    def finish(self, write: Callable[[Path], None], out: Path) -> None:
        """Write the model's folder, move it to `out`, and remove the working folder."""
        model = self.folder / "model"
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir()
        write(model)
        model.replace(out)
        shutil.rmtree(self.folder)

    def _layer(self, number: int) -> Path:
        return self.folder / f"layer-{number:02}.safetensors"


def _save(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    partial = file.with_suffix(".part")
    save_file(tensors, partial, metadata)
    partial.replace(file)
