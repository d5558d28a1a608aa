"""What is in force at which time: a profile, a policy, and when the profile's fading began.

interval   first        first + 1      …
           start_s      + interval_s        each announced lead_s before it begins
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

from orchestrator.contracts.channel_state import ChannelState, PolicyState
from orchestrator.radio.profiles import Profile

# Time for a state to reach all devices before it takes effect, at least.
LEAD_S = 0.1


def first_epoch(now_s: float) -> int:
    """Unix milliseconds, so that a restarted orchestrator's states are newer than those before."""
    return int(1000 * now_s)


@dataclass(frozen=True)
class Timeline:
    """A profile and a policy in force from `start_s` (Unix time) on; channel states follow from it.

    `first` is the interval that begins then: a policy can change while the fading goes on. Where
    it changes within an interval, that interval's state takes effect at `from_s`, the later.
    """

    profile: Profile
    epoch: int
    start_s: float
    first: int = 0
    from_s: float = 0.0
    policy: PolicyState = field(default_factory=PolicyState)

    def interval_at(self, time_s: float) -> int:
        """The interval in force at a Unix time; the first one before the start."""
        return max(self.first, self._begun(time_s))

    def begin_s(self, interval: int) -> float:
        """When an interval begins; counted from the start, so that errors do not add up."""
        return self.start_s + (interval - self.first) * (self.profile.interval_s or 0.0)

    @cached_property
    def lead_s(self) -> float:
        """How far ahead a state is announced: mid-interval, when devices are idle."""
        length_s = self.profile.interval_s
        if length_s is None or length_s > 2 * LEAD_S:
            return LEAD_S
        return (math.ceil(LEAD_S / length_s) + 0.5) * length_s

    def due(self, first: int, now_s: float) -> range:
        """The intervals from `first` on to be announced by now.

        Those that are over already, after a pause of the host, are left out.
        """
        first = max(first, self.interval_at(now_s))
        return range(first, max(first, self._begun(now_s + self.lead_s) + 1))

    def overdue_s(self, epoch: int, interval: int, now_s: float) -> float:
        """Return how long ago the state after a given one took effect; below 0: it has not yet."""
        if epoch == self.epoch and self.profile.interval_s is None:
            return -math.inf
        following = interval + 1 if epoch == self.epoch else self.first
        return now_s - max(self.begin_s(following), self.from_s)

    def state(self, interval: int) -> ChannelState:
        """The state of one interval."""
        return self.profile.state(
            epoch=self.epoch,
            interval=interval,
            apply_at_s=max(self.begin_s(interval), self.from_s),
            policy=self.policy,
        )

    def with_profile(self, profile: Profile, first: int, now_s: float) -> Timeline:
        """Another profile, LEAD_S from now, its fading beginning with interval `first`."""
        return replace(
            self,
            profile=profile,
            epoch=self._next_epoch(now_s),
            start_s=now_s + LEAD_S,
            first=first,
            from_s=0.0,
        )

    def with_policy(self, policy: PolicyState, unannounced: int, now_s: float) -> Timeline:
        """Another policy, under which profile and fading go on as they are.

        Args:
            policy: in force LEAD_S from now; where intervals are hardly longer, with the first
                that was not announced yet, which is `unannounced`.
        """
        length_s, first, from_s = self.profile.interval_s, unannounced, self.from_s
        if length_s is None or length_s > 2 * LEAD_S:
            first = self.interval_at(now_s + LEAD_S)
            if first < unannounced:  # else it still has to be announced, for when it begins
                from_s = now_s + LEAD_S
        return replace(
            self,
            epoch=self._next_epoch(now_s),
            start_s=self.begin_s(first),
            first=first,
            from_s=from_s,
            policy=policy,
        )

    def resumed(self, now_s: float) -> Timeline:
        """The same after a restart, as the next epoch: the fading is where it would have been."""
        first = self.interval_at(now_s + LEAD_S)
        return replace(
            self,
            epoch=self._next_epoch(now_s),
            start_s=self.begin_s(first),
            first=first,
            from_s=now_s + LEAD_S,
        )

    def _next_epoch(self, now_s: float) -> int:
        """Return an epoch no lower than `first_epoch` of a restart would be."""
        return max(self.epoch + 1, first_epoch(now_s))

    def _begun(self, time_s: float) -> int:
        """Return the interval that began last, counting on before the first."""
        if self.profile.interval_s is None:
            return self.first
        return self.first + math.floor((time_s - self.start_s) / self.profile.interval_s)
