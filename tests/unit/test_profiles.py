"""Profile files: what is read, what is refused and how, and the channel that comes of them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import profile_schema, profiles
from orchestrator.errors import InputError
from orchestrator.profiles import Profile
from orchestrator.state import Direction, Emulation, PolicyState

BASE = """\
description: a test
seed: 7
bandwidth_hz: 100e6
fading: {kind: rayleigh, coherence_s: 0.05}
emulate: {hidden_size: 4096, intermediate_size: 14336, bits_per_element: 16}
devices:
  - {distance_m: 60, flops: 5e12}
  - {distance_m: 400, flops: 2e12, extra_delay_s: 0.002, jitter_s: 0.0005, loss: {p: 0.01, r: 0.3}}
"""
RAW = """\
description: raw
fading: {kind: none}
devices:
  - {down: {rate_bps: 5e6, delay_s: 0.01}, up: {}}
"""


def parse(text: str) -> Profile:
    return profiles.parse(text, "p", "p.yaml")


def refusal(text: str) -> str:
    with pytest.raises(InputError) as refused:
        parse(text)
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith("p.yaml: ")
    return message.removeprefix("p.yaml: ")


def test_the_design_document_s_example() -> None:
    profile = parse(BASE)
    assert profile.spec.bandwidth_hz == 100e6
    assert profile.needs_netem
    state = profile.state(epoch=3, interval=9, apply_at_s=12.5, policy=PolicyState("wlr"))
    assert state.order == (3, 9)
    assert (state.profile, state.profile_sha256) == ("p", profile.sha256)
    assert state.emulate == Emulation(4096, 14336, 16)
    near, far = state.devices
    assert not near.down.needs_netem
    assert (far.up.delay_s, far.up.jitter_s, far.up.loss_p, far.up.loss_r) == (
        *(0.002, 0.0005),
        *(0.01, 0.3),
    )
    assert far.down.delay_s == 0.002
    assert far.flops == 2e12


def test_raw_links_are_taken_as_they_are() -> None:
    (device,) = parse(RAW).devices(5)
    assert device.down == Direction(rate_bps=5e6, delay_s=0.01)
    assert device.up == Direction()


def test_without_fading_every_interval_is_the_mean() -> None:
    still = parse(BASE.replace("{kind: rayleigh, coherence_s: 0.05}", "{kind: none}"))
    assert still.devices(0) == still.devices(41) == still.devices(None)


def test_intervals_differ_and_come_back() -> None:
    profile = parse(BASE)
    assert profile.devices(0) != profile.devices(1)
    assert profile.devices(1) == parse(BASE).devices(1)
    other_seed = parse(BASE.replace("seed: 7", "seed: 8"))
    assert profile.devices(1) != other_seed.devices(1)


def test_fading_does_not_depend_on_how_many_devices_there_are() -> None:
    def many(count: int) -> Profile:
        # The same bandwidth for each, whatever their number, so that equal gains are equal rates.
        return parse(
            f"description: d\nseed: 7\nbandwidth_hz: {count}e6\nfading: {{kind: rayleigh}}\n"
            "devices:\n" + "  - {distance_m: 100}\n" * count
        )

    assert many(3).devices(17) == many(8).devices(17)[:3]


def test_a_deep_fade_keeps_a_rate_that_a_queue_can_serve() -> None:
    text = BASE.replace("seed: 7", "seed: 7\nnoise_dbm_per_hz: -60")
    rates = {device.up.rate_bps for device in parse(text).devices(None)}
    assert rates == {profile_schema.MIN_RATE_BPS}


def test_an_obstruction_costs_its_decibels() -> None:
    clear, blocked = parse(
        "description: d\nfading: {kind: none}\ndevices:\n"
        "  - {distance_m: 1000}\n  - {distance_m: 100, obstruction_db: 20}\n"
    ).devices(0)
    assert clear.down.rate_bps == pytest.approx(blocked.down.rate_bps, rel=1e-12)


DEVICE = "{distance_m: 60, flops: 5e12}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("distance_m: 60", "distance_m: 0", "devices[0].distance_m is 0; allowed: a plain"),
        ("distance_m: 60", "distance_m: 60m", "devices[0].distance_m is '60m'; allowed: a plain"),
        ("distance_m: 60", "distance_m: '60'", "devices[0].distance_m is '60'; allowed"),
        ("distance_m: 60", "distance_m: .nan", "devices[0].distance_m is '.nan'"),
        ("distance_m: 60", "distance_m: true", "devices[0].distance_m is True"),
        ("distance_m: 60", "distance: 60", "devices[0] has no field 'distance'; allowed: dis"),
        (DEVICE, "{down: {rate_bps: 30Mbit}, up: {}}", "devices[0].down.rate_bps is '30Mbit'; "),
        (DEVICE, "{down: {rate_bps: 1}, up: {}}", "allowed: a plain number in bit/s, from 10000 "),
        (DEVICE, "{distance_m: 60, down: {}, up: {}}", "devices[0] needs either distance_m, or"),
        (
            DEVICE,
            "{distance_m: 60, up: {}}",
            "devices[0] needs either distance_m, or trace, or both",
        ),
        (DEVICE, "{down: {}}", "devices[0] needs either distance_m, or trace, or both"),
        (DEVICE, "{}", "devices[0] needs either distance_m, or trace, or both"),
        (DEVICE, "{down: {}, up: {}, jitter_s: 0.1}", "devices[0] has raw links, so jitter_s"),
        (DEVICE, "60", "devices[0] is 60; allowed: fields of distance_m, "),
        (", flops: 5e12", "", "the profile has emulate, so devices[0].flops must be given"),
        ("p: 0.01", "p: 1.01", "devices[1].loss.p is 1.01; allowed: a plain number (a prob"),
        ("coherence_s: 0.05", "coherence_s: 0.001", "fading.coherence_s is 0.001; allowed: "),
        ("kind: rayleigh", "kind: rice", "fading.kind is 'rice'; should be 'rayleigh' or 'none'"),
        ("hidden_size: 4096", "hidden_size: 0", "emulate.hidden_size is 0; allowed: a plain"),
        ("seed: 7", "seed: -1", "seed is -1; allowed: a plain number (whole), from 0 to 9.22337e"),
        ("seed: 7", "seed: 7.5", "seed is 7.5; should be a valid integer"),
        ("seed: 7", "sede: 7", "the profile has no field 'sede'; allowed: description, seed, "),
        ("seed: 7", "seed: 7\nseed: 8", "line 3: the key 'seed' is given twice"),
        ("seed: 7", "seed: &a 7", "line 2: anchors, aliases and tags are not allowed"),
        ("seed: 7", "seed: !!python/name:os.system 7", "line 2: anchors, aliases and tags are n"),
        ("seed: 7", "? [a]\n: 7", "line 2: a key has to be a word"),
        ("seed: 7", "seed: [7", "line 3: "),
        ("seed: 7", "seed: " + "7" * 5000, "a number of too many digits"),
        ("seed: 7", "seed: \0", "not YAML: "),
        ("description: a test\n", "", "description is missing"),
        ("a test", "yes: no", "line 1: mapping values are not allowed here"),
        ("devices:", "devices: []\nx:", "the profile has no field 'x'; allowed: "),
    ],
)
def test_a_fault_is_one_line_with_field_value_and_range(old: str, new: str, expected: str) -> None:
    assert old in BASE
    message = refusal(BASE.replace(old, new, 1))
    assert expected in message


def test_files_that_are_no_mapping() -> None:
    assert refusal("").startswith("the profile is None; allowed: fields of description, ")
    assert refusal("[" * 30_000).startswith("not YAML that can be read: nested too deeply")
    assert refusal("#" * 70_000) == "larger than the 65536 bytes allowed"
    assert "should have at least 1 item" in refusal(RAW[: RAW.index("\n  -")] + " []\n")


@given(st.floats(1, 1e5), st.sampled_from(["{!r}", "{:e}", "{:.0f}", "+{:.1f}", "{:.1E}"]))
def test_numbers_are_read_as_python_reads_them(number: float, style: str) -> None:
    text = style.format(number)
    profile = parse(f"description: d\nfading: {{kind: none}}\ndevices: [{{distance_m: {text}}}]")
    assert profile.spec.devices[0].distance_m == float(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    for whole in (text, BASE + text, BASE.replace("0.3", text)):
        try:
            parse(whole)
        except InputError:
            refusal(whole)


def test_a_name_that_could_not_be_a_label_is_refused() -> None:
    with pytest.raises(InputError, match=r"the profile's name is '../p'; allowed: at most 64"):
        profiles.parse(BASE, "../p", "p.yaml")


def test_finding_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(BASE)
    assert profiles.find(str(tmp_path / "mine.yaml")).name == "mine"
    with pytest.raises(InputError, match="no bundled profile 'mine'; there are: blockage, cell-"):
        profiles.find("mine")
    monkeypatch.setenv("WDMOE_PROFILES_DIR", str(tmp_path))
    assert profiles.find("mine").text == BASE
    with pytest.raises(InputError, match=r"nothing.yaml: No such file"):
        profiles.load(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary.yaml: not a text in UTF-8"):
        profiles.load(tmp_path / "binary.yaml")


def test_bundled_profiles_run_on_any_kernel_with_eight_devices() -> None:
    bundled = {profile.name: profile for profile in profiles.bundled()}
    assert set(bundled) == {
        *("ideal", "rayleigh-100m", "near-far", "cell-edge", "blockage", "mobility", "outage")
    }
    for profile in bundled.values():
        assert len(profile.spec.devices) == 8
        assert not profile.needs_netem
        assert profile.text.startswith("# ")
    assert bundled["mobility"].spec.fading.coherence_s == 0.05
    gone = [device.reachable for device in bundled["outage"].devices(0)].count(False)
    assert gone == 1


def test_bundled_profiles_differ_as_they_say() -> None:
    def up_mbps(name: str) -> list[float]:
        return [(device.up.rate_bps or 0) / 1e6 for device in profiles.find(name).devices(0)]

    assert max(up_mbps("cell-edge")) < min(up_mbps("near-far")) / 5
    assert min(up_mbps("cell-edge")) > 1
    blocked = up_mbps("blockage")
    assert blocked.index(min(blocked)) == 3
    assert {device.down for device in profiles.find("ideal").devices(0)} == {Direction()}
