"""A `tc -batch` process that is kept running: a command costs a line, not a process.

    commands ──► stdin [ tc -json -statistics -batch - ] stdout ──► a line for each `show`

Any output that is not an answer ends the process, and the next command starts another.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Sequence
from typing import Any, TypeAlias

from orchestrator.errors import StackError

Listing: TypeAlias = list[dict[str, Any]]
# Longer than an answer takes on a slow host that starts ten processes; a stopped tc never answers.
ANSWER_S = 10.0


class TcBatch:
    """The `tc -batch` process; used by one thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def ask(self, changes: Sequence[str], shows: Sequence[str]) -> list[Listing]:
        """Run commands; return the JSON list that each of `shows` has printed.

        Raises:
            StackError: tc refuses a command, prints no such list, or prints nothing in time.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # its last output is still to be read
                process.stdin.write(("\n".join([*changes, *shows]) + "\n").encode())
            deadline_s = time.monotonic() + ANSWER_S
            return [_listing(self._line(process, deadline_s)) for _ in shows]
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
        self._process, self._unread = None, b""

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            ["tc", "-json", "-statistics", "-batch", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )
        return self._process

    def _line(self, process: subprocess.Popen[bytes], deadline_s: float) -> str:
        assert process.stdout is not None
        while b"\n" not in self._unread:
            left_s = max(0.0, deadline_s - time.monotonic())
            if not select.select([process.stdout], [], [], left_s)[0]:
                raise StackError(f"tc: no answer within {ANSWER_S:.0f} s")
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                said = self._unread.decode(errors="replace").strip()
                raise StackError(f"tc: ended in the middle of {said:.80}" if said else _NO_WORD)
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode(errors="replace").strip()


_NO_WORD = "tc: ended without a word"


def _listing(line: str) -> Listing:
    if not line.startswith("["):
        raise StackError(f"tc: {line:.200}")
    try:
        listing: Listing = json.loads(line)
    except ValueError:
        raise StackError(f"tc: {line:.80} is not JSON") from None
    return listing
