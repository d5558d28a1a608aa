"""Orchestrator and command line: channel, latency model, selection, control plane, replay."""

__version__ = "0.1.0"
