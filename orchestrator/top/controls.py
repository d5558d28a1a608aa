"""The switches behind the keys: profile, policy and θ, one after another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence

from orchestrator import selection
from orchestrator.client.client import Client
from orchestrator.contracts.channel_state import Param
from orchestrator.contracts.policy import PolicySpec
from orchestrator.errors import InputError, StackError, one_line
from orchestrator.radio import profiles

WLR = "wlr"
# θ when a key switches to wlr, which has no default θ.
THETA_FIRST = 0.2
THETA_STEP = 0.05
THETA_MOST = 0.5
# More keys than this at once were pressed by accident.
MAX_WAITING = 8


class Ring:
    """Cycles through names from the one in force, and moves on past a name that was refused."""

    def __init__(self) -> None:
        self._in_force: str | None = None
        self._at: str | None = None

    def next(self, names: Sequence[str], in_force: str, step: int) -> str:
        """Return the name after (`step` 1) or before (-1) the one in force or tried last."""
        if in_force != self._in_force:
            self._in_force = self._at = in_force
        before_first = -1 if step > 0 else 0
        place = names.index(self._at) if self._at in names else before_first
        self._at = names[(place + step) % len(names)]
        return self._at


class Switches:
    """Performs a switch and returns a line with what is then in force; for one thread.

    Raises:
        InputError: the orchestrator refuses the switch; the message is its own.
        StackError: the orchestrator does not answer, or answers with an error.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._profiles, self._policies = Ring(), Ring()

    def profile(self, step: int) -> str:
        """Switch to the next bundled profile (`step` 1), or the previous one (-1)."""
        bundled = {profile.name: profile for profile in profiles.bundled()}
        in_force = self._client.status().profile
        chosen = bundled[self._profiles.next(list(bundled), in_force, step)]
        return f"profile {self._client.use_profile(chosen).profile}"

    def policy(self, step: int) -> str:
        """Switch to the next policy (`step` 1), or the previous one (-1), with its defaults."""
        in_force = self._client.status().policy.name
        name = self._policies.next(selection.names(), in_force, step)
        return self._use(name, {"theta": THETA_FIRST} if name == WLR else {})

    def theta(self, step: int) -> str:
        """Change θ by a step under wlr, keeping its other parameters; else switch to wlr."""
        in_force = self._client.status().policy
        if in_force.name != WLR:
            return self._use(WLR, {"theta": THETA_FIRST})
        before = in_force.params["theta"]
        theta = round(float(before) + step * THETA_STEP, 4)
        theta = min(max(theta, 0.0), THETA_MOST)
        if theta == before:
            return f"θ is {theta:g}; allowed: 0 to {THETA_MOST:g}"
        return self._use(WLR, in_force.params | {"theta": theta})

    def _use(self, name: str, params: Mapping[str, Param]) -> str:
        channel = self._client.use_policy(PolicySpec(name=name, params=dict(params)))
        return f"policy {channel.policy.label}"


class Worker:
    """Performs one switch after another in its own thread; `message`: outcome of the last."""

    def __init__(self) -> None:
        self.message = ""
        self._queue: queue.Queue[Callable[[], str]] = queue.Queue(MAX_WAITING)
        threading.Thread(target=self._run, name="switches", daemon=True).start()

    def do(self, switch: Callable[[], str]) -> None:
        """Queue a switch; if too many are waiting, drop it and set `message`."""
        try:
            self._queue.put_nowait(switch)
        except queue.Full:
            self.message = "too many keys at once"

    def _run(self) -> None:
        while True:
            switch = self._queue.get()
            try:
                self.message = switch()
            except (InputError, StackError) as error:
                self.message = one_line(str(error))
