"""`wdmoe policy` and POST /policy against a real orchestrator over HTTP."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.harness.command import Wdmoe

OWN = """\
from pydantic import Field

from orchestrator.selection import Gate, Policy, Selection


class Own(Policy):
    \"\"\"A user-written policy.\"\"\"

    share: float = Field(default=0.5, gt=0, le=1, description="of the candidates")
    mode: str = "plain"
    limit: int | None = None
    often: int = Field(default_factory=lambda: 3)

    def select(self, gate: Gate) -> Selection:
        raise NotImplementedError
"""


@pytest.fixture
def own(folder: Path) -> Path:
    (folder / "own.py").write_text(OWN)
    return folder / "own.py"


def test_list_shows_every_policy_and_its_parameters(wdmoe: Wdmoe) -> None:
    rows = {row["name"]: row for row in wdmoe.json("policy", "list")}
    assert set(rows) >= {"topk", "wlr", "top1", "random", "channel"}
    parameters = {item["name"]: item for item in rows["wlr"]["parameters"]}
    assert parameters["theta"]["required"]
    assert parameters["theta"]["allowed"] == "0 to 0.5"
    assert parameters["max_drops"]["default"] == 1
    table = wdmoe("policy", "list").out
    assert "theta (0 to 0.5)" in table
    assert "strict=false (true or false)" in table
    assert "latency=analytic (analytic, compute, measured, larger)" in table
    for row in rows.values():
        assert row["summary"].split()[0] in table


def test_use_switches_and_show_and_status_report_it(wdmoe: Wdmoe, orchestrator: str) -> None:
    assert wdmoe("policy", "show").out.startswith("in force: topk, epoch ")
    profile = httpx.get(f"{orchestrator}/status").json()["profile_sha256"]
    used = wdmoe("policy", "use", "wlr", "--theta", "0.2", "--max-drops", "2", "--strict")
    assert used.code == 0
    assert used.out.startswith("in force: wlr θ=0.2 ")
    status = httpx.get(f"{orchestrator}/status").json()
    params = {"theta": 0.2, "strict": True, "max_drops": 2, "latency": "analytic"}
    assert status["policy"] == {"name": "wlr", "params": params}
    assert status["profile_sha256"] == profile
    shown = wdmoe("policy", "show").out.splitlines()
    assert sorted(shown[1:]) == [
        *("  latency analytic", "  max_drops 2"),
        *("  strict true", "  theta 0.2"),
    ]
    in_force = wdmoe.json("policy", "show")
    assert (in_force["name"], in_force["params"]) == ("wlr", params)
    assert (in_force["epoch"], in_force["apply_at_s"]) == (status["epoch"], status["apply_at_s"])
    assert f"policy   {in_force['label']}\n" in wdmoe("status").out
    assert wdmoe.json("policy", "use", "channel", "--candidates", "3", "--latency", "larger")[
        "policy"
    ]["params"] == {"candidates": 3, "latency": "larger"}
    assert wdmoe.json("profile", "use", "ideal")["policy"]["name"] == "channel"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wlf"], "policy 'wlf' is unknown; allowed: channel, "),
        (["wlr"], "policy wlr: theta is missing; allowed: 0 to 0.5"),
        (["wlr", "--theta", "0.7"], "policy wlr: theta is 0.7; allowed: 0 to 0.5"),
        (["wlr", "--theta", "nan"], "theta is nan; allowed: a finite number"),
        (["topk", "--theta", "0.1"], "policy topk has no parameter theta; allowed: none"),
        (["wlr", "--theta", "0.1", "--latency", "old"], "policy wlr: latency is 'old'; allowed: "),
        (["wlr", "--param", "theta"], "--param is 'theta'; allowed: NAME=VALUE"),
        (
            ["wlr", "--param", "theta=null"],
            "theta is None; allowed: a number, true, false or a text",
        ),
    ],
)
def test_a_refusal_is_one_line_and_changes_nothing(
    wdmoe: Wdmoe, orchestrator: str, arguments: list[str], message: str
) -> None:
    wdmoe("policy", "use", "wlr", "--theta", "0.3")
    before = httpx.get(f"{orchestrator}/status").json()
    result = wdmoe("policy", "use", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"wdmoe: {message}")
    assert result.err.count("\n") == 1
    assert httpx.get(f"{orchestrator}/status").json() == before


def test_a_user_written_policy_can_be_used(wdmoe: Wdmoe, orchestrator: str, own: Path) -> None:
    table = wdmoe("policy", "list").out
    assert "A user-written policy." in table
    assert "often=3 (a whole number)" in table
    assert wdmoe.json("policy", "use", "own", "--param", "share=0.25", "--param", "mode=odd")[
        "policy"
    ] == {"name": "own", "params": {"share": 0.25, "mode": "odd", "often": 3}}
    result = wdmoe("policy", "use", "own", "--param", f"mode={'x' * 65}")
    assert result.code == 2
    assert result.err.startswith("wdmoe: policy own: mode is 'xxx")
    # What a host without that file shows.
    own.unlink()
    assert "policy   own share=0.25 mode=odd often=3\n" in wdmoe("status").out


def test_a_policy_file_with_an_error_does_no_harm(
    wdmoe: Wdmoe, orchestrator: str, folder: Path
) -> None:
    (folder / "broken.py").write_text(
        "from orchestrator.selection import Policy\n\nclass Broken(\n"
    )
    wdmoe("policy", "use", "top1")
    result = wdmoe("policy", "use", "broken")
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert f"policy broken: {folder}/broken.py, line 3: SyntaxError" in result.err
    assert httpx.get(f"{orchestrator}/status").json()["policy"]["name"] == "top1"
    rows = {row["name"]: row for row in wdmoe.json("policy", "list")}
    assert "SyntaxError" in rows["broken"]["error"]
    assert rows["wlr"]["error"] is None


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"[]", "POST /policy: body: "),
        (b"{}", "POST /policy: name: Field required"),
        (b'{"name": "topk", "more": 1}', "POST /policy: more: "),
        (b'{"name": "wlr", "params": {"theta": [1]}}', "POST /policy: params.theta"),
        (b'{"name": "wlr", "params": {"theta": NaN}}', "policy wlr: theta is nan"),
        (
            json.dumps({"name": "wlr", "params": {f"p{i}": 0 for i in range(100_000)}}).encode(),
            "POST /policy: params: Dictionary should have at most 16 items",
        ),
        (b'{"name": "../../etc/passwd"}', "policy '../../etc/passwd' is unknown; "),
        (b'{"name": "__init__"}', "policy '__init__' is unknown; "),
    ],
)
def test_a_hostile_body_is_refused(orchestrator: str, body: bytes, detail: str) -> None:
    response = httpx.post(f"{orchestrator}/policy", content=body)
    assert response.status_code == 400
    assert response.json()["detail"].startswith(detail)
    assert "\n" not in response.json()["detail"]


def test_fading_begins_at_the_requested_interval(orchestrator: str) -> None:
    shown = httpx.get(f"{orchestrator}/profile").json()
    status = httpx.post(f"{orchestrator}/profile", json={**shown, "first_interval": 41}).json()
    assert status["interval"] == 41
    for wrong in (-1, 1 << 40, 1.5, True):
        response = httpx.post(f"{orchestrator}/profile", json={**shown, "first_interval": wrong})
        assert response.status_code == 400
        assert response.json()["detail"].startswith("POST /profile: first_interval: ")


def test_the_orchestrator_checks_policies_without_torch() -> None:
    """Importing torch would delay the thread that announces states."""
    code = (
        "import sys, orchestrator.__main__\n"
        "from orchestrator import selection\n"
        "assert len([selection.load(name) for name in selection.names()]) >= 5\n"
        "print('torch' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "False\n"
