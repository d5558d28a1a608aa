"""Invalid profile files, each refused in one line: field, value, and what is allowed."""

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InputError
from orchestrator.radio import link_trace, profiles
from tests.unit.radio.test_profiles import BASE, LTE, RAW, TRACED, parse


def refusal(text: str, texts: dict[str, str] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        parse(text, texts)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("p.yaml: ")
    return message.removeprefix("p.yaml: ")


def test_traces_that_do_not_belong_to_the_profile_are_refused() -> None:
    assert refusal(TRACED) == "trace 'lte.csv' is missing"
    assert refusal(TRACED, {"lte.csv": LTE, "b.csv": LTE}) == (
        "trace 'b.csv' is not named by any device"
    )
    assert refusal(TRACED, {"lte.csv": LTE.replace("0.05", "0")}).startswith(
        "trace lte.csv, line 3: time_s is '0'; allowed: more than the line before's 0"
    )


def test_the_size_of_all_traces_together_is_limited_before_parsing(tmp_path: Path) -> None:
    text = TRACED.replace("{distance_m: 100}", "{trace: b.csv}")
    large = "x" * (link_trace.MAX_BYTES // 2 + 1)
    expected = "its traces together are larger than the 4194304 bytes allowed"
    assert refusal(text, {"lte.csv": large, "b.csv": large}) == expected
    (tmp_path / "p.yaml").write_text(text)
    for name in ("lte.csv", "b.csv"):
        (tmp_path / name).write_text(large)
    with pytest.raises(InputError, match=expected):
        profiles.load(tmp_path / "p.yaml")


def test_a_profile_of_100_mb_is_refused_without_being_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(100 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"huge.yaml: larger than the 65536 bytes allowed$"):
            profiles.load(huge)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(InputError, match=r"empty.yaml: the profile is None; allowed: fields of"):
        profiles.load(tmp_path / "empty.yaml")


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
        (DEVICE, "{down: {rate_bps: 200e9}, up: {}}", "in bit/s, from 10000 to 9.9e+10"),
        (DEVICE, "{distance_m: 60, down: {}, up: {}}", "devices[0] needs either distance_m, or"),
        (
            DEVICE,
            "{distance_m: 60, up: {}}",
            "devices[0] needs either distance_m, or trace, or both",
        ),
        (DEVICE, "{down: {}}", "devices[0] needs either distance_m, or trace, or both"),
        (DEVICE, "{}", "devices[0] needs either distance_m, or trace, or both"),
        (DEVICE, "{down: {}, up: {}, jitter_s: 0.1}", "devices[0] has raw links, so jitter_s"),
        (DEVICE, "{distance_m: 60, trace: a.csv}", "devices[0] needs either distance_m, or trac"),
        (DEVICE, "{trace: a.csv, down: {}, up: {}}", "devices[0] needs either distance_m, or"),
        (DEVICE, "{trace: a.csv, obstruction_db: 3, flops: 1e9}", "devices[0] has a trace, which"),
        (DEVICE, "{trace: 5}", "devices[0].trace is 5; allowed: a file, in 1 to 200 printable ch"),
        (DEVICE, '{trace: "a\\0b"}', "devices[0].trace is 'a\\x00b'; allowed: a file, in 1 to"),
        (DEVICE, "{distance_m: -60, flops: 1e9}", "devices[0].distance_m is -60; allowed: a pl"),
        (DEVICE, "60", "devices[0] is 60; allowed: fields of distance_m, "),
        (", flops: 5e12", "", "the profile has emulate, so devices[0].flops must be given"),
        ("bandwidth_hz: 100e6", "bandwidth_hz: 1e11", "devices[0] has 4.68e+11 bit/s without fad"),
        ("p: 0.01", "p: 1.01", "devices[1].loss.p is 1.01; allowed: a plain number (a prob"),
        ("coherence_s: 0.05", "coherence_s: 0.001", "fading.coherence_s is 0.001; allowed: "),
        ("kind: rayleigh", "kind: rice", "fading.kind is 'rice'; should be 'rayleigh' or 'none'"),
        ("kind: rayleigh", "kind: none, speed_m_per_s: 1", "fading has speed_m_per_s, so kind mus"),
        ("coherence_s: 0.05", "speed_m_per_s: 1", "fading has speed_m_per_s, so kind must be ray"),
        ("0.05}", "0.05, speed_m_per_s: 1m/s}", "fading.speed_m_per_s is '1m/s'; allowed: a pla"),
        ("seed: 7", "shadowing_db: -1", "shadowing_db is -1; allowed: a plain number in dB, fro"),
        ("seed: 7", "outage_bps: 1Mbit", "outage_bps is '1Mbit'; allowed: a plain number in bit"),
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
def test_a_fault_is_reported_in_one_line_with_field_value_and_range(
    old: str, new: str, expected: str
) -> None:
    assert old in BASE
    message = refusal(BASE.replace(old, new, 1))
    assert expected in message


def test_a_trace_needs_a_coherence_time() -> None:
    message = refusal(TRACED.replace(", coherence_s: 0.1", ""), {"lte.csv": LTE})
    assert message == ("the profile has devices[0].trace, so fading.coherence_s must be given")


def test_a_file_that_is_not_a_mapping_is_refused() -> None:
    assert refusal("").startswith("the profile is None; allowed: fields of description, ")
    assert refusal("[" * 30_000).startswith("not YAML that can be read: nested too deeply")
    assert refusal("#" * 70_000) == "larger than the 65536 bytes allowed"
    assert "should have at least 1 item" in refusal(RAW[: RAW.index("\n  -")] + " []\n")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_parsed_or_refused_in_one_line(text: str) -> None:
    for whole in (text, BASE + text, BASE.replace("0.3", text)):
        try:
            parse(whole)
        except InputError:
            refusal(whole)


def test_a_name_that_cannot_be_a_label_is_refused() -> None:
    with pytest.raises(InputError, match=r"the profile's name is '../p'; allowed: at most 64"):
        profiles.parse(BASE, "../p", "p.yaml")
