"""CURVE on a service's sockets; it waits for keys that the orchestrator is still making."""

from __future__ import annotations

import zmq

from orchestrator.contracts import curve_keys
from services.settings import Settings

_KEYS_WAIT_S = 120.0


def secure_client(socket: zmq.Socket[bytes], settings: Settings, key: str, server: str) -> None:
    """Authenticate as `key`, and only to `server`; call it before `connect`."""
    pair = curve_keys.load(settings.keys_dir, key, _KEYS_WAIT_S)
    curve_keys.curve_client(
        socket, pair, curve_keys.load_public(settings.keys_dir, server, _KEYS_WAIT_S)
    )


def secure_server(socket: zmq.Socket[bytes], settings: Settings, key: str) -> None:
    """Accept only peers whose key is in the keys folder; call it before `bind`."""
    pair = curve_keys.load(settings.keys_dir, key, _KEYS_WAIT_S)
    curve_keys.authenticator(socket.context, settings.keys_dir)
    curve_keys.curve_server(socket, pair)
