"""Expert selection: from a layer's gate logits to the experts used, and their weights.

The file of a policy imports from this package and from other policies only.
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
