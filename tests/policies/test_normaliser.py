"""Scaling by statistics: what is small is not constant, and what is constant is known as such."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from robolearn.datasets.normalisation import describe
from robolearn.policies.normaliser import Normaliser


def test_tiny_honest_dimensions_are_scaled_and_constants_are_known() -> None:
    rng = np.random.default_rng(0)
    values = np.stack(
        [
            rng.uniform(-1, 1, 500),  # usual
            1e-5 * rng.uniform(-1, 1, 500),  # torque in a large unit
            np.full(500, 0.4),  # a joint that never moved
            1.0 + 1e-6 * rng.normal(size=500),  # a resting height with arithmetic on top
            1e-14 * rng.normal(size=500),  # a velocity of nothing
        ],
        axis=1,
    )
    for method in ("mean_std", "min_max", "quantile"):
        normaliser = Normaliser.fit(describe(values, [len(values)]), 5, method)
        assert normaliser.constant.tolist() == [False, False, True, True, True]
        scaled = normaliser.normalise(torch.as_tensor(values, dtype=torch.float32))
        assert 0.5 < float(scaled[:, 1].abs().max()) < 3
        assert float(scaled[:, 2:].abs().max()) < 1e-4
        moved = normaliser.normalise(torch.tensor([[0.5, 0.3, 0.9, 1.2, 0.1]]))
        assert float(moved.abs().max()) <= 10.0
        again = Normaliser(5)
        again.load_state_dict(normaliser.state_dict())
        assert torch.equal(again.normalise(torch.tensor([[0.5, 0.3, 0.9, 1.2, 0.1]])), moved)
        assert torch.equal(again.constant, normaliser.constant)
    assert not Normaliser(3).constant.any()


@pytest.mark.parametrize("method", ["mean_std", "min_max", "quantile"])
@given(
    values=arrays(np.float32, (30, 3), elements=st.floats(-1e6, 1e6, width=32) | st.sampled_from([-1.0, 0.0, 1.0])),
    still=st.sets(st.integers(0, 2)),
)
def test_what_was_fitted_is_the_same_after_saving(method: Any, values: np.ndarray, still: set[int]) -> None:
    """Zeros throughout included, which scale as nothing does."""
    values[:, sorted(still)] = values[0, sorted(still)]
    fitted, again = Normaliser.fit(describe(values, [len(values)]), 3, method), Normaliser(3)
    again.load_state_dict(fitted.state_dict())
    assert not again.is_identity
    assert torch.equal(again.constant, fitted.constant)
    assert set(np.flatnonzero(again.constant)) >= still
    x = torch.as_tensor(values)
    assert torch.equal(again.normalise(x), fitted.normalise(x))


def test_what_moves_seldom_has_moved() -> None:
    """A flag set in half a percent of the rows lies beyond both quantiles."""
    values = np.zeros((1000, 2))
    values[::200, 0], values[:, 1] = 1.0, np.linspace(-3.0, 3.0, 1000)
    normaliser = Normaliser.fit(describe(values, [1000]), 2, "quantile")
    assert normaliser.constant.tolist() == [False, False]
    assert normaliser.normalise(torch.tensor([[0.0, 2.94], [1.0, -2.94]])).numpy() == pytest.approx(
        np.array([[-1.0, 1.0], [1.0, -1.0]]), abs=0.01
    )
