"""What a build has done so far: a folder beside the one to be built, from which it is resumed.

    .NAME.building/
      settings.json            what is built, from what; another build does not go on here
      texts-I.safetensors      one batch of calibration texts
      layer-II.safetensors     a carved layer
      model/                   what becomes NAME at the end

Each file is there as a whole or not at all.
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
    """What decides the weights, besides the host and its other libraries."""

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
    """What was built and how it does on text that decided nothing; `build.json`.

    `layers` has of each: the squared error relative to the dense FFN's answers, the part taken of
    the drift's correction, the stream's error with it, and the experts' least and largest share.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    settings: Settings
    dense_perplexity: float
    perplexity: float
    layers: list[dict[str, float]]


@dataclass(frozen=True)
class Work:
    """The folder of one build."""

    folder: Path

    @classmethod
    def begin(cls, out: Path, settings: Settings) -> Work:
        """The work folder for `out`, new or as an interrupted build of the same left it.

        Raises:
            InputError: it is that of another build.
        """
        folder = out.with_name(f".{out.name}.building")
        file = folder / "settings.json"
        if file.exists():
            begun = json_file.read(file, Settings, "the settings of a build")
            for field, value in begun.model_dump().items():
                if value != (now := getattr(settings, field)):
                    raise InputError(
                        f"{folder}: a build was begun there with {field} {value}, this one has "
                        f"{now}; delete the folder to start over"
                    )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            json_file.write(file, settings)
        return cls(folder)

    def texts(self, batch: int, make: Callable[[], Tensor]) -> Tensor:
        """A batch of texts, made unless it is there."""
        file = self.folder / f"texts-{batch}.safetensors"
        if not file.exists():
            _save(file, {"texts": make()}, {})
        return load_file(file)["texts"]

    def has_layer(self, number: int) -> bool:
        """Whether a layer is carved."""
        return self._layer(number).exists()

    def layer(self, number: int) -> Carved:
        """A carved layer."""
        with safe_open(self._layer(number), framework="pt") as file:
            measured = json.loads(file.metadata()["measured"])
            gate, neurons, down = (file.get_tensor(name) for name in ("gate", "neurons", "down"))
        return Carved(gate.float(), neurons, down.float(), measured)

    def keep_layer(self, number: int, carved: Carved) -> None:
        """Write a carved layer; its weights are bf16 already."""
        tensors = {
            "gate": carved.gate.bfloat16(),
            "neurons": carved.neurons,
            "down": carved.down.bfloat16(),
        }
        _save(self._layer(number), tensors, {"measured": json.dumps(carved.measured)})

    def finish(self, write: Callable[[Path], None], out: Path) -> None:
        """Write the model's folder, move it to its place, and remove what led to it."""
        model = self.folder / "model"
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir()
        write(model)
        model.replace(out)
        shutil.rmtree(self.folder)

    def _layer(self, number: int) -> Path:
        return self.folder / f"layer-{number:02}.safetensors"


def _save(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    beside = file.with_suffix(".part")
    save_file(tensors, beside, metadata)
    beside.replace(file)
