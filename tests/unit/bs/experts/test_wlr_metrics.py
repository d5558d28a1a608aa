"""The observed κ and WLR are those by which the paper's policy decides."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.selection.policies.wlr import kappas, ratios
from services.bs.experts.wlr_metrics import wlr_of

shares = st.one_of(st.just(0.0), st.floats(1e-6, 1.0))
latencies = st.one_of(st.sampled_from([0.0, math.inf]), st.floats(1e-6, 100.0))
tokens = st.lists(st.tuples(shares, latencies), min_size=3, max_size=3)


@given(st.lists(tokens, min_size=1, max_size=5))
def test_observed_values_are_those_of_the_policy(
    candidates: list[list[tuple[float, float]]],
) -> None:
    weight, latency_s = np.array(candidates).transpose(2, 0, 1)
    kappa, wlr = wlr_of(weight, latency_s)
    expected = ratios(torch.from_numpy(weight), torch.from_numpy(latency_s))
    np.testing.assert_allclose(wlr, expected.numpy())
    np.testing.assert_allclose(kappa, kappas(expected).amin(dim=-1).numpy())
