"""Three numbers that show whether to trust all others; they are on two dashboards."""

from __future__ import annotations

from grafana_foundation_sdk.builders import stat

from services.grafana.common import rising
from services.grafana.panels import number

LINK_ERROR = 'abs(wdmoe_link_error_ratio{bytes="65536"})'
ANSWERS = "rate(wdmoe_device_messages_total[1m])"
LATE = "rate(wdmoe_overruns_total[1m])"
LATENESS = (
    "wdmoe:interval_lateness_seconds:p99 or histogram_quantile(1, "
    "sum by (device, le) (wdmoe_interval_lateness_seconds_bucket))"
)
LATENESS_IS = (
    "p99 of five minutes; with fewer than 100 states, the largest since the device started, "
    "rounded up to the histogram's next bound."
)
LINK_ERROR_STEPS = rising(0.025, 0.05)  # red: the alert's bound
LATENESS_STEPS = rising(0.005, 0.02)
OVERRUN_STEPS = rising(0.005, 0.01)
NOT_VERIFIED = "not verified"


def overruns() -> stat.Panel:
    """Return the panel with the share of answers for which the host was too slow."""
    return number(
        "Overruns",
        "Share of answers that came later than the emulated device would have answered. A run with "
        "more than 1 % of them warns above its table.",
        "percentunit",
        {"overruns": f"sum({LATE}) / sum({ANSWERS})"},
        thresholds=OVERRUN_STEPS,
    )


def link_error() -> stat.Panel:
    """Return the panel with the result of the last verification."""
    return number(
        "Link error",
        "From the last `wdmoe link verify`, messages of 64 KiB, worst link: measured against "
        "expected transmission time. Good is below 5 %, or 0.2 ms on fast links.",
        "percentunit",
        {"worst link": f"max({LINK_ERROR})"},
        thresholds=LINK_ERROR_STEPS,
        missing=NOT_VERIFIED,
    )


def lateness() -> stat.Panel:
    """Return the panel with the lateness of channel states."""
    return number(
        "Lateness",
        f"Lateness of channel states on the device with the largest: {LATENESS_IS}",
        "s",
        {"worst device": f"max({LATENESS})"},
        thresholds=LATENESS_STEPS,
    )
