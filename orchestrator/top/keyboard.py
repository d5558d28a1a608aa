"""Keys from a terminal as they are pressed; the terminal is restored afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import select
import termios
import tty
from types import TracebackType

# Escape sequences of arrows, function keys, Alt with a key, and pasted text: ignored.
_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O[ -~]|[^\[O])")
_BEGUN = re.compile(r"\x1b(\[[0-?]*[ -/]*|O)?$")
# A sequence that a slow line delivers in two parts continues within this time.
_GOES_ON_S = 0.05


class Keyboard:
    """A terminal in cbreak mode within a `with` block, restored however the block ends.

    Ctrl-C stays a signal. Ctrl-Z is an ordinary key: as a signal it would leave cbreak mode on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> Keyboard:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        mode = termios.tcgetattr(self._fd)
        mode[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(termios.error):  # the terminal may be gone
            # Flush what was typed and not read: it is not meant for the shell.
            termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)

    def keys(self, timeout_s: float) -> str | None:
        """Return the keys pressed within `timeout_s`; "" if none; None: the terminal is gone."""
        typed = self._read(timeout_s)
        while typed and _BEGUN.search(typed):
            more = self._read(_GOES_ON_S)
            if not more:
                break
            typed += more
        return None if typed is None else _BEGUN.sub("", _SEQUENCE.sub("", typed))

    def _read(self, timeout_s: float) -> str | None:
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return ""
        try:
            data = os.read(self._fd, 1024)
        except OSError:
            return None
        return data.decode("latin-1") if data else None
