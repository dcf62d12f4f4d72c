"""Observations that nothing can be learned from are refused by name, all others let through."""

from __future__ import annotations

import math

import pytest
import torch

from robolearn.errors import TrainingError
from robolearn.rl.collecting.sanity import LARGEST, check_observation

SEEDS, STEPS = [70, 71, 72], torch.tensor([4, 5, 6])


def observation(value: float, env: int = 1) -> dict[str, torch.Tensor]:
    state = torch.ones(3, 2, 4)
    state[env, 1, 2] = value
    return {"goal": torch.zeros(3, 1), "state": state, "camera": torch.full((3, 2, 2, 3), 255, dtype=torch.uint8)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("largest", [LARGEST, math.inf])
def test_a_value_that_is_not_finite_is_named(value: float, largest: float) -> None:
    place = rf"'state' of environment 1 at step 5 of the episode with seed 71 has entry 6 {value}.*task\.obs_keys"
    with pytest.raises(TrainingError, match=place):
        check_observation(observation(value), ["goal", "state"], seeds=SEEDS, steps=STEPS, largest=largest)


def test_an_absurd_magnitude_is_named_with_the_way_out_unless_it_is_normalised() -> None:
    obs = observation(-3e7)
    with pytest.raises(TrainingError, match=r"seed 71 has entry 6 -3e\+07, beyond 1e\+06.*normalise_obs true"):
        check_observation(obs, list(obs), seeds=SEEDS, steps=STEPS)
    check_observation(obs, list(obs), seeds=SEEDS, steps=STEPS, largest=math.inf)


def test_what_is_not_read_and_who_rests_does_not_count() -> None:
    obs = observation(math.nan)
    check_observation(obs, ["goal", "camera"], seeds=SEEDS, steps=STEPS)
    mask = torch.tensor([True, False, True])
    check_observation(obs, list(obs), seeds=SEEDS, steps=STEPS, mask=mask)
    with pytest.raises(TrainingError, match="environment 1"):
        check_observation(obs, list(obs), seeds=SEEDS, steps=STEPS, mask=~mask)
    check_observation(observation(LARGEST), ["state"], seeds=SEEDS, steps=STEPS)
