"""Counter-based randomness against an implementation with Python's unbounded integers."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, strategies as st

from robolearn.tasks.draw import Draw, noise

MASK = 2**64 - 1


def mix(x):
    """splitmix64's finaliser (Steele et al. 2014), written with unsigned arithmetic."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def reference(seed, stream, position):
    key = mix(mix((seed + 0x9E3779B97F4A7C15) & MASK) ^ mix(stream))
    return (mix((key + position * 0x9E3779B97F4A7C15) & MASK) >> 11) * 2.0**-53


@given(seed=st.integers(0, 2**53 - 1), stream=st.integers(0, 200), position=st.integers(0, 50))
def test_numbers_are_those_of_the_reference(seed, stream, position):
    drawn = Draw(torch.tensor([seed]), stream).unit(position + 1)
    assert drawn[0, position].item() == reference(seed, stream, position)


def test_a_draw_depends_on_the_seed_alone():
    many = Draw(torch.arange(100), 1)
    few = Draw(torch.tensor([7, 93]), 1)
    for draw in (lambda d: d.unit(3), lambda d: d.uniform(-2, 5, 4), lambda d: d.normal(2), lambda d: d.integer(6)):
        assert torch.equal(draw(many)[[7, 93]], draw(few))


def test_streams_and_neighbouring_seeds_are_independent():
    seeds = torch.arange(4000)
    columns = torch.cat([Draw(seeds, 1).unit(3), Draw(seeds, 2).unit(3), Draw(seeds + 1, 1).unit(3)], dim=-1).numpy()
    correlation = np.corrcoef(columns.T) - np.eye(9)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(seeds))


def test_distributions():
    draw = Draw(torch.arange(20000), 5)
    unit, normal, integer = draw.unit(1)[:, 0], draw.normal(1)[:, 0], draw.integer(3)
    counts = torch.histc(unit, 10, 0, 1)
    assert ((counts - 2000).abs() < 6 * (2000 * 0.9) ** 0.5).all()
    assert abs(normal.mean()) < 0.04
    assert abs(normal.std() - 1) < 0.03
    assert abs(normal.pow(4).mean() - 3) < 0.3, "kurtosis of a normal distribution"
    assert (torch.bincount(integer) - 6667).abs().max() < 300


def test_noise_changes_with_the_step_and_not_with_the_batch():
    seeds, steps = torch.arange(50), torch.arange(50) % 7
    all_at_once = noise(seeds, steps, 4, 9)
    assert torch.equal(noise(seeds[20:21], steps[20:21], 4, 9)[0], all_at_once[20])
    assert not torch.equal(noise(seeds, steps + 1, 4, 9), all_at_once)
