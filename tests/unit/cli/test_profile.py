"""`wdmoe profile` and `wdmoe status` against a real orchestrator over HTTP."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import matplotlib.pyplot as plt
import pytest
from fastapi import FastAPI, Response

from orchestrator.client.client import Client
from orchestrator.control.http import MAX_BODY_BYTES
from orchestrator.process.build import source
from orchestrator.radio import profiles
from tests.harness.command import Wdmoe
from tests.harness.serving import serve

pytestmark = pytest.mark.slow


def test_list_shows_every_bundled_profile(wdmoe: Wdmoe) -> None:
    rows = {row["name"]: row for row in wdmoe.json("profile", "list")}
    assert set(rows) == {profile.name for profile in profiles.bundled()}
    assert rows["rayleigh-100m"]["down_bps"] == pytest.approx([248.1e6] * 2, rel=1e-3)
    assert rows["ideal"]["up_bps"] == []
    table = wdmoe("profile", "list").out
    for name, row in rows.items():
        assert name in table
        assert row["description"] in table
    assert "190 Mbit/s to 306 Mbit/s" in table
    assert "rayleigh, 0.4 m/s, every 50 ms" in table
    assert "not shaped" in table


def test_show_gives_mean_and_drawn_rates_in_readable_units(wdmoe: Wdmoe) -> None:
    shown = wdmoe.json("profile", "show", "blockage")
    assert [device["device"] for device in shown["devices"]] == list(range(8))
    assert shown["devices"][3]["mean_down_bps"] == pytest.approx(123.6e6, rel=1e-3)
    drawn = profiles.find("blockage").devices(0)[3].down.rate_bps
    assert shown["devices"][3]["down"]["rate_bps"] == drawn
    text = wdmoe("profile", "show", "blockage").out
    assert "124 Mbit/s" in text
    assert "200 GFLOP/s" in text
    assert "noise -174 dBm/Hz" in text
    assert "device-5 (out of reach)" in wdmoe("profile", "show", "outage").out


TRACED = """\
description: recorded
shadowing_db: 4
outage_bps: 1e6
fading: {kind: rayleigh, coherence_s: 0.1}
devices:
  - {trace: lte.csv}
  - {distance_m: 100}
  - {distance_m: 100, reachable: false}
"""


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    (tmp_path / "lte.csv").write_text("time_s,down_bps,up_bps\n0,20e6,5e6\n0.1,0,0\n")
    (tmp_path / "mine.yaml").write_text(TRACED)
    return tmp_path / "mine.yaml"


def test_show_lists_what_makes_the_channel_vary(wdmoe: Wdmoe, traced: Path) -> None:
    assert "fading rayleigh, 0.4 m/s, every 50 ms (ρ 0.53), seed 7" in (
        wdmoe("profile", "show", "mobility").out
    )
    text = wdmoe("profile", "show", str(traced)).out
    assert "fading rayleigh, recorded, every 100 ms, seed 0" in text
    assert "shadowing with a deviation of 4 dB, one draw a device" in text
    assert "outage below 1 Mbit/s in either direction" in text
    assert "lte.csv" in text
    shown = wdmoe.json("profile", "show", str(traced))
    assert shown["interval_s"] == 0.1
    assert shown["devices"][0]["trace"] == "lte.csv"
    assert shown["devices"][0]["mean_down_bps"] == 10e6
    assert shown["devices"][1]["shadowing_db"] != 0
    assert wdmoe.json("profile", "check", str(traced))["traces"] == ["lte.csv"]
    assert wdmoe("profile", "check", str(traced)).out == f"{traced}: ok, 3 devices, 1 traces\n"


@pytest.mark.parametrize("name", ["near-far", "mobility", "mine"])
def test_plot_draws_a_picture_into_the_current_folder(
    wdmoe: Wdmoe, traced: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(traced.parent)
    result = wdmoe("profile", "show", "./mine.yaml" if name == "mine" else name, "--plot")
    assert result.out.endswith(f"Rates drawn into {name}-rates.png\n")
    width, height = plt.imread(f"{name}-rates.png").shape[1::-1]
    assert width > 1000
    assert height > 400


def test_links_without_a_limit_cannot_be_plotted(
    wdmoe: Wdmoe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = wdmoe("profile", "show", "ideal", "--plot")
    assert (result.code, result.out) == (2, "")
    assert result.err == "wdmoe: profile 'ideal' limits no rate: there is nothing to plot\n"
    assert list(tmp_path.iterdir()) == []


def test_commands_do_not_import_large_packages_that_few_of_them_need() -> None:
    large = {"matplotlib", "scipy", "torch", "transformers"}
    code = f"import sys, orchestrator.cli; print({large} & sys.modules.keys())"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "set()\n"


def test_mahimahi_files_are_imported_as_a_trace(wdmoe: Wdmoe, traced: Path, tmp_path: Path) -> None:
    packets = tmp_path / "packets"
    packets.write_text("".join(f"{time}\n" for time in range(1, 1001)))
    arguments = ("profile", "import-mahimahi", str(packets), str(packets), "--out")
    out = tmp_path / "lte.csv"
    result = wdmoe(*arguments, str(out))
    assert result.out == f"{out}: 1 s, on average 12 Mbit/s down and 12 Mbit/s up\n"
    assert len(out.read_text().splitlines()) == 11
    assert wdmoe.json(*arguments, str(out), "--step-s", "0.25")["mean_up_bps"] == 12e6
    assert len(out.read_text().splitlines()) == 5
    assert wdmoe("profile", "check", str(traced)).code == 0
    for wrong in ("0", "0.0005", "nan", "4000"):
        result = wdmoe(*arguments, str(out), "--step-s", wrong)
        assert result.code == 2
        assert f"--step-s is {wrong}; allowed: whole milliseconds in seconds" in result.err


def test_use_sends_the_profile_with_its_traces(
    wdmoe: Wdmoe, traced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, sent = FastAPI(), []

    @app.post("/profile")
    def use(body: dict[str, Any]) -> Response:
        sent.append(body)
        return Response("seen", 500)

    with serve(app) as url:
        monkeypatch.setenv("WDMOE_ORCHESTRATOR_URL", url)
        assert wdmoe("profile", "use", str(traced)).code == 1
    assert sent == [
        {
            "name": "mine",
            "text": TRACED,
            "traces": {"lte.csv": (traced.parent / "lte.csv").read_text()},
            "allow_degraded": False,
            "first_interval": 0,
        }
    ]


def test_check_reads_a_users_own_file(wdmoe: Wdmoe, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "description: mine\nfading: {kind: none}\n"
        "devices: [{distance_m: 60, extra_delay_s: 0.002, loss: {p: 0.01, r: 0.3}}]\n"
    )
    assert wdmoe("profile", "check", str(file)).out == f"{file}: ok, 1 devices, needs netem\n"
    assert wdmoe.json("profile", "check", str(file))["needs_netem"] is True
    assert "2 ± 0 ms, loss p=0.01 r=0.3" in wdmoe("profile", "show", str(file)).out
    file.write_text(file.read_text().replace("60", "60m"))
    result = wdmoe("profile", "check", str(file))
    assert result.code == 2
    assert result.err == (
        f"wdmoe: {file}: devices[0].distance_m is '60m'; allowed: a plain number in m, "
        "from 1 to 100000\n"
    )


def test_a_loss_in_percent_causes_a_warning_in_every_command(
    wdmoe: Wdmoe, orchestrator: str, tmp_path: Path
) -> None:
    file = tmp_path / "percent.yaml"
    link = "{rate_bps: 20e6, loss: {p: 1}}"
    file.write_text(
        "description: percent\nfading: {kind: none}\n"
        f"devices: [{', '.join([f'{{down: {link}, up: {link}}}'] * 8)}]\n"
    )
    for command in (["check"], ["show"], ["use", "--allow-degraded"]):
        result = wdmoe("profile", *command, str(file))
        assert result.code == 0
        assert result.err.startswith(
            "Warning: loss p=1 r=1 loses 50% of the packets of down 0, up 0, down 1, up 1, "
        )
    assert "loses 50%" in wdmoe.json("profile", "check", str(file))["warnings"][0]
    with closing(Client(orchestrator, orchestrator)) as client:  # as `wdmoe up` requests it
        assert "loses 50%" in client.profile().warnings[0]


def test_use_puts_a_bundled_or_user_profile_into_force(
    wdmoe: Wdmoe, orchestrator: str, tmp_path: Path
) -> None:
    health = httpx.get(f"{orchestrator}/healthz").json()
    assert health["build"]["source"] == source()
    assert health["status"] == "links not as in force"  # no link has reported yet
    used = wdmoe("profile", "use", "ideal")
    assert used.code == 0
    assert used.out.startswith("in force: ideal, seed 0, epoch ")
    assert used.out.count("not shaped") == 16
    mine = tmp_path / "mine.yaml"
    mine.write_text(profiles.find("outage").text)
    assert wdmoe.json("profile", "use", str(mine))["profile"] == "mine"
    status = httpx.get(f"{orchestrator}/status").json()
    assert status["profile_text"] == mine.read_text()
    assert [link["reachable"] for link in status["links"]].count(False) == 1
    assert 'wdmoe_profile_info{profile="' in httpx.get(f"{orchestrator}/metrics").text


def test_a_refusal_of_the_orchestrator_is_one_line(
    wdmoe: Wdmoe, orchestrator: str, tmp_path: Path
) -> None:
    small = tmp_path / "small.yaml"
    small.write_text("description: d\nfading: {kind: none}\ndevices: [{distance_m: 60}]\n")
    result = wdmoe("profile", "use", str(small))
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "wdmoe: profile 'small': devices has 1 entries; allowed: 8, as many as the stack has\n"
    )


@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        (b"{", 400, "POST /profile: body: Invalid JSON"),
        (b"[]", 400, "POST /profile: body: "),
        (b'{"name": "p"}', 400, "POST /profile: text: Field required"),
        (b'{"name": "p", "text": "", "more": 1}', 400, "POST /profile: more: "),
        (b'{"name": "p", "text": "a: ["}', 400, "p.yaml: line 1: "),
        (b'{"name": "../p", "text": ""}', 400, "../p.yaml: the profile's name is '../p'"),
        (b'{"name": "p", "text": "\\ud800"}', 400, "POST /profile: "),
        (b" " * (MAX_BODY_BYTES + 1), 413, "body larger than the "),
    ],
)
def test_a_hostile_body_is_refused(orchestrator: str, body: bytes, code: int, detail: str) -> None:
    response = httpx.post(f"{orchestrator}/profile", content=body)
    assert response.status_code == code
    assert response.json()["detail"].startswith(detail)
    assert "\n" not in response.json()["detail"]


def test_status_without_a_base_station_still_shows_the_links(
    wdmoe: Wdmoe, orchestrator: str
) -> None:
    result = wdmoe("status")
    assert result.code == 1
    assert result.err == (
        "wdmoe: the base station does not answer at http://127.0.0.1:9; is the stack up? "
        "(wdmoe up)\n"
    )
    assert "unknown, the base station does not answer" in result.out
    assert "profile  near-far (sha256 " in result.out
    assert "policy   topk" in result.out
    assert result.out.count("nothing yet") == 8


@pytest.mark.parametrize("command", [["status"], ["profile", "use", "near-far"]])
def test_an_unreachable_stack_is_reported_in_one_line(wdmoe: Wdmoe, command: list[str]) -> None:
    result = wdmoe(*command)
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "wdmoe: the orchestrator does not answer at http://127.0.0.1:9; is the stack up? "
        "(wdmoe up)\n"
    )


def test_wrong_usage_is_exit_code_2(wdmoe: Wdmoe) -> None:
    assert wdmoe("profile", "bogus").code == 2
    assert wdmoe("profile", "show").code == 2
    assert wdmoe("profile", "show", "nope").err.startswith("wdmoe: no bundled profile 'nope'; ")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WDMOE_PROFILE", "nope", "no bundled profile 'nope'; there are: block-fading, "),
        ("WDMOE_DEVICES", "many", "WDMOE_DEVICES is 'many'; allowed: 1 to 1024"),
        ("WDMOE_DEVICES", "4", "profile 'near-far': devices has 8 entries; allowed: 4"),
        ("WDMOE_CURVE", "off", "WDMOE_CURVE is 'off'; allowed: 0 (off) or 1 (on)"),
    ],
)
def test_the_orchestrator_refuses_to_start_with_wrong_settings(
    variable: str, value: str, message: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator"],
        env={**os.environ, variable: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"orchestrator: {message}")
    assert ended.stderr.count("\n") == 1
