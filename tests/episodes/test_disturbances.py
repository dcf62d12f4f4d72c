"""Disturbances of a recording: whose they are, how long and how often, and what the file says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.windows import WindowSampler
from robolearn.episodes.disturbances import Disturbances
from robolearn.episodes.record import record
from robolearn.errors import ConfigError
from robolearn.specs import ActionMode


def stretches(flags: np.ndarray) -> np.ndarray:
    """Return the lengths of the runs of True that have ended."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int)])))
    return edges[1::2] - edges[::2][: len(edges) // 2]


def applied(disturbances: Disturbances, seeds: list[int], steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    disturbances.reset(seeds=seeds, mask=torch.ones(len(seeds), dtype=torch.bool))
    executed, disturbed = zip(*(disturbances.apply(torch.zeros(len(seeds), 3)) for _ in range(steps)))
    return torch.stack(executed), torch.stack(disturbed)


def test_they_come_as_often_and_last_as_long_as_they_should() -> None:
    executed, disturbed = applied(Disturbances(0.5, control_hz=20.0, num_envs=40), [*range(40)], 2000)
    lengths = np.concatenate([stretches(column) for column in disturbed.numpy().T])
    assert lengths.min() >= 4
    assert np.median(lengths) == pytest.approx(10, abs=1)  # a stretch that follows at once makes one of both
    free = (~disturbed).sum().item()  # a stretch begins in one of these, or at the end of another
    assert lengths.size / free == pytest.approx(0.5 / 20.0, rel=0.1)  # 1,500 stretches: four standard errors
    sizes = executed.norm(dim=-1)
    assert (sizes[~disturbed] == 0).all()
    assert sizes[disturbed].min() >= 0.499
    assert sizes[disturbed].max() <= 1.001
    first = np.flatnonzero(disturbed[:, 0].numpy())[:4]
    assert (executed[first, 0] == executed[first[0], 0]).all()  # in one direction


def test_small_ones_are_as_frequent_as_large_ones_and_spare_what_is_named() -> None:
    disturbances = Disturbances(2.0, control_hz=20.0, num_envs=40, speed=(0.05, 1.0), spared=[1])
    executed, disturbed = applied(disturbances, [*range(40)], 1000)
    sizes = executed.norm(dim=-1)[disturbed].numpy()
    assert 0.0499 < sizes.min() < 0.06
    assert 0.9 < sizes.max() < 1.001
    assert np.median(np.unique(sizes.round(6))) == pytest.approx(np.sqrt(0.05), rel=0.1)
    assert (executed[..., 1] == 0).all()
    assert (executed[..., 0][disturbed] != 0).all()


def test_what_cannot_be_disturbed_is_named(tmp_path: Path) -> None:
    config = RecordConfig(task=TaskConfig(id="Reach"), output=str(tmp_path / "a.hdf5"), undisturbed=("grasp",))
    with pytest.raises(ConfigError, match=r"undisturbed names grasp; the action has delta_x, delta_y, delta_z"):
        record(config)
    with pytest.raises(ConfigError, match=r"undisturbed names all of the action"):
        record(replace(config, undisturbed=("delta_x", "delta_y", "delta_z")))
    with pytest.raises(ConfigError, match=r"a least and a greatest one, above 0 and up to 1, received \[1.0, 0.5\]"):
        replace(config, disturbance_speed=(1.0, 0.5))


def test_an_episode_has_its_own_whoever_runs_beside_it() -> None:
    alone = applied(Disturbances(1.0, control_hz=20.0, num_envs=1, seed=3), [42], 200)
    beside = applied(Disturbances(1.0, control_hz=20.0, num_envs=3, seed=3), [5, 6, 42], 200)
    assert torch.equal(alone[0][:, 0], beside[0][:, 2])
    other = applied(Disturbances(1.0, control_hz=20.0, num_envs=1, seed=4), [42], 200)
    assert not torch.equal(alone[1], other[1])
    assert not applied(Disturbances(0.0, control_hz=20.0, num_envs=2), [1, 2], 500)[1].any()


def test_the_file_labels_what_the_expert_would_have_done(tmp_path: Path) -> None:
    config = RecordConfig(task=TaskConfig(id="Reach"), output=str(tmp_path / "a.hdf5"), episodes=8, disturbances=2.0)
    assert record(config).total == 8
    with Dataset(config.output) as dataset:
        found = [dataset.arrays(i, ["actions", "expert_actions", "action_modes"]) for i in range(8)]
        arrays = {name: np.concatenate([arrays[name] for arrays in found]) for name in found[0]}
        disturbed = arrays["action_modes"] == ActionMode.DISTURBANCE
        assert 0.2 < disturbed.mean() < 0.8
        assert ((arrays["action_modes"] == ActionMode.DEMONSTRATION) | disturbed).all()
        meant = np.clip(arrays["expert_actions"], -1.0, 1.0)
        np.testing.assert_array_equal(arrays["actions"][~disturbed], meant[~disturbed])
        assert (np.abs(arrays["actions"] - meant)[disturbed].max(axis=1) > 1e-3).all()
        sampler = WindowSampler(dataset, obs_steps=1, pred_steps=4, batch_size=64, seed=0, target="labels")
        for batch in sampler:
            for row in range(len(batch.steps)):
                episode, t = found[int(batch.episodes[row])], int(batch.steps[row])
                ahead = slice(t, t + int(batch.valid[row].sum()))  # the valid ones come first
                np.testing.assert_array_equal(batch.actions[row, : ahead.stop - t], episode["expert_actions"][ahead])
                modes = episode["action_modes"][ahead]
                assert (modes[:-1] == ActionMode.DEMONSTRATION).all(), "a chunk ends where the hand was carried off"
        assert sampler.num_windows == len(disturbed)  # each has a label
