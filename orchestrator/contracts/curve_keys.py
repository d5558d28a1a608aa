"""The CURVE keys of the stack: which peers its sockets accept, and under which names.

A key is two files in one directory that all services mount: `NAME.key` (public) and
`NAME.key_secret` (mode 0600), 40 characters of z85 each. The orchestrator creates what is absent;
the others wait for theirs. Only pyzmq: devices import it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from orchestrator.errors import StackError

POLL_S = 0.1


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key in z85, as pyzmq's socket options take it."""

    public: bytes
    secret: bytes = field(repr=False)


def ensure(directory: Path, names: Iterable[str]) -> None:
    """Create the keys that are absent; existing ones stay, so a restart changes nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        secret = directory / f"{name}.key_secret"
        if not secret.exists():
            _write(secret, zmq.curve_keypair()[1], 0o600)
        public = zmq.curve_public(_read(secret))
        path = directory / f"{name}.key"
        if not path.exists() or _read(path) != public:
            _write(path, public, 0o644)


def load(directory: Path, name: str, wait_s: float = 0.0) -> KeyPair:
    """The key pair of `name`; StackError if it is not there within `wait_s`."""
    secret = _wait(directory / f"{name}.key_secret", wait_s)
    return KeyPair(zmq.curve_public(secret), secret)


def load_public(directory: Path, name: str, wait_s: float = 0.0) -> bytes:
    """The public key of `name`; StackError if it is not there within `wait_s`."""
    return _wait(directory / f"{name}.key", wait_s)


def curve_server(socket: zmq.Socket[Any], own: KeyPair) -> None:
    """Make a socket, before it binds, accept only encrypted connections."""
    socket.curve_secretkey = own.secret
    socket.curve_publickey = own.public
    socket.curve_server = True


def curve_client(socket: zmq.Socket[Any], own: KeyPair, server_public: bytes) -> None:
    """Make a socket, before it connects, use the key `own`, and accept that server key only."""
    socket.curve_secretkey = own.secret
    socket.curve_publickey = own.public
    socket.curve_serverkey = server_public


def authenticator(context: zmq.Context[Any], directory: Path) -> ThreadAuthenticator:
    """Start admitting only the keys of `directory` on the CURVE servers of `context`.

    Call it before they bind, and `stop()` it at the end. `sender` names who sent a message.
    """
    running = _Authenticator(context, directory)
    running.start()
    return running


def sender(frame: zmq.Frame) -> str | None:
    """The key name (`device-3`) that sent a frame (`recv(copy=False)`); None without CURVE."""
    try:
        name = frame.get("User-Id")
    except zmq.ZMQError:  # the connection was not authenticated
        return None
    return str(name) or None


class _Authenticator(ThreadAuthenticator):
    """Looks keys up at each handshake, since the files may appear after it has started."""

    def __init__(self, context: zmq.Context[Any], directory: Path) -> None:
        super().__init__(context)
        self._directory = directory
        self.configure_curve_callback(credentials_provider=self)

    def callback(self, _domain: str, key: bytes) -> bool:
        """Whether a client's public key is one of ours."""
        return self._name(key) is not None

    def curve_user_id(self, client_public_key: bytes) -> str:
        """What `sender` reads."""
        return self._name(z85.encode(client_public_key)) or ""

    def _name(self, key: bytes) -> str | None:
        for path in self._directory.glob("*.key"):
            try:
                if _read(path) == key:
                    return path.stem
            except (
                OSError,
                StackError,
            ):  # the thread would end, and no peer would be admitted from then on
                continue
        return None


def _wait(path: Path, wait_s: float) -> bytes:
    deadline = time.monotonic() + wait_s
    while not path.exists():
        if time.monotonic() >= deadline:
            raise StackError(f"{path}: no such key after {wait_s:g} s; the orchestrator creates it")
        time.sleep(POLL_S)
    return _read(path)


def _read(path: Path) -> bytes:
    key = path.read_bytes().strip()
    if len(key) != 40:
        raise StackError(f"{path}: a key of {len(key)} characters; it has 40")
    return key


def _write(path: Path, key: bytes, mode: int) -> None:
    """Write a key whole or not at all: a reader never sees half a key or a readable secret."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key + b"\n")
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
