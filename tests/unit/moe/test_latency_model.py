"""The latency model, Eq. 2 to 8, for three devices against values computed independently."""

import numpy as np
import pytest

from orchestrator.contracts.channel_state import ChannelState, DeviceState, Direction, Emulation
from orchestrator.moe.latency_model import (
    device_latency_s,
    layer_latency_s,
    prompt_latency_s,
    token_latency_s,
)
from orchestrator.radio import channel_model

MIXTRAL = Emulation(hidden_size=4096, intermediate_size=14336, bits_per_element=16)

# Bandwidth [Hz]; power [W] and gain down, up; speed [FLOP/s].
DEVICES = [
    (12.5e6, (10, 3e-6), (0.2, 4e-6), 5e11),
    (12.5e6, (10, 5e-7), (0.2, 7e-7), 2e11),
    (20e6, (10, 6e-8), (0.1, 9e-8), 8e11),
]
# Computed with 50 decimal digits and without this code, as are all values derived from them.
DOWN_BPS = [135_267_772.729135280551, 70_989_182.715959005012, 10_763_602.200086065708]
UP_BPS = [75_363_824.030497423838, 19_626_650.937596558061, 292_051.738362013638]
TOKEN_S = [0.00205887223492467098, 0.00602428209688854241, 0.23092775533029663895]


def state(devices: list[DeviceState]) -> ChannelState:
    return ChannelState(
        epoch=0, interval=0, apply_at_s=0, profile="p", profile_sha256="", devices=tuple(devices)
    )


def test_eq_2_and_3() -> None:
    noise = channel_model.noise_w_per_hz(-174)
    for q, (bandwidth_hz, down, up, _) in enumerate(DEVICES):
        assert channel_model.rate_bps(bandwidth_hz, *down, noise) == pytest.approx(
            DOWN_BPS[q], rel=1e-9
        )
        assert channel_model.rate_bps(bandwidth_hz, *up, noise) == pytest.approx(
            UP_BPS[q], rel=1e-9
        )


@pytest.mark.parametrize(
    ("emulate", "flop", "bits"),
    [
        (MIXTRAL, 352_393_216, 65_536),
        (Emulation(5, 7, 8, activation_flop=3), 140 + 70 + 21 + 7, 40),
        (Emulation(4096, 14336, 32, activation_flop=0), 352_335_872, 131_072),
    ],
)
def test_eq_4_and_5(emulate: Emulation, flop: float, bits: float) -> None:
    assert emulate.flop_per_token == pytest.approx(flop, rel=1e-9)
    assert emulate.bits_per_token == pytest.approx(bits, rel=1e-9)


def test_eq_6() -> None:
    speeds = [flops for *_, flops in DEVICES]
    t = token_latency_s(65_536, 352_393_216, down_bps=DOWN_BPS, up_bps=UP_BPS, flops=speeds)
    np.testing.assert_allclose(t, TOKEN_S, rtol=1e-9)
    links = zip(DOWN_BPS, UP_BPS, speeds, strict=True)
    devices = [DeviceState(Direction(down), Direction(up), flops) for down, up, flops in links]
    latency_s = device_latency_s(
        state(devices), bits=MIXTRAL.bits_per_token, flop=MIXTRAL.flop_per_token
    )
    np.testing.assert_allclose(latency_s, TOKEN_S, rtol=1e-9)


def test_eq_7_and_8() -> None:
    # Two layers and three tokens; whether a token uses each of the three devices.
    used = [
        [[True, True, False], [True, False, True], [False, True, False]],
        [[False, True, True], [True, False, False], [True, True, False]],
    ]
    layers = layer_latency_s(TOKEN_S, used)
    expected = [
        [0.006024282096888542, 0.230927755330296639, 0.006024282096888542],
        [0.230927755330296639, 0.002058872234924671, 0.006024282096888542],
    ]
    np.testing.assert_allclose(layers, expected, rtol=1e-9)
    assert prompt_latency_s(layers) == pytest.approx(0.481987229186183576, rel=1e-9)


def test_unshaped_directions_and_unemulated_speeds_take_no_time() -> None:
    devices = [
        DeviceState(Direction(), Direction(65_536e2), flops=352_393_216e3),
        DeviceState(Direction(65_536e2), Direction()),
        DeviceState(Direction(), Direction()),
    ]
    t = device_latency_s(state(devices), bits=65_536, flop=352_393_216)
    np.testing.assert_allclose(t, [0.011, 0.01, 0.0], rtol=1e-12)


def test_a_device_out_of_reach_has_infinite_latency_on_any_link() -> None:
    links = [DeviceState(Direction(), Direction(), reachable=reach) for reach in (False, True)]
    assert device_latency_s(state(links), bits=1, flop=1).tolist() == [np.inf, 0.0]


def test_a_token_without_experts_takes_no_time() -> None:
    assert layer_latency_s([np.inf, 1.0], [[False, False], [False, True]]).tolist() == [0.0, 1.0]
