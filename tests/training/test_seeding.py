"""Every generator is saved and restored."""

from __future__ import annotations

import random

import numpy as np
import torch

from robolearn.training.checkpoint import load_checkpoint, save_checkpoint
from robolearn.training.seeding import rng_state, seed_everything, set_rng_state, untouched_rng


def draw() -> tuple[float, ...]:
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.normal()),  # noqa: NPY002
        float(np.random.rand()),  # noqa: NPY002
        *torch.randn(3).tolist(),
    )


def test_state_survives_a_checkpoint(tmp_path) -> None:  # type: ignore[no-untyped-def]
    seed_everything(7)
    draw()  # leaves half a pair of normals behind in Python's and NumPy's generators
    save_checkpoint(tmp_path / "c", {"rng": rng_state()}, {})
    expected = [draw() for _ in range(3)]
    seed_everything(99)
    set_rng_state(load_checkpoint(tmp_path / "c")["rng"])
    assert [draw() for _ in range(3)] == expected


def test_seeds_decide() -> None:
    seed_everything(1)
    first = draw()
    seed_everything(2)
    assert draw() != first
    seed_everything(1)
    assert draw() == first


def test_untouched_rng_hides_what_is_drawn_inside() -> None:
    seed_everything(3)
    expected = draw()
    seed_everything(3)
    with untouched_rng(seed=5):
        inside = draw()
    assert draw() == expected
    with untouched_rng(seed=5):
        assert draw() == inside
