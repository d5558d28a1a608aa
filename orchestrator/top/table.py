"""The table of devices: its columns, and which of them fit a narrow terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from orchestrator.top.format import milliseconds, number, share, sparkline
from orchestrator.top.history import MINUTE_S
from orchestrator.top.view import LATE_S, OVERRUNS_MOST, DeviceRow

SPARKLINE_LEAST, SPARKLINE_MOST = 7, 60
_GAP = 1
_BAD, _ODD = "bold red", "yellow"


@dataclass(frozen=True)
class Column:
    """A column of `width`; the largest `rank` is left out first, a column without rank never."""

    head: str
    width: int
    cell: Callable[[DeviceRow], Text]
    rank: int | None = None
    justify: JustifyMethod = "right"


def _odd(text: str, odd: bool, style: str = _ODD) -> Text:
    return Text(text, style=style if odd else "")


COLUMNS = (
    Column("\ndev", 3, lambda row: Text(str(row.device))),
    Column(
        "at\nthe BS", 8, lambda row: _odd(row.state, row.state != "admitted", _BAD), justify="left"
    ),
    Column("set\n↓", 5, lambda row: Text(number(row.asked_down_bps)), 5),
    Column("bit/s\n↑", 5, lambda row: Text(number(row.asked_up_bps)), 6),
    Column("got\n↓", 5, lambda row: Text(number(row.got_down_bps)), 12),
    Column("bit/s\n↑", 5, lambda row: Text(number(row.got_up_bps)), 13),
    Column("air\n↓", 4, lambda row: Text(share(row.airtime_down)), 3),
    Column("\n↑", 4, lambda row: Text(share(row.airtime_up)), 2),
    Column("com-\npute", 4, lambda row: Text(share(row.compute)), 4),
    Column("tok\n/s", 5, lambda row: Text(number(row.tokens_per_s)), 7),
    Column("left\nout", 5, lambda row: Text(number(row.deselected_per_s)), 8),
    Column("\nlost", 5, lambda row: _odd(number(row.lost_per_s), bool(row.lost_per_s), _BAD), 9),
    Column("last\n", 4, lambda row: _odd(share(row.slowest), (row.slowest or 0) >= 0.5), 1),
    Column(
        "over\nrun",
        4,
        lambda row: _odd(share(row.overruns), (row.overruns or 0) > OVERRUNS_MOST),
        11,
    ),
    Column(
        "late\nms",
        5,
        lambda row: _odd(milliseconds(row.lateness_s), (row.lateness_s or 0) > LATE_S),
        10,
    ),
    Column("\n!", 3, lambda row: Text(row.marks, style=_ODD), justify="left"),
    Column("mean\nms", 5, lambda row: Text(milliseconds(row.message_s))),
)


def fitting(width: int) -> list[Column]:
    """Return the columns that fit beside the shortest sparkline, at least those without rank."""
    columns = list(COLUMNS)
    while _taken(columns) + SPARKLINE_LEAST > width:
        removed = max((c for c in columns if c.rank is not None), key=_rank, default=None)
        if removed is None:
            break
        columns.remove(removed)
    return columns


def _rank(column: Column) -> int:
    return column.rank or 0


def _taken(columns: Sequence[Column]) -> int:
    return sum(column.width + _GAP for column in columns)


def devices(rows: Sequence[DeviceRow], width: int, step_s: float) -> Table:
    """Return the table; sparklines share one scale, so that slow devices stand out."""
    columns = fitting(width)
    room = max(1, width - _taken(columns))
    cells = max(1, min(room, SPARKLINE_MOST, int(MINUTE_S / step_s)))
    shown = [value for row in rows for value in row.messages_s[-cells:] if value is not None]
    most = max(shown, default=0.0) or 1.0
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in columns:
        head = Text(column.head)
        table.add_column(head, justify=column.justify, width=column.width, no_wrap=True)
    wide = max(cells, min(room, SPARKLINE_LEAST))
    scale = f"to {milliseconds(most)}" if shown else ""
    table.add_column(Text(f"{scale}\n{step_s * cells:g} s"), width=wide, no_wrap=True)
    for row in rows:
        bars = sparkline(row.messages_s[-cells:], most, wide)
        table.add_row(*(column.cell(row) for column in columns), Text(bars, style="cyan"))
    return table
