"""Outcome of the tokens that the gate assigned to each device."""

from __future__ import annotations

from collections import Counter

import numpy as np
from matplotlib.patches import Patch

from orchestrator.report.figures import style
from orchestrator.report.figures.drawing import Drawing
from orchestrator.report.groups import Group
from orchestrator.report.load import Recorded

# By field of `Experts`: label, colour, hatch.
FATES: dict[str, tuple[str, str, str]] = {
    "used": ("worked on", style.BLUE, ""),
    "deselected": ("left out by the policy", style.ORANGE, "//"),
    "outage": ("in outage", style.PURPLE, "xx"),
    "dropped": ("lost: absent, late or unreachable", style.VERMILION, ".."),
}


def tokens(one: Recorded, fate: str) -> Counter[int]:
    """Return the number of tokens with an outcome by device, over all layers and requests."""
    count: Counter[int] = Counter()
    for _, timings in one.answered:
        for device, number in getattr(timings.experts, fate).items():
            count[int(device)] += number
    return count


def draw(group: Group) -> Drawing | None:
    """Draw tokens by device and outcome, a panel per run; None if no request was answered."""
    counts = {
        label: {fate: tokens(one, fate) for fate in FATES}
        for label, one in group.runs.items()
        if one.answered
    }
    if not counts:
        return None
    devices = sorted({q for count in counts.values() for fate in count.values() for q in fate})
    fates = [fate for fate in FATES if any(count[fate] for count in counts.values())]
    with style.applied():
        figure = style.figure(1.1 + 1.05 * len(counts))
        panels = figure.subplots(len(counts), sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (label, count) in zip(panels, counts.items(), strict=True):
            base = np.zeros(len(devices))
            for fate in fates:
                _, colour, hatch = FATES[fate]
                height = np.array([float(count[fate][q]) for q in devices])
                axes.bar(
                    [str(q) for q in devices],
                    height,
                    bottom=base,
                    width=0.75,
                    **style.filling(colour, hatch),
                )
                base += height
            axes.set_title(style.short(label), pad=3)
            axes.grid(visible=False, axis="x")
        panels[-1].set_xlabel("device")
        figure.supylabel("tokens, over all layers", fontsize=9.5)
        style.key(
            figure,
            [
                Patch(label=name, **style.filling(colour, hatch))
                for name, colour, hatch in (FATES[fate] for fate in fates)
            ],
        )
    return Drawing(f"{group.slug}-devices", "Tokens by device", _finding(counts), figure)


def _finding(counts: dict[str, dict[str, Counter[int]]]) -> str:
    findings = []
    for label, count in counts.items():
        used = count["used"]
        if not used:
            findings.append(f"{label}: no device worked on any")
            continue
        busiest, most = used.most_common(1)[0]
        text = f"{label}: device {busiest} worked on the most, {100 * most / used.total():.0f} %"
        other = [
            f"{100 * count[fate].total() / _all(count):.1f} % {FATES[fate][0]}"
            for fate in FATES
            if fate != "used" and count[fate]
        ]
        findings.append(", ".join([text, *other]))
    return f"{'; '.join(findings)}."


def _all(count: dict[str, Counter[int]]) -> int:
    return sum(fate.total() for fate in count.values())
