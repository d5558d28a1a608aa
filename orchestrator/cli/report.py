"""`wdmoe report`: make one HTML page of runs and sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestrator.cli.common import Json, print_json
from orchestrator.files.text_file import user_path


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(parser=user_path, metavar="DIR", help="Folders of runs and of sweeps."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            parser=user_path,
            metavar="DIR",
            help="Where to write (default: `report` in the first DIR).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make one HTML page of runs and sweeps, with figures, and show all runs side by side."""
    from orchestrator.report import load, page  # scipy and matplotlib take a second to load
    from orchestrator.report.side_by_side import WIDTH

    material = load.read(folders)
    written = page.write(material, out or folders[0] / "report")
    if as_json:
        print_json(
            {
                "page": str(written.page),
                "table": str(written.page.with_name(page.TABLE)),
                "figures": [str(path) for path in written.figures],
                "warnings": written.warnings,
            }
        )
        return
    console = Console()
    console.width = max(console.width, WIDTH)  # a pipe has no width
    console.print(written.runs.rich())
    typer.echo(f"{written.page}; beside it the table (table.md), and the figures as PNG and SVG")
