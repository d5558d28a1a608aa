"""The testbed's brain: channel, latency model, profiles, selection, control plane, replay."""
