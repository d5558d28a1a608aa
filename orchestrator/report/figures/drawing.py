"""A figure of a report with its finding in words and numbers."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure with its title and finding.

    Attributes:
        name: the name of its files and the prefix of its ids.
        title: its heading.
        finding: its result in words, computed from the same numbers.
        figure: the figure itself.
    """

    name: str
    title: str
    finding: str
    figure: Figure
