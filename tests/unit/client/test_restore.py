"""Commands that temporarily change what is in force restore it, however they end."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from orchestrator.client.client import Client
from orchestrator.client.restore import restored
from tests.harness.control_plane import FAST, STILL, eventually, profile
from tests.harness.live_stack import LiveStack, heed_signals, live
from tests.harness.sweep_stack import prompts

pytestmark = pytest.mark.slow

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
VERIFY = ("link", "verify", "--json")
INTERVAL = 5


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveStack]:
    """Yield a stack with a draw and a policy other than the defaults."""
    monkeypatch.chdir(tmp_path)
    with live(STILL) as stack:
        stack.stack.control.use(profile(STILL), first_interval=INTERVAL)
        stack.stack.control.use_policy("wlr", {"theta": 0.3})
        yield stack


def sweep() -> tuple[str, ...]:
    """Return the arguments of a sweep under another profile."""
    Path("other.yaml").write_text(STILL.replace("distance_m: 100", "distance_m: 200"))
    return ("sweep", prompts("mine", "p0", "p1"), "--theta", "0.2", "--profile", "other.yaml")


def once(act: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls `act` the first time, and does nothing later."""
    left = [act]
    return lambda: left.pop()() if left else None


@pytest.mark.parametrize(
    ("number", "moment"),
    [*((number, "on_use") for number in SIGNALS), (signal.SIGTERM, "on_probe")],
)
def test_link_verify_restores_what_was_in_force_after_a_signal(
    stack: LiveStack, number: signal.Signals, moment: str
) -> None:
    before = stack.in_force()
    seen: list[str] = []

    def end() -> None:
        if moment == "on_probe" and stack.in_force()["profile"] != "not-shaped":
            return
        seen.append(stack.in_force()["profile"])
        if len(seen) == 1:
            process.send_signal(number)
            time.sleep(0.5)  # meanwhile the first switch has no answer

    setattr(stack, moment, end)
    process = stack.start(*VERIFY)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert seen
    assert stack.settled() == before


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGHUP, "on_use"), (signal.SIGTERM, "on_prompt")]
)
def test_a_sweep_restores_what_was_in_force_after_a_signal(
    stack: LiveStack, number: signal.Signals, moment: str
) -> None:
    before = stack.in_force()

    def end() -> None:
        process.send_signal(number)
        time.sleep(0.5)

    setattr(stack, moment, once(end))
    process = stack.start(*sweep())
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert stack.settled() == before


def test_a_second_signal_does_not_interrupt_restoring(stack: LiveStack) -> None:
    before = stack.in_force()
    uses: list[float] = []

    def end() -> None:
        uses.append(time.monotonic())
        for _ in range(2 if len(uses) == 1 else 1):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)

    stack.on_use = end
    process = stack.start(*VERIFY)
    process.communicate(timeout=60)
    assert len(uses) == 2
    assert stack.settled() == before


def test_link_verify_restores_what_was_in_force_when_its_terminal_is_closed(
    stack: LiveStack,
) -> None:
    before = stack.in_force()
    terminal, end = pty.openpty()

    def own_terminal() -> None:
        heed_signals()
        os.setsid()
        fcntl.ioctl(end, termios.TIOCSCTTY, 0)

    def close() -> None:
        os.close(terminal)
        time.sleep(0.5)

    stack.on_use = once(close)
    ends = {"stdin": end, "stdout": end, "stderr": end}
    process = stack.start("link", "verify", **ends, preexec_fn=own_terminal)
    os.close(end)
    process.wait(60)
    assert process.returncode != 0
    assert stack.settled() == before


def test_link_verify_restores_what_was_in_force_after_an_error(stack: LiveStack) -> None:
    before = stack.in_force()

    def fail() -> None:
        if stack.in_force()["profile"] == "not-shaped":
            raise ValueError

    stack.on_probe = fail
    process = stack.start(*VERIFY)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.startswith("wdmoe: the base station: HTTP 500 at /probe")
    assert stack.settled() == before


def test_a_failure_to_restore_is_reported_in_one_line(stack: LiveStack) -> None:
    def refuse() -> None:
        if stack.in_force()["profile"] == "not-shaped":
            raise RuntimeError

    stack.on_use = refuse
    process = stack.start(*VERIFY)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.startswith(
        "wdmoe: profile p could not be restored: the orchestrator: HTTP 500 at /profile"
    )
    assert error.count("\n") == 1


def test_fading_is_restored_at_its_interval(stack: LiveStack) -> None:
    stack.stack.control.use(profile(FAST), first_interval=100_000)
    process = stack.start(*VERIFY)
    process.communicate(timeout=60)
    assert process.returncode == 0
    now = stack.in_force()
    assert now["profile_sha256"] == profile(FAST).sha256
    assert 100_000 <= now["interval"] < 101_000


def test_fading_that_cannot_be_restored_begins_again_and_is_reported(
    stack: LiveStack, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = FAST.replace("coherence_s: 0.05", "coherence_s: 0.05, speed_m_per_s: 0.001")
    stack.stack.control.use(profile(slow), first_interval=10_000)
    eventually(lambda: stack.in_force()["interval"] > 10_000)
    url = stack.environment["WDMOE_ORCHESTRATOR_URL"]
    with closing(Client(url, url)) as client, restored(client):
        pass
    assert stack.in_force()["interval"] < 10_000
    error = capsys.readouterr().err
    assert error.startswith("wdmoe: the fading of profile p begins again at interval 0: ")


def test_link_verify_waits_only_for_the_devices_it_probes(stack: LiveStack) -> None:
    stack.stuck = {1}
    process = stack.start(*VERIFY, "--device", "0")
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_an_ignored_signal_stays_ignored(stack: LiveStack) -> None:
    stack.on_use = once(lambda: process.send_signal(signal.SIGHUP))
    process = stack.start(*VERIFY, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_switches_take_effect_in_the_order_of_their_arrival(stack: LiveStack) -> None:
    """A switch whose draw takes long does not undo a later one."""
    url = stack.environment["WDMOE_ORCHESTRATOR_URL"]
    slow = {"name": "slow", "text": STILL, "first_interval": 0}
    stack.on_use = once(lambda: time.sleep(1))
    with ThreadPoolExecutor(1) as background:
        first = background.submit(httpx.post, f"{url}/profile", json=slow)
        time.sleep(0.5)
        httpx.post(f"{url}/profile", json={**slow, "name": "later"}).raise_for_status()
        first.result().raise_for_status()
    assert stack.in_force()["profile"] == "later"
