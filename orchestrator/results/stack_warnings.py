"""Warnings about the stack during a run: its code, its switches, its links and their intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import pairwise

from orchestrator.contracts.http import Interval, Link, Status
from orchestrator.results.provenance import code_warnings, of_stack
from orchestrator.results.schema import Request, Run, Stack

# A state is applied within a fraction of a millisecond, unless the host has no time for it.
LATE_S = 0.01
LATE_MOST = 0.01


def of_code(run: Run, after: Stack) -> list[str]:
    """Warn of code that differs from the checkout, and of a stack that changed during the run."""
    warnings = []
    if run.source is not None:
        warnings = code_warnings(run.base_station, run.orchestrator, run.source)
    was, now = of_stack(run.stack), of_stack(after)
    changed = [
        f"{field} was {was.get(field)}, is {now.get(field)}"
        for field in {**was, **now}
        if was.get(field) != now.get(field)
    ]
    if changed:
        warnings.append(f"the stack was changed during the run: {'; '.join(changed)}")
    return warnings


def of_switches(channel: Status, requests: Sequence[Request], after: Status) -> list[str]:
    """Warn of a switch after the last request began, which no request reports."""
    begun = [one.epoch for one in requests if one.epoch is not None]
    seen = [one.timings.epoch for one in requests if one.timings is not None]
    last = max([channel.epoch, *begun, *seen])
    if after.epoch <= last:
        return []
    return [
        "what is in force was changed during the last request: at the end it was "
        f"{after.profile} and {after.policy.label} (epoch {after.epoch}), it had been "
        f"{channel.profile} and {channel.policy.label} (epoch {last})"
    ]


def of_links(before: Status, after: Status) -> list[str]:
    """Links that were not as requested, and packets dropped."""
    known = {link.device: link for link in before.links}
    warnings = []
    for link in after.links:
        was = known.get(link.device)
        found = {when: _fault(at) for when, at in (("begin", was), ("end", link)) if at}
        errors = _since(link.errors, was.errors if was else 0)
        faults = {fault: when for when, fault in found.items() if fault}  # each once
        shown = "; ".join(f"{fault} (at the run's {when})" for fault, when in faults.items())
        if shown or errors:
            reports = f"{errors} reports of an error during the run"
            warnings.append(
                f"the link of device-{link.device} is not as requested: {shown or reports}"
            )
        dropped = _since(_overflows(link), _overflows(was) if was else 0)
        if dropped:
            warnings.append(
                f"the queues of device-{link.device} were too short: {dropped} packets dropped "
                "since the run began, others' traffic included"
            )
    return warnings


def of_intervals(intervals: Sequence[Interval], requests: Sequence[Request]) -> list[str]:
    """Warn of coherence intervals that devices applied late or did not report.

    The first interval of a fading does not count, since the run waits for it. Nor do intervals that
    are missing while no request was under way: the run may have been stopped.
    """
    known, missing, late_s = 0, 0, []
    for series in _by_device(intervals):
        for before, now in pairwise(sorted(series, key=lambda item: item.interval)):
            known += 1
            late_s.append(now.applied_at_s - now.apply_at_s)
            missing += _missing(before, now, requests)
    late = [delay_s for delay_s in late_s if delay_s > LATE_S]
    if not known or (len(late) + missing) / (known + missing) <= LATE_MOST:
        return []
    return [
        f"of {known + missing} coherence intervals on devices, {len(late)} were applied more than "
        f"{1e3 * LATE_S:.0f} ms late (at most {1e3 * max(late, default=0):.0f} ms) and of "
        f"{missing} nothing is known: the channel was not quite what the profile says"
    ]


def _by_device(intervals: Sequence[Interval]) -> Collection[list[Interval]]:
    """Return the intervals of each device and epoch."""
    found: dict[tuple[int, int], list[Interval]] = defaultdict(list)
    for item in intervals:
        found[item.device, item.epoch].append(item)
    return found.values()


def _missing(before: Interval, now: Interval, requests: Sequence[Request]) -> int:
    """Return how many intervals are missing between two while a request was under way."""
    steps, span_s = now.interval - before.interval, now.apply_at_s - before.apply_at_s
    if steps < 2 or span_s <= 0:  # a device that just connected was due at that moment
        return 0
    length_s = span_s / steps
    from_s = before.apply_at_s + length_s
    under_way_s = sum(
        max(0.0, min(now.apply_at_s, r.intended_start_s + r.end_to_end_s) - starts_s)
        for r in requests
        if (starts_s := max(from_s, r.actual_start_s)) < now.apply_at_s
    )
    return min(steps - 1, round(under_way_s / length_s))


def _fault(link: Link) -> str | None:
    if link.backend is None:
        return "it has not reported what it applies"
    return link.fault or link.error


def _since(now: int, before: int) -> int:
    """Return the increase of a counter; a smaller value means that it was reset."""
    return now - before if now >= before else now


def _overflows(link: Link) -> int:
    return link.queues.down.overflows + link.queues.up.overflows if link.queues else 0
