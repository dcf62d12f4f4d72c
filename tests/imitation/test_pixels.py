"""Cloning from images in a file, end to end and tiny: one episode is learned by heart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.tree import from_dict
from robolearn.imitation.bc import train_bc
from robolearn.policies.folder import load_policy
from robolearn.specs import ArraySpec, Episode, EpisodeInfo, ObservationSpec
from tests.imitation.toy import ACTION, write_dataset

STEPS = 6
SPEC = ObservationSpec({"front": ArraySpec(shape=(40, 44, 3), dtype="uint8"), "state": ArraySpec(shape=(2,))})


def make_episode() -> Episode:
    """A bright square moves over a dark background, and the actions say where it is; the state says nothing."""
    frames = np.full((STEPS + 1, 40, 44, 3), 30, np.uint8)
    for t in range(STEPS + 1):
        frames[t, 5 * t : 5 * t + 8, 4 + 4 * t : 14 + 4 * t] = (220, 60 + 20 * t, 40)
    ended = np.arange(STEPS) == STEPS - 1
    return Episode(
        info=EpisodeInfo(success=True, seed=0),
        obs={"front": frames[:-1], "state": np.zeros((STEPS, 2), np.float32)},
        final_obs={"front": frames[-1], "state": np.zeros(2, np.float32)},
        actions=np.linspace([-0.8, 0.6], [0.7, -0.5], STEPS).astype(np.float32),
        rewards=ended.astype(np.float32),
        terminated=ended,
        truncated=np.zeros(STEPS, bool),
        timestamps=np.arange(STEPS) * 0.05,
    )


@pytest.mark.long
def test_one_episode_is_learned_by_heart_from_its_images(tmp_path: Path) -> None:
    episode = make_episode()
    data = write_dataset(tmp_path / "pixels.hdf5", [episode], observation_spec=SPEC, action_spec=ACTION)
    config = from_dict(
        BCConfig,
        {
            "dataset": [str(data)],
            "policy": {
                "head": {"name": "deterministic"},
                "backbone": {"name": "mlp", "hidden_sizes": [64]},
                "vision": {"crop": 1.0},
            },
            "batch_size": STEPS,
            "optimiser": {"learning_rate": 3e-4, "schedule": "constant", "ema": False},
            "loop": {"total_steps": 45, "evaluate_every": 0, "checkpoint_every": 0, "tensorboard": False},
        },
    )
    policy = load_policy(train_bc(config, tmp_path / "run").policy).eval()
    obs = {key: torch.as_tensor(value)[:, None] for key, value in episode.obs.items()}
    with torch.no_grad():
        acted = policy.act(obs, deterministic=True)[:, 0]
        blind = policy.act({**obs, "front": torch.zeros_like(obs["front"])}, deterministic=True)[:, 0]
    demonstrated = torch.as_tensor(episode.actions)
    assert (acted - demonstrated).abs().mean() < 0.08
    assert (blind - demonstrated).abs().mean() > 0.2
