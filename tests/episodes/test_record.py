"""Collecting episodes: order, completeness, and independence of the number of environments."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from robolearn.configuration.task import TaskConfig
from robolearn.envs.make import make
from robolearn.episodes.run import Decision, collect
from robolearn.errors import TaskError
from robolearn.specs import ActionMode, Episode, EpisodeInfo
from tests.envs.toy import COUNTER, POINT_REACH


class Constant:
    """Acts with one value; what it says about each step depends on the episode's seed alone."""

    def __init__(self, num_envs: int, size: int, value: float = 0.5) -> None:
        self.seeds = torch.zeros(num_envs)
        self.actions = torch.full((num_envs, size), value)

    def reset(self, seeds: Sequence[int], mask: torch.Tensor) -> None:
        self.seeds[mask] = torch.tensor(seeds, dtype=torch.float32)

    def decide(self, obs: dict[str, torch.Tensor]) -> Decision:
        N = len(self.actions)
        return Decision(
            actions=self.actions,
            modes=torch.full((N,), int(ActionMode.POLICY), dtype=torch.int8),
            gate=self.seeds.clone(),
            events=tuple((i, "mark", f"seed {int(self.seeds[i])}") for i in range(N) if int(obs["state"][i, 1]) == 2),
        )


def describe(seed: int, success: bool) -> EpisodeInfo:
    return EpisodeInfo(success=success, seed=seed, source="dagger")


def episodes(num_envs: int, seeds: Sequence[int], end: int | None = 4) -> list[Episode]:
    with make(TaskConfig(id=COUNTER, kwargs={"end": end}, max_steps=6, worker_kind="sync"), num_envs) as env:
        return list(collect(env, Constant(num_envs, 1), seeds, info=describe))


@pytest.mark.parametrize("num_envs", [1, 2, 5])
def test_each_row_is_the_observation_before_its_action(num_envs: int) -> None:
    for seed, episode in zip([3, 1, 2], episodes(num_envs, [3, 1, 2]), strict=True):
        steps = np.arange(4)
        np.testing.assert_array_equal(episode.obs["state"], np.stack([np.full(4, seed), steps, 0.5 * steps], 1))
        np.testing.assert_array_equal(episode.final_obs["state"], [seed, 4, 2.0])
        np.testing.assert_array_equal(episode.rewards, steps + 1)
        np.testing.assert_array_equal(episode.terminated, [False, False, False, True])
        assert not episode.truncated.any()
        np.testing.assert_array_equal(episode.gate, np.full(4, seed))
        assert [(e.step, e.kind, e.reason) for e in episode.events] == [(2, "mark", f"seed {seed}")]
        assert episode.info.seed == seed


def test_a_time_limit_is_a_truncation() -> None:
    (episode,) = episodes(1, [0], end=None)
    assert len(episode) == 6
    assert episode.truncated.tolist() == [False] * 5 + [True]
    assert not episode.terminated.any()


def test_timestamps_are_measured() -> None:
    (episode,) = episodes(1, [0])
    assert episode.timestamps[0] == 0
    gaps = np.diff(episode.timestamps)
    assert (gaps > 0).all()
    assert len(set(gaps.round(12).tolist())) > 1


def test_seeds_are_taken_lazily_and_may_be_endless() -> None:
    taken: list[int] = []

    def seeds():  # type: ignore[no-untyped-def]
        for seed in itertools.count():
            taken.append(seed)
            yield seed

    with make(TaskConfig(id=COUNTER, kwargs={"end": 3}, max_steps=6, worker_kind="sync"), 2) as env:
        found = list(itertools.islice(collect(env, Constant(2, 1), seeds(), info=describe), 3))
    assert [e.info.seed for e in found] == [0, 1, 2]
    assert len(taken) <= 6


def test_order_follows_the_seeds_although_lengths_differ() -> None:
    """PointReach ends when its goal is reached, so episodes finish out of turn."""
    from tests.envs.toy import point_reach_expert

    class Expert(Constant):
        def decide(self, obs: dict[str, torch.Tensor]) -> Decision:
            physical = np.stack([point_reach_expert(row) for row in obs["state"].numpy()])
            unit = (physical - [0.0, 1.0]) * [2.0, 1.0]
            modes = torch.full((len(unit),), -1, dtype=torch.int8)
            return Decision(actions=torch.as_tensor(unit, dtype=torch.float32), modes=modes)

    def run(num_envs: int) -> list[Episode]:
        with make(TaskConfig(id=POINT_REACH, max_steps=50, worker_kind="sync"), num_envs) as env:
            return list(collect(env, Expert(num_envs, 2), range(12), info=describe))

    alone, together = run(1), run(5)
    assert len({len(e) for e in alone}) > 2
    assert [e.info for e in alone] == [
        EpisodeInfo(**{**vars(e.info), "started_at": a.info.started_at}) for e, a in zip(together, alone)
    ]
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.obs["state"], b.obs["state"])
        np.testing.assert_array_equal(a.actions, b.actions)
    assert all(e.info.success for e in alone)


def test_an_outcome_cannot_be_rewritten() -> None:
    with (
        make(TaskConfig(id=COUNTER, kwargs={"end": 3}, max_steps=6, worker_kind="sync"), 1) as env,
        pytest.raises(TaskError, match="outcome"),
    ):
        list(collect(env, Constant(1, 1), [5], info=lambda seed, success: EpisodeInfo(success=True, seed=seed)))
