"""What every figure of a report is: a drawing, and what it shows in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure.

    Attributes:
        name: of its files, and in ids.
        title: what it is of.
        finding: what it shows, computed from the same numbers.
        figure: the drawing itself.
    """

    name: str
    title: str
    finding: str
    figure: Figure
