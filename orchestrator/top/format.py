"""Numbers formatted for table columns: of bounded width, with a prefix instead of a unit."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "–"
_BARS = "▁▂▃▄▅▆▇█"


def printable(text: str) -> str:
    """Replace control characters in a text of any origin: a terminal would obey them."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def number(value: float | None) -> str:
    """Format with three digits and a prefix, in five columns: 248M."""
    if value is None:
        return NONE
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g}" if value >= 0.01 else "0"


def share(ratio: float | None) -> str:
    """Format a ratio in whole per cent, in four columns."""
    return NONE if ratio is None else f"{min(100 * ratio, 999):.0f}%"


def milliseconds(seconds: float | None) -> str:
    """Format seconds as milliseconds without the unit, in five columns."""
    if seconds is None:
        return NONE
    value = 1e3 * seconds
    return f"{value:.1f}" if value < 99.95 else f"{min(value, 99_999):.0f}"


def sparkline(values: Sequence[float | None], most: float, width: int) -> str:
    """Draw the last `width` values as bars, `most` the highest; a blank for a missing value."""
    bars = [
        " " if value is None else _BARS[max(0, min(int(len(_BARS) * value / most), len(_BARS) - 1))]
        for value in values[-width:]
    ]
    return "".join(bars).rjust(width)
