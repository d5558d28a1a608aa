"""The build information of a process: the same metric in every role."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Info

from orchestrator.process.build import describe


def build_info(registry: CollectorRegistry) -> Info:
    """Register the metric and set it to this process's build."""
    build = Info("wdmoe_build", "What this process was built from", registry=registry)
    facts = describe()
    build.info({"version": facts.version, "python": facts.python, "source": facts.source})
    return build
