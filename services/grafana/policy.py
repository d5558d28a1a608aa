"""The dashboard of the selection policy: number of experts, drops, and their reasons."""

from __future__ import annotations

from grafana_foundation_sdk.models import common as choices
from grafana_foundation_sdk.models import dashboard as models

from services.grafana.board import Line, Section, line
from services.grafana.board import board as on_grid
from services.grafana.common import TOKENS_PER_S
from services.grafana.panels import heat_map, histogram, matrix, over_time

_DROPS = "sum(rate(wdmoe_expert_dropped_total[1m]))"
_SENT = "sum(rate(wdmoe_expert_tokens_total[1m]))"
DROPPED_SHARE = f"{_DROPS} / ({_DROPS} + {_SENT})"


def board() -> models.Dashboard:
    """Return the dashboard: experts per token, drops, κ and the weight-to-latency ratio."""
    return on_grid(
        "policy",
        "What did the policy do about slow devices?",
        [
            Section("How many experts does a token get?", [_experts()]),
            Section("Whose experts are dropped?", [_drops()]),
            Section("Why: what would another θ do?", [_kappa()]),
            Section("Was it right: what was kept, what was dropped?", [_kept()]),
        ],
    )


def _experts() -> Line:
    tokens = "sum by (experts) (rate(wdmoe_token_experts_total[1m]))"
    return line(
        8,
        over_time(
            "Experts per token",
            "Mean number of experts that a token was sent to, in the last minute.",
            "short",
            {"mean": "wdmoe:experts_per_token:mean"},
        ),
        over_time(
            "Tokens by number of experts",
            "Share of tokens that went to each number of experts. 0: every device that the "
            "token needed was out of reach.",
            "percentunit",
            {"{{experts}} experts": f"{tokens} / on () group_left () sum ({tokens})"},
            stacked=choices.StackingMode.NORMAL,
            most=1,
        ),
    )


def _drops() -> Line:
    return line(
        9,
        matrix(
            "Share dropped, by layer and device",
            "Share of the gate's choices of this device in this layer that were dropped "
            "in the last minute. A red column is a device that costs too much, a red row "
            "a layer whose gate prefers such devices.",
            "percentunit",
            "wdmoe:expert_drop:ratio",
            row="layer",
            column="device",
            thresholds=((None, "transparent"), (0.01, "yellow"), (0.25, "orange"), (0.5, "red")),
        ),
        over_time(
            "Dropped, by device",
            "Share of the gate's choices of this device that were dropped, for any reason.",
            "percentunit",
            {
                "device {{device}}": "sum by (device) (rate(wdmoe_expert_dropped_total[1m]))"
                " / (sum by (device) (rate(wdmoe_expert_dropped_total[1m]))"
                " + sum by (device) (rate(wdmoe_expert_tokens_total[1m])))"
            },
            most=1,
        ),
        over_time(
            "Dropped, by reason",
            "policy: the policy's choice; outage: the channel has the device out of reach; absent, "
            "unreachable, lost: the device was not connected, or did not answer.",
            TOKENS_PER_S,
            {"{{reason}}": "sum by (reason) (rate(wdmoe_expert_dropped_total[1m]))"},
        ),
        widths=(12, 6, 6),
    )


def _kappa() -> Line:
    buckets = "sum by (le) (rate(wdmoe_kappa_bucket[1m]))"
    return line(
        9,
        histogram(
            "κ of the last minute's tokens",
            "Eq. 10: smallest over smallest + largest weight-to-latency ratio of a token's "
            "candidates, by upper end of each bucket. wlr with θ at a bar's upper end "
            "drops an expert of every token in this bar and those above it on the "
            "page; under other policies the panel shows what wlr would do.",
            "suffix:tokens·layers/s",
            buckets,
        ),
        heat_map(
            "κ over time",
            "The same over time: it changes with the channel and with the prompts.",
            "short",
            buckets,
        ),
    )


def _kept() -> Line:
    def quantile(q: float, decision: str) -> str:
        selected = f'wdmoe_expert_wlr_bucket{{decision="{decision}"}}'
        return f"histogram_quantile({q}, sum by (le) (rate({selected}[1m])))"

    return line(
        9,
        over_time(
            "Weight-to-latency ratio, kept and dropped",
            "Eq. 9, weight over latency, of candidates that were kept and that the policy "
            "dropped: 10th, 50th and 90th percentile. wlr drops from below; the two "
            "overlap because it compares within a token. A policy that drops "
            "nothing has no second group.",
            "suffix:/s",
            {
                f"{decision} {name}": quantile(q, decision)
                for decision in ("kept", "dropped")
                for name, q in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))
            },
            log=True,
        ),
        over_time(
            "Time of a layer",
            "From gate to sum, median and 95th percentile of the last minute: dropping "
            "experts is meant to reduce it. Compare before and after the policy and profile marks.",
            "s",
            {"p50": "wdmoe:layer_seconds:p50", "p95": "wdmoe:layer_seconds:p95"},
        ),
    )
