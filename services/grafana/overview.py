"""The first dashboard: latency, its parts, slow devices, and whether to trust the numbers."""

from __future__ import annotations

from grafana_foundation_sdk.models import common as choices
from grafana_foundation_sdk.models import dashboard as models

from services.grafana import trust
from services.grafana.board import Line, Section, line, to_board
from services.grafana.board import board as on_grid
from services.grafana.common import TOKENS_PER_S
from services.grafana.panels import bars, heat_map, number, over_time
from services.grafana.parts import COLOURS
from services.grafana.policy import DROPPED_SHARE

_NAME = choices.BigValueTextMode.NAME
_NAME_AND_VALUE = choices.BigValueTextMode.VALUE_AND_NAME


def board() -> models.Dashboard:
    """Return the dashboard that Grafana shows first."""
    return on_grid(
        "overview",
        "How long do prompts take, where does the time go, and is the emulation honest?",
        [
            Section("Now", [_now()]),
            Section("How long do prompts take?", _latency()),
            Section("Where does the time go?", [_time()]),
            Section("Which device is slow: its channel, or the device itself?", [_devices()]),
            Section("What did the policy do about it, and is the emulation honest?", [_trust()]),
        ],
    )


def _now() -> Line:
    return line(
        4,
        number(
            "Profile",
            "The channel profile in force, `wdmoe profile use`.",
            "none",
            {"{{profile}}": "wdmoe_profile_info"},
            text=_NAME,
        ),
        number(
            "Policy",
            "The selection policy in force with its parameters, `wdmoe policy use`.",
            "none",
            {"{{name}} {{params}}": "wdmoe_policy_info"},
            text=_NAME,
        ),
        number(
            "Latency, p95",
            "End to end at the base station, of the last minute's requests.",
            "s",
            {"p95": "wdmoe:request_seconds:p95"},
        ),
        number(
            "Throughput",
            "Tokens generated, mean of the last minute.",
            TOKENS_PER_S,
            {"completion": 'wdmoe:tokens:rate{kind="completion"}'},
        ),
        number(
            "Requests",
            "Requests being served, and requests that wait for room. If requests wait for long, "
            "the base station is saturated.",
            "short",
            {"running": "wdmoe_requests_running", "waiting": "wdmoe_requests_waiting"},
            text=_NAME_AND_VALUE,
        ),
        number(
            "Accuracy of the replay",
            "Share of right answers of the current or last replay. The green marks show "
            "which one it is.",
            "percentunit",
            {"accuracy": "wdmoe_replay_accuracy_ratio"},
            missing="no score yet",
        ),
        number(
            "Progress of the replay",
            "Share of its prompts that the replay has completed.",
            "percentunit",
            {"done": "wdmoe_replay_done_requests / (wdmoe_replay_planned_requests > 0)"},
            missing="no replay",
        ),
        number(
            "Alerts",
            "Alerts that fire now; the red marks show which. The alerts page of Prometheus "
            "says what to do about each.",
            "short",
            {"firing": 'count(ALERTS{alertstate="firing"}) or vector(0)'},
            thresholds=((None, "green"), (1, "red")),
        ),
    )


def _latency() -> list[Line]:
    percentiles = {
        "p50": "wdmoe:request_seconds:p50",
        "p95": "wdmoe:request_seconds:p95",
        "p99, five minutes": "wdmoe:request_seconds:p99",
    }
    first_token = {f"p{q}": f"wdmoe:time_to_first_token_seconds:p{q}" for q in (50, 95)}
    return [
        line(
            8,
            over_time(
                "Prompt latency",
                "From a request's arrival at the base station to its last token, of the "
                "requests that ended in the last minute; p99 of five minutes in which "
                "at least 100 ended. Estimated from a histogram whose buckets grow by a factor "
                "of at most 2: as exact as the heat map beside it.",
                "s",
                percentiles,
            ),
            heat_map(
                "Prompt latency, distribution",
                "Requests per second by the time they took. Two bands are two kinds of "
                "prompts, or a device that only some of them need.",
                "s",
                "sum by (le) (rate(wdmoe_request_seconds_bucket[1m]))",
            ),
        ),
        line(
            7,
            over_time(
                "Time to first token",
                "From a request's arrival to its first token: the queue, and the whole prompt's "
                "way through every layer.",
                "s",
                first_token,
            ),
            over_time(
                "Tokens",
                "Tokens of prompts, and tokens generated.",
                TOKENS_PER_S,
                {"{{kind}}": "wdmoe:tokens:rate"},
            ),
            over_time(
                "Requests ended",
                "By outcome. For any outcome but ok, see `wdmoe status`.",
                "reqps",
                {"{{outcome}}": "sum by (outcome) (rate(wdmoe_requests_total[1m]))"},
            ),
            widths=(12, 6, 6),
        ),
    ]


def _time() -> Line:
    mean = "wdmoe:request_part_seconds:mean"
    share = f"{mean} / ignoring (part) group_left () sum without (part) ({mean})"
    return line(
        9,
        over_time(
            "A request's time, by part",
            "Mean of the last minute's requests; the height is their mean latency. Per "
            "layer, downlink, wait, compute and uplink are those of the device that "
            "answered last. docs/measurement.md describes each part.",
            "s",
            {"{{part}}": mean},
            stacked=choices.StackingMode.NORMAL,
            colours=COLOURS,
        ),
        bars(
            "Share of each part",
            "The most that shortening a part could save.",
            "percentunit",
            {"{{part}}": f"sort_desc({share})"},
            most=1,
        ),
        widths=(16, 8),
    )


def _devices() -> Line:
    parts = "wdmoe:layer_part_seconds:mean"
    slowest = "sum by (device) (rate(wdmoe_slowest_device_total[1m]))"
    each = to_board("devices", "Each device")
    return line(
        9,
        bars(
            "Layers that waited for this device",
            "Share of the last minute's layers that this device answered last: making "
            "any other device faster would not have helped them.",
            "percentunit",
            {"device {{device}}": f"{slowest} / on () group_left () sum ({slowest})"},
            most=1,
        ).links(each),
        bars(
            "Channel: a message's time on the air",
            "Downlink and uplink of a layer's message, mean of the last minute.",
            "s",
            {
                "device {{device}}": f'sum by (device) ({parts}{{part=~"downlink|uplink"}})',
            },
        ).links(each),
        bars(
            "Device: a message's time in it",
            "Wait and computation of a layer's message, mean of the last minute.",
            "s",
            {"device {{device}}": f'sum by (device) ({parts}{{part=~"wait|compute"}})'},
        ).links(each),
    )


def _trust() -> Line:
    policy, emulation = to_board("policy", "Policy"), to_board("emulation", "Emulation")
    return line(
        4,
        number(
            "Experts per token",
            "Mean number of experts that a token was sent to, in the last minute.",
            "short",
            {"experts": "wdmoe:experts_per_token:mean"},
        ).links(policy),
        number(
            "Dropped",
            "Share of the gate's choices that were dropped in the last minute: by the "
            "policy, or because the device was missing.",
            "percentunit",
            {"dropped": DROPPED_SHARE},
        ).links(policy),
        number(
            "Measured against the model",
            "Time of radio and devices over the time of the paper's Eq. 6 and 7 for the same "
            "messages, each with all of a layer's tokens for a device.",
            "short",
            {"measured / batched model": "wdmoe:latency_measured_over_batched:ratio"},
        ).links(emulation),
        trust.overruns().links(emulation),
        trust.link_error().links(emulation),
        trust.lateness().links(emulation),
    )
