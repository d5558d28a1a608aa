"""The testbed's brain: channel, latency model, profiles, selection, control plane, replay."""

__version__ = "0.1.0"
