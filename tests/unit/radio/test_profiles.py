"""Profile files: parsing, and the resulting channel."""

import gzip
import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.contracts.channel_state import Direction, Emulation, PolicyState
from orchestrator.errors import InputError
from orchestrator.moe.latency_model import device_latency_s
from orchestrator.radio import profile_schema, profiles
from orchestrator.radio.profiles import Profile
from services.device.link import tbf

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
TRACED = """\
description: recorded
fading: {kind: none, coherence_s: 0.1}
devices:
  - {trace: lte.csv, extra_delay_s: 0.01, flops: 1e12}
  - {distance_m: 100}
"""
LTE = "time_s,down_bps,up_bps\n0,20e6,5e6\n0.05,40e6,5e6\n0.1,20e6,9e3\n0.2,0,0\n"


def parse(text: str, texts: dict[str, str] | None = None) -> Profile:
    return profiles.parse(text, "p", "p.yaml", texts)


def test_a_profile_and_its_traces_may_be_written_by_windows_or_gzip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "p.yaml").write_text(TRACED)
    (tmp_path / "lte.csv").write_text(LTE)
    plain = profiles.load(tmp_path / "p.yaml")
    marked, spaced = f"\ufeff{TRACED}".encode(), f"\ufeff{LTE.replace(',', ' , ')}".encode()
    (tmp_path / "lte.csv").write_bytes(spaced)
    (tmp_path / "p.yaml").write_bytes(marked.replace(b"\n", b"\r\n"))
    assert profiles.load(tmp_path / "p.yaml").devices(1) == plain.devices(1)
    home = tmp_path / "home.yaml.gz"
    home.write_bytes(gzip.compress(marked.replace(b"lte.csv", b"~/packed")))
    (tmp_path / "packed").write_bytes(gzip.compress(spaced))
    packed = profiles.find("~/home.yaml.gz")
    assert packed.name == "home"
    assert packed.devices(1) == plain.devices(1)


def test_a_link_is_never_faster_than_the_maximum() -> None:
    near = BASE.replace("100e6", "7.9e9").replace("distance_m: 60", "distance_m: 1")
    profile = parse(near)
    assert 97e9 < (profile.devices(None)[0].down.rate_bps or 0) < 99e9
    rates = [profile.devices(interval)[0].down.rate_bps for interval in range(50)]
    assert max(filter(None, rates)) == profile_schema.MAX_RATE_BPS
    assert profile_schema.MAX_RATE_BPS < tbf.UNSHAPED_BPS


@pytest.mark.parametrize(
    ("loss", "share"),
    [("p: 1", "50%"), ("p: 0.26", "21%"), ("p: 0.2, r: 0.3", "40%"), ("p: 0.001, r: 0.001", "50%")],
)
def test_a_loss_of_more_than_a_fifth_causes_a_warning(loss: str, share: str) -> None:
    profile = parse(RAW.replace("up: {}}", f"up: {{loss: {{{loss}}}}}}}"))
    (warning,) = profile.warnings
    assert f"loses {share} of the packets of up 0; p and r are probabilities" in warning
    (warning,) = parse(BASE.replace("p: 0.01, r: 0.3", loss)).warnings
    assert "of the packets of down 1, up 1;" in warning


@pytest.mark.parametrize("loss", ["p: 0", "p: 0.01", "p: 0.25", "p: 0.01, r: 0.1"])
def test_a_loss_of_at_most_a_fifth_causes_no_warning(loss: str) -> None:
    assert not parse(RAW.replace("up: {}}", f"up: {{loss: {{{loss}}}}}}}")).warnings


def test_no_bundled_profile_has_warnings() -> None:
    assert not [profile.name for profile in profiles.bundled() if profile.warnings]


def test_an_example_profile_gives_its_channel_state() -> None:
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


def test_raw_links_are_used_unchanged() -> None:
    (device,) = parse(RAW).devices(5)
    assert device.down == Direction(rate_bps=5e6, delay_s=0.01)
    assert device.up == Direction()


def test_without_fading_every_interval_is_the_mean() -> None:
    still = parse(BASE.replace("{kind: rayleigh, coherence_s: 0.05}", "{kind: none}"))
    assert still.devices(0) == still.devices(41) == still.devices(None)


def test_intervals_differ_and_are_reproducible() -> None:
    profile = parse(BASE)
    assert profile.devices(0) != profile.devices(1)
    assert profile.devices(1) == parse(BASE).devices(1)
    other_seed = parse(BASE.replace("seed: 7", "seed: 8"))
    assert profile.devices(1) != other_seed.devices(1)


def test_fading_does_not_depend_on_the_number_of_devices() -> None:
    def many(count: int) -> Profile:
        # The same bandwidth per device for any number, so that equal gains are equal rates.
        return parse(
            f"description: d\nseed: 7\nbandwidth_hz: {count}e6\nfading: {{kind: rayleigh}}\n"
            "devices:\n" + "  - {distance_m: 100}\n" * count
        )

    assert many(3).devices(17) == many(8).devices(17)[:3]


def test_a_deep_fade_keeps_a_rate_that_a_queue_can_serve() -> None:
    text = BASE.replace("seed: 7", "seed: 7\nnoise_dbm_per_hz: -60")
    rates = {device.up.rate_bps for device in parse(text).devices(None)}
    assert rates == {profile_schema.MIN_RATE_BPS}


def test_a_moving_device_s_channel_is_correlated_and_independent_of_order() -> None:
    moving = BASE.replace("coherence_s: 0.05", "coherence_s: 0.05, speed_m_per_s: 0.2")
    profile, again = parse(moving), parse(moving)
    assert profile.correlation == pytest.approx(0.87, abs=0.005)
    forwards = [profile.devices(i) for i in range(20)]
    assert [again.devices(i) for i in reversed(range(20))] == forwards[::-1]
    assert forwards[0] == parse(BASE).devices(0)  # as in an independent channel
    assert parse(BASE).correlation == 0

    def steps_bps(profile: Profile) -> float:
        rates = [profile.devices(i)[0].down.rate_bps or 0 for i in range(300)]
        return sum(abs(a - b) for a, b in itertools.pairwise(rates))

    assert steps_bps(profile) < 0.7 * steps_bps(parse(BASE))


def test_a_profile_has_intervals_only_if_the_channel_changes() -> None:
    assert parse(BASE).interval_s == 0.05
    assert parse(BASE.replace(", coherence_s: 0.05", "")).interval_s is None
    assert parse(BASE.replace("kind: rayleigh", "kind: none")).interval_s is None
    assert parse(TRACED, {"lte.csv": LTE}).interval_s == 0.1


def test_with_speed_0_the_channel_is_static_and_can_be_drawn_again() -> None:
    still = parse(BASE.replace(", coherence_s: 0.05", ""))
    slow = parse(BASE.replace("coherence_s: 0.05", "coherence_s: 0.05, speed_m_per_s: 0"))
    assert slow.interval_s is None
    assert slow.fades
    assert slow.devices(3) == still.devices(3) != still.devices(0)
    assert not parse(BASE.replace("kind: rayleigh", "kind: none")).fades


def test_shadowing_is_part_of_the_mean_and_equal_in_both_directions() -> None:
    clear = "description: d\nfading: {kind: none}\ndevices:\n" + "  - {distance_m: 100}\n" * 8
    shadowed = parse("seed: 5\nshadowing_db: 8\n" + clear)
    for index, device in enumerate(shadowed.devices(None)):
        loss_db = shadowed.shadowing_db(index)
        assert loss_db != 0
        # At these signal-to-noise ratios 3 dB are one bit/s per Hz.
        for direction, plain in zip((device.down, device.up), (248.1e6, 177.6e6), strict=True):
            assert direction.rate_bps == pytest.approx(plain - loss_db / 3.0103 * 12.5e6, rel=2e-3)
    assert shadowed.devices(None) == shadowed.devices(0) == shadowed.devices(77)
    assert parse("shadowing_db: 0\n" + clear).devices(0) == parse(clear).devices(0)


def test_a_device_below_the_outage_rate_in_either_direction_is_unreachable() -> None:
    text = BASE.replace("seed: 7", "seed: 7\nnoise_dbm_per_hz: -140")
    outage = text.replace("seed: 7", "seed: 7\noutage_bps: 20e6")
    seen = set()
    for interval in range(200):
        for with_rate, device in zip(
            parse(text).devices(interval), parse(outage).devices(interval), strict=True
        ):
            out = min(with_rate.down.rate_bps or 0, with_rate.up.rate_bps or 0) < 20e6
            seen.add(out)
            assert device.reachable is not out
            for direction, before in (
                (device.down, with_rate.down),
                (device.up, with_rate.up),
            ):
                rate = profile_schema.MIN_RATE_BPS if out else before.rate_bps
                assert direction == replace(before, rate_bps=rate)
        assert with_rate.reachable
    assert seen == {True, False}
    assert all(device.reachable for device in parse(outage).devices(None))


def test_raw_links_have_no_outage() -> None:
    (device,) = parse("outage_bps: 10e6\n" + RAW).devices(0)
    assert device.reachable
    assert device.down.rate_bps == 5e6


def test_a_trace_is_averaged_over_each_interval() -> None:
    profile = parse(TRACED, {"lte.csv": LTE})
    assert profile.needs_netem
    first, second, third, fourth = (profile.devices(i)[0] for i in range(4))
    assert first.down == Direction(30e6, delay_s=0.01)  # the mean of two lines
    assert first.up == Direction(5e6, delay_s=0.01)
    # A direction below the minimum rate, or both: the device cannot receive and answer.
    for device in (second, third):
        assert not device.reachable
        assert device.down == device.up == Direction(profile_schema.MIN_RATE_BPS, delay_s=0.01)
    assert fourth == first
    (average, _) = profile.devices(None)
    assert average.down.rate_bps == pytest.approx(5e6 / 0.3, abs=1)
    assert average.reachable


def test_a_profile_includes_its_traces(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "traces").mkdir(parents=True)
    text = TRACED.replace("lte.csv", "traces/lte.csv")
    (folder / "p.yaml").write_text(text)
    with pytest.raises(InputError, match=r"mine/traces/lte.csv: No such file or directory$"):
        profiles.load(folder / "p.yaml")
    (folder / "traces" / "lte.csv").write_text(LTE)
    profile = profiles.load(folder / "p.yaml")
    assert profile.traces == {"traces/lte.csv": LTE}
    sent = parse(profile.text, dict(profile.traces))
    assert sent.devices(7) == profile.devices(7)
    assert sent.sha256 == profile.sha256
    other = parse(text, {"traces/lte.csv": LTE.replace("20e6", "21e6")})
    assert other.sha256 != profile.sha256
    assert parse(BASE).sha256 == hashlib.sha256(BASE.encode()).hexdigest()


def test_an_obstruction_costs_its_decibels() -> None:
    clear, blocked = parse(
        "description: d\nfading: {kind: none}\ndevices:\n"
        "  - {distance_m: 1000}\n  - {distance_m: 100, obstruction_db: 20}\n"
    ).devices(0)
    assert clear.down.rate_bps == pytest.approx(blocked.down.rate_bps, rel=1e-12)


@given(st.floats(1, 1e5), st.sampled_from(["{!r}", "{:e}", "{:.0f}", "+{:.1f}", "{:.1E}"]))
def test_numbers_are_read_as_python_reads_them(number: float, style: str) -> None:
    text = style.format(number)
    profile = parse(f"description: d\nfading: {{kind: none}}\ndevices: [{{distance_m: {text}}}]")
    assert profile.spec.devices[0].distance_m == float(text)


def test_a_profile_is_found_by_name_and_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(BASE)
    assert profiles.find(str(tmp_path / "mine.yaml")).name == "mine"
    with pytest.raises(InputError, match="no bundled profile 'mine'; there are: block-fading,"):
        profiles.find("mine")
    monkeypatch.setenv("WDMOE_PROFILES_DIR", str(tmp_path))
    assert profiles.find("mine").text == BASE
    with pytest.raises(InputError, match=r"nothing.yaml: No such file"):
        profiles.load(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xff\x00")
    with pytest.raises(InputError, match=r"binary.yaml: not a text in UTF-8"):
        profiles.load(tmp_path / "binary.yaml")


def test_bundled_profiles_run_on_any_kernel_with_eight_devices() -> None:
    bundled = {profile.name: profile for profile in profiles.bundled()}
    assert set(bundled) == {
        *("ideal", "rayleigh-100m", "near-far", "near-far-small"),
        *("cell-edge", "blockage", "block-fading", "mobility", "outage"),
    }
    for profile in bundled.values():
        assert len(profile.spec.devices) == 8
        assert not profile.needs_netem
        assert profile.text.startswith("# ")
    assert bundled["mobility"].interval_s == 0.05
    assert bundled["mobility"].correlation == pytest.approx(0.53, abs=0.005)  # as described
    unreachable = [device.reachable for device in bundled["outage"].devices(0)].count(False)
    assert unreachable == 1


def test_bundled_profiles_differ_as_described() -> None:
    def up_mbps(name: str) -> list[float]:
        return [(device.up.rate_bps or 0) / 1e6 for device in profiles.find(name).devices(0)]

    assert max(up_mbps("cell-edge")) < min(up_mbps("near-far")) / 5
    assert min(up_mbps("cell-edge")) > 1
    blocked = up_mbps("blockage")
    assert blocked.index(min(blocked)) == 3
    assert {device.down for device in profiles.find("ideal").devices(0)} == {Direction()}


def radio_share(name: str) -> NDArray[np.float64]:
    """Return the share of transmission in a token's Eq. 6 time, by interval (200) and device."""
    profile = profiles.find(name)
    shares = []
    for interval in range(200):
        state = profile.state(
            epoch=1, interval=interval, apply_at_s=0.0, policy=PolicyState("topk")
        )
        assert state.emulate is not None
        bits, flop = state.emulate.bits_per_token, state.emulate.flop_per_token
        compute_s = device_latency_s(state, bits=0.0, flop=flop)
        shares.append(1 - compute_s / device_latency_s(state, bits=bits, flop=flop))
    return np.array(shares)


def test_latency_is_mostly_radio_in_block_fading_and_computation_in_near_far() -> None:
    assert np.quantile(radio_share("block-fading"), 0.05) > 0.75
    assert len({device.flops for device in profiles.find("block-fading").spec.devices}) == 1
    assert np.median(radio_share("near-far")) < 0.5
