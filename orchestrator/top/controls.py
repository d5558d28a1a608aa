"""What the keys switch: profile, policy and θ, each told to the orchestrator, one after another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence

from orchestrator import selection
from orchestrator.client.client import Client
from orchestrator.contracts.channel_state import Param
from orchestrator.errors import InputError, StackError
from orchestrator.radio import profiles
from orchestrator.results.schema import Policy

WLR = "wlr"
# Where wlr comes into force, which has no θ of its own.
THETA_FIRST = 0.2
THETA_STEP = 0.05
THETA_MOST = 0.5
# More keys than that at once were not meant.
MAX_WAITING = 8


class Ring:
    """Goes round names from the one in force; past one that was refused, too."""

    def __init__(self) -> None:
        self._in_force: str | None = None
        self._at: str | None = None

    def next(self, names: Sequence[str], in_force: str, step: int) -> str:
        """The next one (`step` 1) or the one before (-1) of what was in force or tried last."""
        if in_force != self._in_force:
            self._in_force = self._at = in_force
        before_first = -1 if step > 0 else 0
        place = names.index(self._at) if self._at in names else before_first
        self._at = names[(place + step) % len(names)]
        return self._at


class Switches:
    """Switches, and says in a line what is in force then; for one thread.

    Raises:
        InputError: what is asked for is refused, in the orchestrator's words.
        StackError: the orchestrator does not answer, or with an error.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._profiles, self._policies = Ring(), Ring()

    def profile(self, step: int) -> str:
        """To the next bundled profile, or the one before."""
        bundled = {profile.name: profile for profile in profiles.bundled()}
        in_force = self._client.channel().profile
        chosen = bundled[self._profiles.next(list(bundled), in_force, step)]
        return f"profile {self._client.use_profile(chosen).profile}"

    def policy(self, step: int) -> str:
        """To the next policy, or the one before, with its defaults."""
        in_force = self._client.channel().policy.name
        name = self._policies.next(selection.names(), in_force, step)
        return self._use(name, {"theta": THETA_FIRST} if name == WLR else {})

    def theta(self, step: int) -> str:
        """A step up or down under wlr, whose other parameters stay; else to wlr."""
        in_force = self._client.channel().policy
        if in_force.name != WLR:
            return self._use(WLR, {"theta": THETA_FIRST})
        before = in_force.params["theta"]
        theta = round(float(before) + step * THETA_STEP, 4)
        theta = min(max(theta, 0.0), THETA_MOST)
        if theta == before:
            return f"θ is {theta:g}; allowed: 0 to {THETA_MOST:g}"
        return self._use(WLR, in_force.params | {"theta": theta})

    def _use(self, name: str, params: Mapping[str, Param]) -> str:
        channel = self._client.use_policy(Policy(name=name, params=dict(params)))
        return f"policy {channel.policy.label}"


class Worker:
    """Does one switch after another beside what draws; `message` is what became of the last."""

    def __init__(self) -> None:
        self.message = ""
        self._asked: queue.Queue[Callable[[], str]] = queue.Queue(MAX_WAITING)
        threading.Thread(target=self._run, name="switches", daemon=True).start()

    def do(self, switch: Callable[[], str]) -> None:
        """Queue it."""
        try:
            self._asked.put_nowait(switch)
        except queue.Full:
            self.message = "too many keys at once"

    def _run(self) -> None:
        while True:
            switch = self._asked.get()
            try:
                self.message = switch()
            except (InputError, StackError) as error:
                self.message = " ".join(str(error).split())
