"""Restore what was in force, for every command that changes it for a while.

with restored(client):     profile, fading and policy are read
    …                      they may be changed; the first signal ends the body, once
                           they are put into force again; signals are ignored
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from orchestrator.client.client import Client
from orchestrator.contracts.policy import PolicySpec
from orchestrator.errors import InputError, StackError
from orchestrator.radio.profiles import Profile

# What ends a command: Ctrl-C, `kill`, a closed terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class InForce:
    """A profile, the interval that its fading is at, and a policy."""

    profile: Profile
    interval: int
    policy: PolicySpec


@contextmanager
def restored(client: Client) -> Iterator[InForce]:
    """Put what is in force now into force again, even after an error or a signal.

    The fading goes on with the interval that it is at now.

    Raises:
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP came, unless it is ignored (nohup).
        StackError: the body succeeded, but the state could not be restored. After an error or a
            signal this is printed instead, and the first error is raised.
    """
    channel = client.status()
    before = InForce(client.profile(), channel.interval, channel.policy)
    with _first_signal_only() as signals:
        try:
            try:
                yield before
            finally:
                signals.armed = False
        except BaseException:
            try:
                _restore(client, before)
            except StackError as fault:
                _warn(str(fault))
            raise
        _restore(client, before)


def _restore(client: Client, before: InForce) -> None:
    """Restore the policy, and the profile even where the policy is refused."""
    profile, faults = before.profile, []
    try:
        client.use_policy(before.policy)
    except (InputError, StackError) as fault:
        faults.append(f"policy {before.policy.label} could not be restored: {fault}")
    first = before.interval
    if not profile.can_begin_at(first):
        first = 0
        _warn(
            f"the fading of profile {profile.name} begins again at interval 0: it remembers too "
            f"many intervals to go on at {before.interval}"
        )
    try:
        client.use_profile(profile, first_interval=first, allow_degraded=True)
    except (InputError, StackError) as fault:
        faults.append(f"profile {profile.name} could not be restored: {fault}")
    if faults:
        raise StackError("; ".join(faults))


def _warn(line: str) -> None:
    with suppress(OSError):  # of a terminal that was closed
        print(f"wdmoe: {line}", file=sys.stderr)


class _Signals:
    """Raises KeyboardInterrupt for the first signal while `armed`, and ignores all others."""

    def __init__(self) -> None:
        self.armed = True

    def __call__(self, number: int, frame: object) -> None:
        if self.armed:
            self.armed = False
            raise KeyboardInterrupt


@contextmanager
def _first_signal_only() -> Iterator[_Signals]:
    """Handle SIGNALS; in the main thread, as Python handles none in others."""
    signals = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {
        number: signal.signal(number, signals)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
