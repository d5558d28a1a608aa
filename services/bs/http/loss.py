"""How a reply reports that experts of its tokens were lost to faults or outage."""

from __future__ import annotations

from typing import Any

HEADER = "X-WDMoE-Experts-Lost"
_FIELD = "experts_lost"


def field(experts_lost: int) -> dict[str, int]:
    """Return the field of a reply, or of the chunk that ends a choice; empty if none was lost."""
    return {_FIELD: experts_lost} if experts_lost else {}


def header(reply: dict[str, Any]) -> dict[str, str]:
    """Return the header of a reply that is not streamed, by its field: 0 if none was lost."""
    return {HEADER: str(reply.get(_FIELD, 0))}
