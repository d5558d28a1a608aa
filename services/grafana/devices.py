"""The dashboard with a row per device: its link, load, message times and tokens."""

from __future__ import annotations

from grafana_foundation_sdk.models import common as choices
from grafana_foundation_sdk.models import dashboard as models

from services.grafana.board import DeviceVariable, Line, Section, line
from services.grafana.board import board as on_grid
from services.grafana.common import TOKENS_PER_S
from services.grafana.panels import over_time, states
from services.grafana.parts import COLOURS

_THIS = 'device="$device"'


def board() -> models.Dashboard:
    """Return the dashboard: all devices side by side, then each one."""
    return on_grid(
        "devices",
        "Which device is slow, and is it the channel or the device?",
        [
            Section("All devices", [_all()]),
            Section("Device $device", [_rates_and_load(), _times_and_tokens()], repeat="device"),
        ],
        [DeviceVariable()],
    )


def _all() -> Line:
    slowest = "sum by (device) (rate(wdmoe_slowest_device_total[1m]))"
    return line(
        8,
        states(
            "Admitted",
            "Whether the base station sends work to a device. While a device is gone, its tokens "
            "go without its experts.",
            {"device {{device}}": "wdmoe_device_up"},
            {"1": ("admitted", "green"), "0": ("gone", "red")},
        ),
        over_time(
            "Layers that waited for each device",
            "Share of the last minute's layers that each device answered last.",
            "percentunit",
            {"device {{device}}": f"{slowest} / on () group_left () sum ({slowest})"},
            stacked=choices.StackingMode.NORMAL,
            most=1,
        ),
    )


def _both_ways(name: str, metric: str) -> dict[str, str]:
    """Return the queries for this device's downlink and uplink."""
    return {
        f"{name} {arrow}": f'{metric}{{{_THIS},direction="{direction}"}}'
        for direction, arrow in (("down", "↓"), ("up", "↑"))
    }


def _rates_and_load() -> Line:
    rates = {
        **_both_ways("requested", "wdmoe_link_requested_rate_bps"),
        **_both_ways("applied", "wdmoe_link_applied_rate_bps"),
        **_both_ways("verified", "wdmoe_link_measured_rate_bps"),
        **_both_ways("achieved", "wdmoe:link_rate:achieved_bps"),
    }
    airtime = _both_ways("airtime", "wdmoe:airtime:ratio")
    return line(
        8,
        over_time(
            "Link rate of device $device",
            "Requested by the channel; applied: read back from the kernel; verified: measured with "
            "64 KiB in the last `wdmoe link verify`; achieved: measured with the last minute's "
            "messages, lower because their time includes the host's own work. A link that "
            "is not shaped has only this one.",
            "bps",
            rates,
            log=True,
        ),
        over_time(
            "How busy device $device is",
            "Share of the last minute in which its link carried a message, each way, and "
            "in which it computed; above 1: several at a time. If all are low while layers wait "
            "for it, its messages are few and slow.",
            "percentunit",
            {**airtime, "compute": f"wdmoe:compute:ratio{{{_THIS}}}"},
        ),
    )


def _times_and_tokens() -> Line:
    drops = f"sum by (reason) (rate(wdmoe_expert_dropped_total{{{_THIS}}}[1m]))"
    return line(
        8,
        over_time(
            "A message's time at device $device",
            "Mean of the last minute's messages. Downlink and uplink are due to the channel, "
            "wait and compute to the device.",
            "s",
            {"{{part}}": f"wdmoe:layer_part_seconds:mean{{{_THIS}}}"},
            stacked=choices.StackingMode.NORMAL,
            colours=COLOURS,
        ),
        over_time(
            "Tokens of device $device",
            "Tokens that its experts answered, and tokens that went without them, by reason: "
            "policy (the policy's choice), outage (the channel has the device out of reach), "
            "absent, unreachable or lost (the device was not connected, or did not answer).",
            TOKENS_PER_S,
            {
                "answered": f"wdmoe:expert_tokens:rate{{{_THIS}}}",
                "dropped: {{reason}}": drops,
            },
        ),
    )
