"""Expert selection: from a layer's gate logits to the experts that are used, and their weights.

A policy's own file imports from here, and nothing else of this project but other policies.
"""

from orchestrator.selection.policy import Gate, LatencyPolicy, LatencySource, Policy, Selection
from orchestrator.selection.registry import find, load, names
from orchestrator.selection.renormalise import drop_unreachable, weights

__all__ = [
    "Gate",
    "LatencyPolicy",
    "LatencySource",
    "Policy",
    "Selection",
    "drop_unreachable",
    "find",
    "load",
    "names",
    "weights",
]
