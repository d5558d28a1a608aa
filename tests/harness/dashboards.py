"""Readers of a dashboard's JSON."""

from __future__ import annotations

from typing import Any


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all panels, without the rows between them."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board: dict[str, Any]) -> list[str]:
    """Return every PromQL expression of panels, annotations and variables."""
    return [
        *(query["expr"] for panel in panels(board) for query in panel["targets"]),
        *(mark["expr"] for mark in board["annotations"]["list"]),
        *(variable["query"]["query"] for variable in board["templating"].get("list", [])),
    ]
