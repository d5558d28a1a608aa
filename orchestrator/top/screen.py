"""The whole screen: lines that do not fit are cut, never wrapped; the keys are always shown.

profile, policy, model
replay
requests, latency, tokens
devices                     one row each
requests                    running and waiting, as far as there is room
message                     outcome of the last key
keys
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from rich.console import Group
from rich.text import Text

from orchestrator.contracts.http import Replay, RunningRequest
from orchestrator.top import table
from orchestrator.top.format import NONE, milliseconds, number, printable
from orchestrator.top.view import View

KEYS = " p/P profile   o/O policy   +/- θ of wlr   q quit"
_HEAD_OF_TABLE = 2


def draw(view: View | None, width: int, height: int, step_s: float, message: str) -> Group:
    """Return as many lines as the terminal has; `view` is None until the first reading."""
    room = max(0, height - 2)
    head = ([Text("reading …")] if view is None else list(_head(view)))[:room]
    rows = [] if view is None else view.devices[: max(0, room - len(head) - _HEAD_OF_TABLE)]
    room -= len(head) + (len(rows) + _HEAD_OF_TABLE if rows else 0)
    below = [] if view is None else list(islice(_requests(view), room))
    below += [Text()] * (room - len(below))
    last = [Text(message, style="bold yellow"), Text(KEYS.ljust(width), style="reverse")]
    for line in (*head, *below, *last):
        line.plain = printable(line.plain)
        line.no_wrap, line.overflow = True, "ellipsis"
    grid = [table.devices(rows, width, step_s)] if rows else []
    return Group(*head, *grid, *below, *last)


def _head(view: View) -> Iterator[Text]:
    degraded = ("  DEGRADED: rates only", "bold red") if view.degraded else ""
    yield Text.assemble(
        *_named("profile ", view.profile),
        *_named("   policy ", view.policy),
        *_named("   model ", view.model),
        degraded,
    )
    yield Text(_replay(view.replay))
    yield Text(
        f"requests {_many(view.running)} running, {_many(view.waiting)} waiting; last minute "
        f"{NONE if view.ended is None else view.ended} ended, p50 {milliseconds(view.p50_s)}, "
        f"p95 {milliseconds(view.p95_s)} ms"
    )
    read, made = view.prompt_tokens_per_s, view.completion_tokens_per_s
    yield Text(f"tokens   {number(read)}/s read, {number(made)}/s made in the last minute")
    yield from (Text(fault, style="bold red") for fault in view.faults)
    links = [row for row in view.devices if row.link_fault]
    if links:
        more = f" (and {len(links) - 1} more)" if len(links) > 1 else ""
        yield Text(f"link of device-{links[0].device}: {links[0].link_fault}{more}", style="red")
    yield Text()


def _named(name: str, value: str | None) -> tuple[str, tuple[str, str]]:
    return name, (NONE if value is None else value, "bold")


def _replay(replay: Replay | None) -> str:
    if replay is None:
        return "replay   none so far"
    right = "" if replay.accuracy is None else f", {100 * replay.accuracy:.1f} % right"
    failed = f", {replay.failed} failed" if replay.failed else ""
    runs = "" if replay.running else " (ended)"
    return f"replay   {replay.prompts} {replay.done} of {replay.planned}{right}{failed}{runs}"


def _many(requests: list[RunningRequest] | None) -> str:
    return NONE if requests is None else str(len(requests))


def _requests(view: View) -> Iterator[Text]:
    """Yield a header and one line per request, if there are any."""
    if not view.running and not view.waiting:
        return
    yield Text()
    yield Text(f"{'request':<14} {'state':<8} {'read':>6} {'made':>12} {'age':>8}", style="bold")
    for state, requests in (("running", view.running), ("waiting", view.waiting)):
        for request in requests or []:
            made = f"{request.completion_tokens} of {request.max_tokens}"
            several = f"   {request.sequences} sequences" if request.sequences > 1 else ""
            yield Text(
                f"{request.id[:14]:<14} {state:<8} {request.prompt_tokens:>6} {made:>12} "
                f"{request.age_s:>6.1f} s{several}"
            )
