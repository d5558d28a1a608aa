"""Style of figures: narrow enough for a phone, with colours that the page can replace.

Figures are drawn in the colours of the light page. In the page each colour becomes a CSS variable,
whose value depends on light, dark or print (`style.css`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure

INK, FAINT, PAGE = "#111111", "#c9c9c9", "#fefefe"
# Okabe-Ito colours, distinct in every kind of colour vision; never the only distinction.
BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
ORANGE, SKY, YELLOW, GREY = "#e69f00", "#56b4e9", "#f0e442", "#8a8a8a"

VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    PAGE: "--page",
    BLUE: "--blue",
    VERMILION: "--vermilion",
    GREEN: "--green",
    PURPLE: "--purple",
    ORANGE: "--orange",
    SKY: "--sky",
    YELLOW: "--yellow",
    GREY: "--grey",
}

WIDTH_IN = 4.4  # 317 points: a phone shows a figure at about its size
ROW_IN = 0.19  # a row of the legend
LABEL_MOST = 30  # characters of a label that fit next to the bars of a figure

_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (9, 3)),
)


def applied() -> AbstractContextManager[None]:
    """Apply the style; use it while a figure is drawn and while it is written."""
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    settings: Any = {
        **dict.fromkeys(ink, INK),
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "axes.labelsize": 9.5,
        "font.family": ["DejaVu Sans"],
        "font.size": 9.5,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "hatch.linewidth": 0.8,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "text.parse_math": False,  # a folder may be named $a_$b
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
    }
    return mpl.rc_context(settings)


def figure(height_in: float) -> Figure:
    """Return an empty figure."""
    return Figure(figsize=(WIDTH_IN, height_in), layout="constrained")


def line(number: int) -> dict[str, Any]:
    """Return the colour and dashes of the line of the number-th policy."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "linewidth": 1.6,
    }


def point(number: int) -> dict[str, Any]:
    """Return the colour and marker of the points of the number-th policy."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": "",
    }


def filling(colour: str, hatch: str) -> dict[str, Any]:
    """Return the look of a bar segment and its legend entry: colour and hatch."""
    return {"facecolor": colour, "edgecolor": PAGE, "hatch": hatch, "linewidth": 0.6}


def key(figure: Figure, handles: Sequence[Artist]) -> None:
    """Add a legend below the figure, and grow the figure by its rows.

    The legend has as many columns as fit its labels, and no more than its rows need.
    """
    labels = [short(str(handle.get_label())) for handle in handles]
    fit = max(1, min(4, 50 // (max(map(len, labels)) + 5)))
    rows = math.ceil(len(labels) / fit)
    figure.set_figheight(figure.get_figheight() + ROW_IN * (rows - 1))
    figure.legend(
        handles=handles,
        labels=labels,
        loc="outside lower center",
        ncols=math.ceil(len(labels) / rows),
        columnspacing=1.2,
    )


def short(label: str) -> str:
    """Return a label, shortened to fit next to the bars and into the legend."""
    return label if len(label) <= LABEL_MOST else f"{label[: LABEL_MOST - 1]}…"
