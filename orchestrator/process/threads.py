"""A service ends with any of its threads: what that one did, nothing else would do."""

from __future__ import annotations

import os
import sys
import threading
import traceback


def end_process_with_any_thread(process: str) -> None:
    """From now on, exit with code 1 when a thread ends by an exception; the last line says which.

    A library's pool threads hand their exceptions to who waits for them, and are not concerned.
    """

    def end(ended: threading.ExceptHookArgs) -> None:
        traceback.print_exception(ended.exc_type, ended.exc_value, ended.exc_traceback)
        thread = ended.thread.name if ended.thread is not None else "unknown"
        reason = traceback.format_exception_only(ended.exc_type, ended.exc_value)[-1].strip()
        print(f"{process}: thread {thread} failed: {reason}", file=sys.stderr, flush=True)
        os._exit(1)  # as without other threads: none of them is waited for

    threading.excepthook = end
