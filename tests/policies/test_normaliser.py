"""Scaling by statistics: what is small is not constant, and what is constant is known as such."""

from __future__ import annotations

import numpy as np
import torch

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
    assert not Normaliser(3).constant.any()
