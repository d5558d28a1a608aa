"""What a process was built from: the same metric in every role."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Info

from orchestrator.process.build import describe


def build_info(registry: CollectorRegistry) -> Info:
    """Register and set it."""
    build = Info("wdmoe_build", "What this process was built from", registry=registry)
    own = describe()
    build.info({"version": own.version, "python": own.python, "source": own.source})
    return build
