"""The dashboard that shows whether links, devices and clocks do what the profile says."""

from __future__ import annotations

from grafana_foundation_sdk.models import common as choices
from grafana_foundation_sdk.models import dashboard as models

from services.grafana import trust
from services.grafana.board import Line, Section, line
from services.grafana.board import board as on_grid
from services.grafana.panels import bars, histogram, matrix, number, over_time

_LINK = "device {{device}} {{direction}}"


def board() -> models.Dashboard:
    """Return the dashboard: requested and measured rates, lateness, overruns, queues, the host."""
    return on_grid(
        "emulation",
        "Is the emulation honest?",
        [
            Section("At a glance", [_glance()]),
            Section("Does each link do what the profile says?", [_verified(), _live()]),
            Section("Are states applied, and answers given, when they are due?", [_due()]),
            Section("Is a queue or the host in the way?", [_queues(), _host()]),
            Section("How far is the model from the measurement?", [_model()]),
        ],
    )


def _glance() -> Line:
    return line(
        4,
        number(
            "How links are shaped",
            "Number of devices by backend: netem supports rate, delay, jitter and loss, tbf "
            "rate alone.",
            "suffix:devices",
            {"{{backend}}": "count by (backend) (wdmoe_link_backend_info)"},
            text=choices.BigValueTextMode.VALUE_AND_NAME,
        ),
        trust.link_error(),
        trust.lateness(),
        trust.overruns(),
        number(
            "Packets dropped by a full queue",
            "In the last minute, of all links. Loss that a profile configures is not included: "
            "any drop here is one that the channel would not have caused.",
            "short",
            {"drops": "sum(increase(wdmoe_link_queue_drops_total[1m]))"},
            thresholds=((None, "green"), (1, "red")),
        ),
        number(
            "Links not as in force",
            "Links whose device currently reports an error, an old state or nothing at all; and "
            "the errors of the last minute, including those that are over.",
            "short",
            {
                "links": "sum(wdmoe_link_fault)",
                "errors": "sum(increase(wdmoe_link_errors_total[1m]))",
            },
            thresholds=((None, "green"), (1, "red")),
        ),
    )


def _verified() -> Line:
    by_size = 'label_join(abs(wdmoe_link_error_ratio), "link", " ", "device", "direction")'
    return line(
        11,
        bars(
            "Error of each link, 64 KiB",
            "Measured transmission time, less the stack's own cost, against the expected time; "
            "from the last `wdmoe link verify`. docs/radio.md has the accuracy to "
            "expect at each rate.",
            "percentunit",
            {_LINK: trust.LINK_ERROR},
            thresholds=trust.LINK_ERROR_STEPS,
            missing=trust.NOT_VERIFIED,
        ),
        matrix(
            "Error of each link, by message size",
            "The same by size of the messages in bytes. Small ones fit into the bucket of "
            "the tbf backend and pass at once: near 100 % is normal for tbf there, not a "
            "fault.",
            "percentunit",
            f"avg by (link, bytes) ({by_size})",
            row="link",
            column="bytes",
            thresholds=trust.LINK_ERROR_STEPS,
        ),
    )


def _live() -> Line:
    requested = "avg_over_time(wdmoe_link_requested_rate_bps[1m])"
    by = "ignoring (instance, job)"
    return line(
        8,
        over_time(
            "Applied over requested rate",
            "The rate read back from the kernel over the rate that the channel requested, means "
            "of a minute: 1, except that the two are scraped at different moments of a fading "
            "channel. A link that is not shaped has neither.",
            "short",
            {_LINK: f"avg_over_time(wdmoe_link_applied_rate_bps[1m]) / {by} {requested}"},
        ),
        over_time(
            "Achieved over requested rate",
            "Rate of the last minute's messages over the requested rate, without a "
            "verification: at most 1, and lower the shorter a message is on the air, because "
            "its time includes the host's own work.",
            "short",
            {_LINK: f"wdmoe:link_rate:achieved_bps / {by} {requested}"},
        ),
    )


def _due() -> Line:
    return line(
        8,
        over_time(
            "Lateness, by device",
            "From the moment a channel state was due to the moment it was applied: "
            f"{trust.LATENESS_IS}",
            "s",
            {"device {{device}}": trust.LATENESS},
            thresholds=trust.LATENESS_STEPS,
        ),
        histogram(
            "Lateness, all states so far",
            "States by how late they were applied, since the devices started.",
            "suffix:states",
            "sum by (le) (wdmoe_interval_lateness_seconds_bucket)",
        ),
        over_time(
            "Overruns, by device",
            "Share of each device's answers that came later than the emulated device would have "
            "answered: the host is too slow for the speed that the profile sets.",
            "percentunit",
            {
                "device {{device}}": f"sum by (device) ({trust.LATE}) "
                f"/ sum by (device) ({trust.ANSWERS})"
            },
            thresholds=trust.OVERRUN_STEPS,
        ),
    )


def _queues() -> Line:
    return line(
        8,
        over_time(
            "Bytes in the queues",
            "Bytes that waited in each link's queue when it was sampled.",
            "bytes",
            {_LINK: "wdmoe_link_queue_backlog_bytes"},
        ),
        over_time(
            "Packets dropped by a full queue, by link",
            "Per second, while no loss was configured: the queue was too short.",
            "pps",
            {_LINK: "rate(wdmoe_link_queue_drops_total[1m])"},
        ),
    )


def _host() -> Line:
    who = "{{job}} {{device}}"
    return line(
        8,
        over_time(
            "Processor time",
            "Cores that each process keeps busy. If they add up to the host's cores, "
            "overruns and lateness are due to the host.",
            "suffix:cores",
            {who: "rate(process_cpu_seconds_total[1m])"},
            stacked=choices.StackingMode.NORMAL,
        ),
        over_time(
            "Memory",
            "Resident memory of each process.",
            "bytes",
            {who: "process_resident_memory_bytes"},
            stacked=choices.StackingMode.NORMAL,
        ),
        over_time(
            "Messages refused",
            "Invalid messages per second that the base station and the orchestrator dropped.",
            "suffix:messages/s",
            {"refused": "sum(rate(wdmoe_refused_messages_total[1m])) or vector(0)"},
        ),
    )


def _model() -> Line:
    ended = "sum(rate(wdmoe_request_seconds_count[1m]))"
    split = 'wdmoe_request_part_seconds_total{part=~"downlink|wait|compute|uplink"}'
    return line(
        8,
        over_time(
            "Measured over the model",
            "The time of radio and devices in the last minute's requests, over the time of Eq. 6 "
            "and 7 for the same messages: the same selections and rates, and all of a layer's "
            "tokens for a device at once, whatever their requests. Above 1 because of framing, "
            "encryption and the scheduling of ten processes.",
            "short",
            {"measured / batched model": "wdmoe:latency_measured_over_batched:ratio"},
        ),
        over_time(
            "A request: end to end, radio and devices, models",
            "Means of the last minute. The first two differ by trunk, queueing and the stack's "
            "own work, which the paper's model does not include. A step that several requests "
            "share counts for each of them, except in Eq. 8, which has a request's own tokens, "
            "one after another.",
            "s",
            {
                "end to end": f"sum(rate(wdmoe_request_seconds_sum[1m])) / {ended}",
                "radio and devices": f"sum(rate({split}[1m])) / {ended}",
                "batched model": f"sum(rate(wdmoe_request_batched_seconds_total[1m])) / {ended}",
                "Eq. 8": f"sum(rate(wdmoe_request_eq8_seconds_total[1m])) / {ended}",
            },
        ),
    )
