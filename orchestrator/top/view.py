"""The view of the readings: the numbers on the screen, also as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.contracts.http import Health, Link, Replay, RunningRequest
from orchestrator.top.exposition import Numbers, quantile, total
from orchestrator.top.history import MINUTE_S, History, Step, message_s
from orchestrator.top.poller import COUNTERS, Reading

# Steadier than one reading, and still current.
RECENT_S = 5.0
# A state is applied within a fraction of a millisecond, unless the host is too busy.
LATE_S = 0.01
OVERRUNS_MOST = 0.01


@dataclass(frozen=True)
class DeviceRow:
    """One device in the last RECENT_S; None: not known, or nothing was measured.

    Attributes:
        state: `admitted`, `outage`, `refused`, `silent` (no longer connected), `absent`, `unknown`.
        asked_down_bps, asked_up_bps: requested rates; None also where the link is not shaped.
        got_down_bps, got_up_bps: payload of the messages over the time they were on their way.
        airtime_down, airtime_up, compute: share of the time; a message counts when it has ended.
        tokens_per_s: tokens sent to its expert.
        deselected_per_s: tokens that the policy withheld from it.
        lost_per_s: tokens that it should have received and did not.
        slowest: share of the layers that it answered last.
        message_s: mean time of a message, from the base station and back.
        messages_s: the same of each reading of the last minute, the newest last.
        overruns: share of its answers for which the host was too slow.
        lateness_s: p99 of how late states were applied; the largest if there are few.
    """

    device: int
    state: str
    asked_down_bps: float | None
    asked_up_bps: float | None
    got_down_bps: float | None
    got_up_bps: float | None
    airtime_down: float | None
    airtime_up: float | None
    compute: float | None
    tokens_per_s: float | None
    deselected_per_s: float | None
    lost_per_s: float | None
    slowest: float | None
    message_s: float | None
    messages_s: list[float | None]
    overruns: float | None
    lateness_s: float | None
    link_fault: str | None

    @property
    def marks(self) -> str:
        """Marks of doubtful numbers: `O` overruns, `L` late, `E` a fault of its link."""
        return (
            ("O" if (self.overruns or 0.0) > OVERRUNS_MOST else "")
            + ("L" if (self.lateness_s or 0.0) > LATE_S else "")
            + ("E" if self.link_fault else "")
        )


@dataclass(frozen=True)
class View:
    """The stack as shown; times and rates of requests are those of the last minute."""

    model: str | None
    profile: str | None
    policy: str | None
    degraded: bool
    replay: Replay | None
    running: list[RunningRequest] | None
    waiting: list[RunningRequest] | None
    ended: int | None
    p50_s: float | None
    p95_s: float | None
    prompt_tokens_per_s: float | None
    completion_tokens_per_s: float | None
    devices: list[DeviceRow]
    faults: list[str]


def view(reading: Reading, history: History) -> View:
    """Return the view of the newest reading and of the history that ends with it."""
    health, status, requests = reading.health, reading.status, reading.requests
    name = "wdmoe_request_seconds_bucket"
    minute_s, minute = history.over(MINUTE_S, (name, "wdmoe_tokens_total"))
    known = reading.counters is not None and minute_s > 0
    faults = [*reading.faults]
    if health is not None and health.status != "ok":
        faults.append(f"the base station: {health.status}")
    return View(
        model=None if health is None else _model(health),
        profile=None if status is None else status.profile,
        policy=None if status is None else status.policy.label,
        degraded=status is not None and status.degraded,
        replay=None if status is None else status.replay,
        running=None if requests is None else requests.running,
        waiting=None if requests is None else requests.waiting,
        ended=round(total(minute, name, le="+Inf")) if known else None,
        p50_s=quantile(0.5, minute, name) if known else None,
        p95_s=quantile(0.95, minute, name) if known else None,
        prompt_tokens_per_s=_tokens(minute, "prompt") / minute_s if known else None,
        completion_tokens_per_s=_tokens(minute, "completion") / minute_s if known else None,
        devices=_devices(reading, history),
        faults=faults,
    )


def _model(health: Health) -> str:
    model = health.model
    return f"{model.name} ({model.layers} layers, {model.experts} experts, top {model.top_k})"


def _tokens(numbers: Numbers, kind: str) -> float:
    return total(numbers, "wdmoe_tokens_total", kind=kind)


def _devices(reading: Reading, history: History) -> list[DeviceRow]:
    took_s, numbers = history.over(RECENT_S, COUNTERS)
    if reading.counters is None:
        took_s = 0.0
    reported = reading.status.links if reading.status is not None else []
    links = {link.device: link for link in reported}
    known = {int(q) for q in reading.health.devices} if reading.health is not None else set()
    steps = list(history.steps)
    return [
        _row(q, links.get(q), _state(q, reading.health, links.get(q)), took_s, numbers, steps)
        for q in sorted(known | links.keys())
    ]


def _state(q: int, health: Health | None, link: Link | None) -> str:
    if health is None or str(q) not in health.devices:
        return "unknown"
    device = health.devices[str(q)]
    if device.refused is not None:
        return "refused"
    if not device.admitted:
        return "absent" if device.last_seen_age_s is None else "silent"
    return "admitted" if link is None or link.reachable else "outage"


def _row(
    q: int, link: Link | None, state: str, took_s: float, numbers: Numbers, steps: list[Step]
) -> DeviceRow:
    def counted(name: str, **labels: str) -> float:
        return total(numbers, f"wdmoe_{name}", device=str(q), **labels)

    def a_second(amount: float) -> float | None:
        return amount / took_s if took_s else None

    down_s, up_s = counted("downlink_seconds_sum"), counted("uplink_seconds_sum")
    messages = counted("device_messages_total")
    dropped = counted("expert_dropped_total")
    deselected = counted("expert_dropped_total", reason="policy")
    return DeviceRow(
        device=q,
        state=state,
        asked_down_bps=None if link is None else link.down.rate_bps,
        asked_up_bps=None if link is None else link.up.rate_bps,
        got_down_bps=_ratio(8 * counted("radio_bytes_total", direction="down"), down_s),
        got_up_bps=_ratio(8 * counted("radio_bytes_total", direction="up"), up_s),
        airtime_down=a_second(down_s),
        airtime_up=a_second(up_s),
        compute=a_second(counted("compute_seconds_sum")),
        tokens_per_s=a_second(counted("expert_tokens_total")),
        deselected_per_s=a_second(deselected),
        lost_per_s=a_second(dropped - deselected),
        slowest=_ratio(
            counted("slowest_device_total"), total(numbers, "wdmoe_slowest_device_total")
        ),
        message_s=message_s(numbers).get(str(q)),
        messages_s=[step.message_s.get(str(q)) for step in steps],
        overruns=_ratio(counted("overruns_total"), messages),
        lateness_s=None if link is None else _lateness_s(link),
        link_fault=None if link is None else link.fault,
    )


def _ratio(amount: float, of: float) -> float | None:
    return amount / of if of else None


def _lateness_s(link: Link) -> float | None:
    late = link.lateness
    return late.max_s if late.p99_s is None else late.p99_s
