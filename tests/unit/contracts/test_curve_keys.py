"""CURVE keys: created once, private, and required to use a socket."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from orchestrator.contracts import curve_keys
from orchestrator.errors import StackError


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_keys_are_created_once_and_secrets_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    curve_keys.ensure(folder, ["bs", "device-0"])
    bs = curve_keys.load(folder, "bs")
    assert curve_keys.load_public(folder, "bs") == bs.public
    assert (folder / "bs.key_secret").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == [
        "bs.key",
        "bs.key_secret",
        "device-0.key",
        "device-0.key_secret",
    ]
    curve_keys.ensure(folder, ["bs", "device-0", "device-1"])
    assert curve_keys.load(folder, "bs") == bs
    assert curve_keys.load(folder, "device-1") != bs
    assert bs.secret.decode() not in repr(bs)


def test_a_missing_public_key_is_derived_from_the_secret(tmp_path: Path) -> None:
    curve_keys.ensure(tmp_path, ["bs"])
    bs = curve_keys.load(tmp_path, "bs")
    (tmp_path / "bs.key").unlink()
    (tmp_path / "bs.key_secret.partial").write_text("half a k")
    curve_keys.ensure(tmp_path, ["bs"])
    assert curve_keys.load_public(tmp_path, "bs") == bs.public


def test_loading_waits_for_the_orchestrator(tmp_path: Path) -> None:
    maker = threading.Timer(0.2, curve_keys.ensure, (tmp_path, ["bs"]))
    maker.start()
    assert len(curve_keys.load(tmp_path, "bs", wait_s=10).public) == 40
    maker.join()


def test_an_absent_or_damaged_key_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"bs\.key_secret: no such key after 0 s"):
        curve_keys.load(tmp_path, "bs")
    (tmp_path / "bs.key_secret").write_text("short")
    with pytest.raises(StackError, match="a key of 5 characters; it has 40"):
        curve_keys.load(tmp_path, "bs")


def exchange(
    context: zmq.Context[zmq.Socket[bytes]],
    folder: Path,
    keys: curve_keys.KeyPair | None,
    server_public: bytes,
) -> str | None:
    """Send one message to a server; return its sender, or raise TimeoutError if none arrives."""
    server, client = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    curve_keys.curve_server(server, curve_keys.load(folder, "bs"))
    port = server.bind_to_random_port("tcp://127.0.0.1")
    if keys is not None:
        curve_keys.curve_client(client, keys, server_public)
    client.connect(f"tcp://127.0.0.1:{port}")
    try:
        client.send(b"hello")
        if not server.poll(500):
            raise TimeoutError
        frame = server.recv(copy=False)
        assert frame.bytes == b"hello"
        return curve_keys.sender(frame)
    finally:
        server.close(linger=0)
        client.close(linger=0)


def test_only_known_keys_get_through_and_identify_their_sender(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    curve_keys.ensure(tmp_path, ["bs"])
    bs = curve_keys.load(tmp_path, "bs").public
    running = curve_keys.authenticator(context, tmp_path)
    curve_keys.ensure(
        tmp_path, ["device-0"]
    )  # after the start: keys are looked up at each handshake
    try:
        assert exchange(context, tmp_path, curve_keys.load(tmp_path, "device-0"), bs) == "device-0"
        stranger = curve_keys.KeyPair(*zmq.curve_keypair())
        with pytest.raises(TimeoutError):
            exchange(context, tmp_path, stranger, bs)
        with pytest.raises(TimeoutError):  # no encryption at all
            exchange(context, tmp_path, None, bs)
        with pytest.raises(TimeoutError):  # a server with another key
            exchange(context, tmp_path, curve_keys.load(tmp_path, "device-0"), stranger.public)
        (tmp_path / "device-0.key").write_text("damaged")
        with pytest.raises(TimeoutError):
            exchange(context, tmp_path, curve_keys.load(tmp_path, "device-0"), bs)
        curve_keys.ensure(tmp_path, ["device-1"])
        assert exchange(context, tmp_path, curve_keys.load(tmp_path, "device-1"), bs) == "device-1"
    finally:
        running.stop()


def test_without_curve_a_message_has_no_sender(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    server, client = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    client.connect(f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}")
    client.send(b"hello")
    started = time.monotonic()
    assert curve_keys.sender(server.recv(copy=False)) is None
    assert time.monotonic() - started < 10
