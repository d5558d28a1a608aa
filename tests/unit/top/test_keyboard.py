"""Keys from a real terminal, and the terminal's state afterwards."""

from __future__ import annotations

import os
import termios
import threading
import time
from collections.abc import Iterator

import pytest

from orchestrator.top.keyboard import Keyboard


@pytest.fixture
def pair() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pseudo-terminal: the user's and the program's."""
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_keys_arrive_as_they_are_pressed_without_an_echo(pair: tuple[int, int]) -> None:
    master, slave = pair
    with Keyboard(slave) as keyboard:
        assert keyboard.keys(0) == ""
        os.write(master, b"p+")
        assert keyboard.keys(5) == "p+"
        os.set_blocking(master, False)
        with pytest.raises(BlockingIOError):
            os.read(master, 10)


def test_the_terminal_is_restored_even_after_an_error(pair: tuple[int, int]) -> None:
    _, slave = pair
    before = termios.tcgetattr(slave)
    with Keyboard(slave):
        assert termios.tcgetattr(slave) != before
    assert termios.tcgetattr(slave) == before
    with pytest.raises(RuntimeError), Keyboard(slave):
        raise RuntimeError
    assert termios.tcgetattr(slave) == before


def test_unread_keys_are_not_left_for_the_shell(pair: tuple[int, int]) -> None:
    master, slave = pair
    with Keyboard(slave):
        os.write(master, b"rm -rf x\n")
        time.sleep(0.05)
    os.set_blocking(slave, False)
    with pytest.raises(BlockingIOError):
        os.read(slave, 100)


@pytest.mark.parametrize(
    "sequence",
    [b"\x1b[A", b"\x1bOP", b"\x1b[15~", b"\x1b[1;5C", b"\x1bp", b"\x1b[200~", b"\x1b", b"\x1b["],
)
def test_arrows_and_function_keys_are_ignored(pair: tuple[int, int], sequence: bytes) -> None:
    master, slave = pair
    with Keyboard(slave) as keyboard:
        os.write(master, b"+" + sequence)
        assert keyboard.keys(5) == "+"


def test_a_sequence_in_two_parts_is_recognised(pair: tuple[int, int]) -> None:
    master, slave = pair
    with Keyboard(slave) as keyboard:
        os.write(master, b"\x1bO")
        later = threading.Thread(target=lambda: os.write(master, b"P"))
        later.start()
        assert "P" not in (keyboard.keys(5) or "")
        later.join()


def test_a_closed_terminal_is_detected() -> None:
    master, slave = os.openpty()
    with Keyboard(slave) as keyboard:
        os.close(master)
        assert keyboard.keys(5) is None
    os.close(slave)
