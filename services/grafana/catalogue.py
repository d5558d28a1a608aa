"""All dashboards by file name."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from services.grafana import devices, emulation, overview, policy

FOLDER = Path(__file__).parent / "dashboards"


def as_json() -> dict[str, str]:
    """Return the text of `dashboards/NAME.json` by name."""
    boards = {
        "overview": overview.board(),
        "devices": devices.board(),
        "policy": policy.board(),
        "emulation": emulation.board(),
    }
    encoder = JSONEncoder(indent=2, ensure_ascii=False)
    return {name: encoder.encode(board) + "\n" for name, board in boards.items()}
