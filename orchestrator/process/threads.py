"""End a service when any of its threads fails: no other thread would take over its work."""

from __future__ import annotations

import os
import sys
import threading
import traceback


def end_process_with_any_thread(process: str) -> None:
    """From now on, exit with code 1 when a thread raises; the last line on stderr names the thread.

    Pool threads of libraries are not affected: they pass exceptions to the waiting caller.
    """

    def end(failure: threading.ExceptHookArgs) -> None:
        traceback.print_exception(failure.exc_type, failure.exc_value, failure.exc_traceback)
        thread = failure.thread.name if failure.thread is not None else "unknown"
        reason = traceback.format_exception_only(failure.exc_type, failure.exc_value)[-1].strip()
        print(f"{process}: thread {thread} failed: {reason}", file=sys.stderr, flush=True)
        os._exit(1)  # does not wait for the other threads

    threading.excepthook = end
