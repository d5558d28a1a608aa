"""CURVE on a service's sockets, with keys that the orchestrator may still be making."""

from __future__ import annotations

import zmq

from orchestrator.contracts import curve_keys
from services.settings import Settings

_KEYS_WAIT_S = 120.0


def secure_client(socket: zmq.Socket[bytes], settings: Settings, own: str, server: str) -> None:
    """Before `connect`: speak as `own`, only to `server`."""
    pair = curve_keys.load(settings.keys_dir, own, _KEYS_WAIT_S)
    curve_keys.curve_client(
        socket, pair, curve_keys.load_public(settings.keys_dir, server, _KEYS_WAIT_S)
    )


def secure_server(socket: zmq.Socket[bytes], settings: Settings, own: str) -> None:
    """Before `bind`: accept only peers whose key is in the keys folder."""
    pair = curve_keys.load(settings.keys_dir, own, _KEYS_WAIT_S)
    curve_keys.authenticator(socket.context, settings.keys_dir)
    curve_keys.curve_server(socket, pair)
