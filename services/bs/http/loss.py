"""How a reply says that experts of its tokens were lost to faults or outage."""

from __future__ import annotations

from typing import Any

HEADER = "X-WDMoE-Experts-Lost"
_FIELD = "experts_lost"


def field(experts_lost: int) -> dict[str, int]:
    """What a reply, or a stream's chunk that ends a choice, has of it; nothing if none was lost."""
    return {_FIELD: experts_lost} if experts_lost else {}


def header(reply: dict[str, Any]) -> dict[str, str]:
    """The header of a reply in one piece, by its field: 0 if none was lost."""
    return {HEADER: str(reply.get(_FIELD, 0))}
