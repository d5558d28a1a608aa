"""Invalid sweeps are refused before they send requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import InputError
from tests.harness.sweep_stack import STILL, invoke, prompts, stack
from tests.harness.sweep_stack import ready as ready
from tests.harness.sweep_stack import url as url


def test_a_policy_that_the_orchestrator_refuses_ends_the_sweep() -> None:
    _, error = invoke(prompts("mine", "p0"), "--theta", "", "--policy", "channel", "--out", "out")
    assert isinstance(error, InputError)
    assert str(error) == "policy channel: not today"


def test_fading_with_a_long_memory_is_refused_first() -> None:
    slow = "{kind: rayleigh, coherence_s: 0.05, speed_m_per_s: 0.01}"
    Path("slow.yaml").write_text(STILL.replace("{kind: none}", slow))
    arguments = ("--profile", "slow.yaml", "--out", "out")
    _, error = invoke(prompts("mine", "p0", "p1"), *arguments)
    assert isinstance(error, InputError)
    assert str(error).startswith("profile slow: its fading remembers too many of its intervals of")
    assert stack.sent == []
    assert not Path("out").exists()
    assert (
        invoke(prompts("one", "p0"), *arguments)[1] is None
    )  # a single prompt begins at interval 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--theta", "0.2;0.3"], "--theta is '0.2;0.3'; allowed: numbers from 0 to 0.5"),
        (["--theta", "0.7"], "policy wlr: theta is 0.7; allowed: 0 to 0.5"),
        (["--policy", "best"], "policy 'best' is unknown; allowed: channel, "),
        (["--policy", "wlr:theta"], "policy wlr:theta: 'theta' has no value"),
        (["--policy", "wlr:theta=0.1"], "policy wlr θ=0.1 is given twice; allowed: once each"),
        (["--profile", "still.yaml", "--profile", "still.yaml"], "profile still is given twice"),
        (["--resume"], "--resume: --out is missing"),
    ],
)
def test_arguments_are_checked_first(arguments: list[str], message: str) -> None:
    _, error = invoke(prompts("mine", "p0"), *arguments)
    assert isinstance(error, InputError)
    assert str(error).startswith(message)
    assert stack.sent == []
    assert not Path("runs").exists()
