"""The fading that a prompt meets: the same for whoever sends it, another one for each prompt.

    prompt              0           1           2          …
    static profile      draw 0      draw 1      draw 2     …    a realisation for each prompt
    varying one         0, 1, …     12140, …    24280, …   …    of 50 ms: 607 s further on

A switch begins it, between two requests. So it can begin anew for each prompt only where requests
go one after another; else it begins once for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.client.applied import wait_applied
from orchestrator.client.client import Client
from orchestrator.errors import InputError
from orchestrator.radio.profiles import Profile
from orchestrator.results.schema import Arrivals, Channel, Fading, FadingBegins

# From where a prompt's fading begins to where the next one's does: longer than any request, and a
# prime number, lest a recorded trace that repeats be at the same place for every prompt.
STRIDE_S = 607.0


@dataclass(frozen=True)
class Realisation:
    """The channel under which a request is to run, and the interval that its fading began with."""

    channel: Channel
    first_interval: int


def parse(text: str | None) -> FadingBegins | None:
    """The value of --fading; InputError if it is none."""
    match text:
        case None | "each" | "one":
            return text
    raise InputError(f"--fading is {text!r}; allowed: each or one")


def choose(
    profile: Profile, arrivals: Arrivals, begins: FadingBegins | None, prompts: int
) -> Fading | None:
    """How fading begins for a run of so many prompts; None where a profile has none.

    Raises:
        InputError: `each` is requested of requests that overlap, or of a profile whose fading
            cannot begin so far on.
    """
    alone = arrivals.kind == "closed" and arrivals.concurrency == 1
    if begins == "each" and not alone:
        raise InputError(
            "--fading each: begins the fading anew between two requests, and requests of "
            "--arrivals or --concurrency above 1 overlap; allowed: --fading one"
        )
    if not profile.fades:
        return None
    fading = Fading(begins=begins or ("each" if alone else "one"), interval_s=profile.interval_s)
    if fading.begins == "each":
        check(profile, prompts, or_else=", or --fading one")
    return fading


def first_interval(profile: Profile, number: int) -> int:
    """The interval with which the fading of a prompt begins, by the prompt's number in its set."""
    if profile.interval_s is None:
        return number
    return number * math.ceil(STRIDE_S / profile.interval_s)


def check(profile: Profile, prompts: int, *, or_else: str = "") -> None:
    """Raise InputError if the fading cannot begin so far on as the last of `prompts` needs.

    `or_else`: what is allowed besides another profile.
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
    """Begin the fading of a prompt, and wait until every device has applied it.

    Raises:
        InputError: the profile is refused.
        StackError: the orchestrator does not answer, or a device does not apply it.
    """
    first = first_interval(profile, number)
    channel = client.use_profile(profile, first_interval=first, allow_degraded=allow_degraded)
    wait_applied(client, channel)
    return Realisation(channel, first)
