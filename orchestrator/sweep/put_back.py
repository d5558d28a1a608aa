"""Who changes what is in force for a while leaves the stack as it was, whatever comes."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.errors import InputError, StackError
from orchestrator.profiles import Profile
from orchestrator.replay.client import Client
from orchestrator.replay.records import Policy

# What somebody ends a command with.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def put_back(client: Client) -> Iterator[None]:
    """Leave the stack with the policy and the profile that it has now, whatever comes."""
    profile, policy = client.profile(), client.channel().policy
    try:
        yield
    except BaseException:
        try:
            _restore(client, profile, policy)
        except (InputError, StackError) as fault:  # what came first is what is raised
            told = f"{policy.label} and {profile.name} could not be put back: {fault}"
            print(f"wdmoe: {told}", file=sys.stderr)
        raise
    _restore(client, profile, policy)


def _restore(client: Client, profile: Profile, policy: Policy) -> None:
    with _undisturbed():
        try:
            client.use_policy(policy)
        finally:
            client.use_profile(profile, allow_degraded=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore signals for a while; in the main thread, as Python handles none in others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
