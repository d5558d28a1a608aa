"""How a reply reports that experts of its tokens were lost to faults or outage."""

from __future__ import annotations

HEADER = "X-WDMoE-Experts-Lost"


def field(experts_lost: int) -> dict[str, int]:
    """Return the field of an answer, or of the chunk that ends a choice; empty if none was lost."""
    return {"experts_lost": experts_lost} if experts_lost else {}


def header(experts_lost: int) -> dict[str, str]:
    """Return the header of an answer that is not streamed."""
    return {HEADER: str(experts_lost)}
