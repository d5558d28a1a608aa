"""The fading that a prompt meets: the same in every run, a different one for each prompt.

    prompt              0           1           2          …
    static profile      draw 0      draw 1      draw 2     …    a realisation for each prompt
    varying profile     0, 1, …     12140, …    24280, …   …    of 50 ms: 607 s further on

A switch starts it, between two requests. It can therefore start anew for each prompt only if
requests go one after another; otherwise it starts once for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.client.applied import wait_applied
from orchestrator.client.client import Client
from orchestrator.contracts.http import Status
from orchestrator.errors import InputError
from orchestrator.radio.profiles import Profile
from orchestrator.results.schema import Arrivals, Fading, FadingBegins

# From the start of a prompt's fading to the start of the next one's: longer than any request, and a
# prime number, so that a recorded trace that repeats is at another position for each prompt.
STRIDE_S = 607.0


@dataclass(frozen=True)
class Realisation:
    """The channel under which a request should run, and the interval that its fading began with."""

    channel: Status
    first_interval: int


def parse(text: str | None) -> FadingBegins | None:
    """Return the way of fading; InputError if it is not allowed."""
    match text:
        case None | "each" | "one":
            return text
    raise InputError(f"fading is {text!r}; allowed: each or one")


def choose(
    profile: Profile, arrivals: Arrivals, begins: FadingBegins | None, prompts: int
) -> Fading | None:
    """Return how fading begins for a run; None if the profile has no fading.

    Raises:
        InputError: `each` is requested for requests that overlap, or for a profile whose fading
            cannot begin as far on as the last prompt needs.
    """
    alone = arrivals.kind == "closed" and arrivals.concurrency == 1
    if begins == "each" and not alone:
        raise InputError(
            "fading is each, which begins anew between two requests, but requests on a schedule, "
            "or more than one at once, overlap; allowed: one"
        )
    if not profile.fades:
        return None
    fading = Fading(begins=begins or ("each" if alone else "one"), interval_s=profile.interval_s)
    if fading.begins == "each":
        check(profile, prompts, or_else=", or fading one")
    return fading


def first_interval(profile: Profile, number: int) -> int:
    """Return the interval at which a prompt's fading begins, by the prompt's number in its set."""
    if profile.interval_s is None:
        return number
    return number * math.ceil(STRIDE_S / profile.interval_s)


def check(profile: Profile, prompts: int, *, or_else: str = "") -> None:
    """Raise InputError if the fading cannot begin as far on as the last of `prompts` needs.

    `or_else` ends the error: what is allowed besides another profile.
    """
    if not profile.can_begin_at(first_interval(profile, prompts - 1)):
        raise InputError(
            f"profile {profile.name}: its fading remembers too many of its intervals of "
            f"{profile.interval_s:g} s to begin further on for each prompt; allowed: a "
            f"longer coherence_s, or a higher speed_m_per_s{or_else}"
        )


def begin(
    client: Client, profile: Profile, number: int, *, allow_degraded: bool = False
) -> Realisation:
    """Start the fading of a prompt, and wait until every device has applied it.

    Raises:
        InputError: the profile is refused.
        StackError: the orchestrator does not answer, or a device does not apply it.
    """
    first = first_interval(profile, number)
    channel = client.use_profile(profile, first_interval=first, allow_degraded=allow_degraded)
    wait_applied(client, channel)
    return Realisation(channel, first)
