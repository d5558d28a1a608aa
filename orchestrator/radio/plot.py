"""A figure of a profile's rates: over time for each device, and their distributions.

    device-0  device-1  device-2  device-3     the first intervals, down and up
    device-4  …
    downlink's distribution  uplink's          over all intervals drawn, a line per device

A profile with a single interval has no panels over time. Its distribution is over draws; a dot
marks the draw of the run. An outage is a gap over time, and the height at which a distribution
begins: a line that begins at 0.1 is that of a device in outage for a tenth of the time. A direction
whose rate is not limited has no line.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from orchestrator.contracts.channel_state import DeviceState, Direction
from orchestrator.errors import InputError
from orchestrator.radio.profile_schema import Device
from orchestrator.radio.profiles import Profile

INTERVALS = 2000
SHOWN_INTERVALS = 100
DEVICES = 16  # the first ones; more could not be distinguished
COLUMNS = 4

_DIRECTIONS = ("Downlink", "Uplink")
_DOWN: dict[str, Any] = {"linewidth": 1.4}
_UP: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.5}
_OUTAGE: dict[str, Any] = {"color": "0.88"}
_DOT: dict[str, Any] = {"marker": "o", "markeredgecolor": "black"}
_LOG_FROM = 10.0  # ratio of 95th to 5th percentile above which a linear axis hides the slow devices


def draw(profile: Profile, path: Path) -> None:
    """Write the figure as a PNG.

    Raises:
        InputError: the profile limits no rate.
    """
    rates = _rates_mbps(profile)
    if not (rates > 0).any():
        raise InputError(f"profile {profile.name!r} limits no rate: there is nothing to plot")
    names = [_name(*numbered) for numbered in enumerate(profile.spec.devices[:DEVICES])]
    colours = mpl.color_sequences["tab10" if len(names) <= 10 else "tab20"]
    rows = math.ceil(len(names) / COLUMNS) if profile.interval_s else 0
    heights = [1.5] * rows + [3.4]
    figure = Figure(figsize=(12, 1.2 + sum(heights)), dpi=120, layout="constrained")
    figure.suptitle(_title(profile), x=0.01, ha="left", fontsize=11)
    grid = figure.add_gridspec(rows + 1, COLUMNS, height_ratios=heights)
    if profile.interval_s:
        panels = [figure.add_subplot(grid[divmod(n, COLUMNS)]) for n in range(len(names))]
        for number, axes in enumerate(panels):
            axes.set_title(names[number], fontsize=9, loc="left", color=colours[number])
            _draw_over_time(axes, rates[:, number], profile.interval_s, colours[number])
        _share_axes(panels, rates)
    half = COLUMNS // 2
    for place, direction in enumerate(_DIRECTIONS):
        axes = figure.add_subplot(grid[rows, place * half : (place + 1) * half])
        axes.set_title(direction, fontsize=10, loc="left")
        _draw_distributions(axes, rates[:, :, place], colours, mark=not profile.interval_s)
        axes.set_ylabel(f"share of {INTERVALS} {_samples(profile)}", fontsize=9)
    lines = [Line2D([], [], color=colours[n], label=name) for n, name in enumerate(names)]
    figure.legend(handles=lines, loc="outside lower center", ncols=COLUMNS, fontsize=9)
    figure.legend(handles=_key(profile, rates), loc="outside upper right", ncols=4, fontsize=8)
    FigureCanvasAgg(figure).print_figure(str(path))


def _rates_mbps(profile: Profile) -> NDArray[np.float64]:
    """Return intervals × devices × (down, up); 0 in an outage, NaN where a rate is not limited."""
    return np.array(
        [
            [(mbps(device, device.down), mbps(device, device.up)) for device in states[:DEVICES]]
            for states in map(profile.devices, range(INTERVALS))
        ]
    )


def mbps(device: DeviceState, direction: Direction) -> float:
    """Return the rate of a direction [Mbit/s]; 0 in an outage, NaN if it is not limited."""
    if not device.reachable:
        return 0.0
    return math.nan if direction.rate_bps is None else direction.rate_bps / 1e6


def _draw_over_time(axes: Axes, rates: NDArray[np.float64], interval_s: float, colour: Any) -> None:
    shown = rates[:SHOWN_INTERVALS]
    times = np.arange(len(shown) + 1) * interval_s
    down, up = np.where(shown > 0, shown, np.nan).T
    axes.stairs(down, times, baseline=None, color=colour, **_DOWN)
    axes.stairs(up, times, baseline=None, color=colour, **_UP)
    outages = (shown == 0).any(axis=1)
    if outages.any():
        full_height = axes.get_xaxis_transform()
        axes.stairs(outages, times, transform=full_height, fill=True, zorder=0, **_OUTAGE)
    axes.set_xlim(0, times[-1])
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=8)


def _share_axes(panels: list[Axes], rates: NDArray[np.float64]) -> None:
    """Share one rate axis among all panels; label only the edges of the grid."""
    for number, axes in enumerate(panels):
        if number > 0:
            axes.sharey(panels[0])
        left, lowest = number % COLUMNS == 0, number + COLUMNS >= len(panels)
        axes.tick_params(labelleft=left, labelbottom=lowest)
        axes.set_ylabel("rate [Mbit/s]" if left else "", fontsize=9)
        axes.set_xlabel("time [s]" if lowest else "", fontsize=9)
    if asks_for_log(rates):
        panels[0].set_yscale("log")
        _number_plainly(panels[0].yaxis)
    else:
        panels[0].set_ylim(bottom=0)


def _draw_distributions(
    axes: Axes, rates: NDArray[np.float64], colours: Any, *, mark: bool
) -> None:
    for drawn, colour in zip(rates.T, colours, strict=False):
        ordered = np.sort(drawn[drawn > 0])
        out = np.count_nonzero(drawn == 0) / len(drawn)
        if len(ordered) == 0:
            continue
        rate, share = np.append(ordered[:1], ordered), np.linspace(out, 1, len(ordered) + 1)
        axes.step(rate, share, where="post", color=colour, linewidth=1.4)
        if mark and drawn[0] > 0:
            run_share = share[np.searchsorted(ordered, drawn[0]) + 1]
            axes.plot(drawn[0], run_share, color=colour, **_DOT)
    if asks_for_log(rates):
        axes.set_xscale("log")
        _number_plainly(axes.xaxis)
    else:
        axes.set_xlim(left=0)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("rate [Mbit/s], at most", fontsize=9)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=8)


def _key(profile: Profile, rates: NDArray[np.float64]) -> list[Artist]:
    """Return the legend of the line styles."""
    if not profile.interval_s:
        return [Line2D([], [], color="white", linestyle="", label="the run's draw", **_DOT)]
    styles: list[Artist] = [
        Line2D([], [], color="black", label="down", **_DOWN),
        Line2D([], [], color="black", label="up", **_UP),
    ]
    return [*styles, Patch(label="outage", **_OUTAGE)] if (rates == 0).any() else styles


def asks_for_log(rates: NDArray[np.float64]) -> bool:
    """Return whether a linear axis would hide the slowest of the limited rates."""
    limited = rates[rates > 0]
    if not len(limited):
        return False
    low, high = np.percentile(limited, [5, 95])
    return bool(high > _LOG_FROM * low)


def _number_plainly(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _name(number: int, device: Device) -> str:
    if device.trace is not None:
        place = Path(device.trace).name
    elif device.distance_m is not None:
        place = f"{device.distance_m:g} m"
    else:
        place = "raw link"
    blocked = f", {device.obstruction_db:g} dB down" if device.obstruction_db else ""
    return f"device-{number}, {place}{blocked}" + ("" if device.reachable else ", out of reach")


def _samples(profile: Profile) -> str:
    if profile.interval_s:
        return f"intervals of {1e3 * profile.interval_s:g} ms"
    return "draws"


def _title(profile: Profile) -> str:
    title = f"{profile.name}: {profile.spec.description} (seed {profile.spec.seed})"
    count = len(profile.spec.devices)
    return title if count <= DEVICES else f"{title}; the first {DEVICES} of {count} devices"
