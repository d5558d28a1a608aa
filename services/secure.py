"""CURVE on a service's sockets, with keys that the orchestrator may still be making."""

from __future__ import annotations

import zmq

from orchestrator import keys
from services.settings import Settings

_KEYS_WAIT_S = 120.0


def secure_client(socket: zmq.Socket[bytes], settings: Settings, own: str, server: str) -> None:
    """Before `connect`: speak as `own`, only to `server`."""
    pair = keys.load(settings.keys_dir, own, _KEYS_WAIT_S)
    keys.curve_client(socket, pair, keys.load_public(settings.keys_dir, server, _KEYS_WAIT_S))


def secure_server(socket: zmq.Socket[bytes], settings: Settings, own: str) -> None:
    """Before `bind`: accept only peers whose key is in the keys folder."""
    pair = keys.load(settings.keys_dir, own, _KEYS_WAIT_S)
    keys.authenticator(socket.context, settings.keys_dir)
    keys.curve_server(socket, pair)
