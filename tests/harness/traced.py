"""Checks that hold for every trace: the base station's spans, and Chrome traces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

Spans = Sequence[tuple[int, str, int, int, dict[str, Any]]]

SEQUENCE = ("queue", "step", "between", "not_recorded")
PARTS = ["downlink", "wait", "compute", "pack", "uplink"]


def children(spans: Spans) -> list[list[int]]:
    """Return the indices of each span's direct children."""
    below: list[list[int]] = [[] for _ in spans]
    path: list[int] = []
    for at, span in enumerate(spans):
        assert span[0] <= len(path)
        del path[span[0] :]
        if path:
            below[path[-1]].append(at)
        path.append(at)
    return below


def check_spans(spans: Spans) -> None:
    """Check that children lie within their parents, and that consecutive parts fill them."""
    below = children(spans)
    assert spans[0][:2] == (0, "request")
    for at, (depth, name, start, end, about) in enumerate(spans):
        assert start <= end
        assert depth > 0 or at == 0
        inner = [spans[child] for child in below[at]]
        for child in inner:
            assert start <= child[2] <= child[3] <= end
        if name == "request":
            assert {child[1] for child in inner} <= set(SEQUENCE)
        if name == "round_trip":
            assert [child[1] for child in inner] == (PARTS if about["answered"] else [])
        if name in ("request", "round_trip") and inner:
            borders = [start, *(child[3] for child in inner)]
            assert [child[2] for child in inner] == borders[:-1]
            assert borders[-1] == end


def check_chrome(document: dict[str, Any]) -> None:
    """Check the fields that each phase requires, and that events nest."""
    threads: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    tracks: dict[Any, list[tuple[int, str]]] = defaultdict(list)
    named = set()
    for event in document["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert event["tid"] > 0
        thread = event["pid"], event["tid"]
        if event["ph"] == "M":
            named.add((event["name"], *thread))
            assert isinstance(event["args"]["name"], str)
            continue
        at = _ns(event["ts"])
        assert at >= 0
        assert ("process_name", event["pid"], event["pid"]) in named
        if event["ph"] == "X":
            threads[event["tid"]].append((at, at + _ns(event["dur"])))
            continue
        assert event["ph"] in "be"
        tracks[event["cat"], event["id2"]["local"], event["pid"]].append(
            (at, event["ph"] + event["name"])
        )
    for spans in threads.values():
        _check_nesting(spans)
    for marks in tracks.values():
        assert [at for at, _ in marks] == sorted(at for at, _ in marks)
        _check_balance([mark for _, mark in marks])


def _check_nesting(spans: list[tuple[int, int]]) -> None:
    open_until: list[int] = []
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        assert start <= end
        while open_until and open_until[-1] <= start:
            open_until.pop()
        assert not open_until or end <= open_until[-1]
        open_until.append(end)


def _check_balance(marks: list[str]) -> None:
    begun: list[str] = []
    for mark in marks:
        if mark[0] == "b":
            begun.append(mark[1:])
        else:
            assert begun.pop() == mark[1:]
    assert not begun


def _ns(time_us: float) -> int:
    assert isinstance(time_us, int | float)
    return round(time_us * 1e3)
