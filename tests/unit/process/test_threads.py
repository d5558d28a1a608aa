"""A service ends when any of its threads fails, and names the thread."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import threading, time
from orchestrator.process.threads import end_process_with_any_thread

end_process_with_any_thread("bs")

def fail():
    raise {error}

threading.Thread(target=fail, name="engine", daemon=True).start()
time.sleep(60)
"""


@pytest.mark.parametrize("error", ["ValueError('no such layer')", "SystemExit(0)"])
def test_a_failing_thread_ends_the_process(error: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(error=error)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("bs: thread engine failed: ")
    assert error.split("(")[0] in last


@pytest.mark.parametrize("process", ["orchestrator", "services.bs", "services.device"])
def test_every_service_installs_the_hook(process: str) -> None:
    """The hook is installed before the rest of the start, which fails here."""
    program = (
        "import runpy, threading, sys\n"
        "try:\n"
        f"    runpy.run_module({process!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    sys.exit(0 if threading.excepthook is not threading.__excepthook__ else 3)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path), "WDMOE_DEVICES": "no"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
