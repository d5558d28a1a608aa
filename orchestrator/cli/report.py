"""`wdmoe report`: a page to look at, of runs and sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import Json, print_json
from orchestrator.text_file import user_path


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
    """Make one HTML page of runs and sweeps, and its figures as PNG and SVG."""
    from orchestrator.report import page, recorded  # scipy and matplotlib take a second to load

    material = recorded.read(folders)
    written = page.write(material, out or folders[0] / "report")
    if as_json:
        print_json(
            {
                "page": str(written.page),
                "figures": [str(path) for path in written.figures],
                "warnings": written.warnings,
            }
        )
        return
    typer.echo(f"{written.page}, and {len(written.figures)} files of figures beside it")
