"""Running and recording episodes: order, completeness, and independence of the number of environments."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.datasets.dataset import Dataset
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.actor import Decision, Driver
from robolearn.episodes.episode_loop import EpisodeLoop
from robolearn.episodes.record import open_writer
from robolearn.episodes.recorder import Attempt, EpisodeRecorder, record_episodes
from robolearn.specs import ActionMode, Episode, EpisodeInfo
from tests.envs.toy import COUNTER, POINT_REACH


class Constant:
    """Acts with one value; what it says about each step depends on the episode's seed alone."""

    def __init__(self, num_envs: int, size: int, value: float = 0.5) -> None:
        self.seeds = torch.zeros(num_envs)
        self.actions = torch.full((num_envs, size), value)

    def reset(self, *, seeds: Sequence[int], mask: torch.Tensor) -> None:
        self.seeds[mask] = torch.tensor(seeds, dtype=torch.float32)

    def decide(self, obs: dict[str, torch.Tensor]) -> Decision:
        N = len(self.actions)
        return Decision(
            actions=self.actions,
            modes=torch.full((N,), int(ActionMode.POLICY), dtype=torch.int8),
            gate=self.seeds.clone(),
            events=tuple((i, "mark", f"seed {int(self.seeds[i])}") for i in range(N) if int(obs["state"][i, 1]) == 2),
        )


def counter(num_envs: int, end: int | None = 4) -> VectorEnv:
    return make(TaskConfig(id=COUNTER, kwargs={"end": end}, max_steps=6, worker_kind="sync"), num_envs)


def recorded(path: Path, env: VectorEnv, driver: Driver, seeds: Sequence[int]) -> list[Episode]:
    with env, open_writer(path, env) as writer:
        recorder = EpisodeRecorder(writer, describe={"source": "dagger"})
        attempts = list(record_episodes(EpisodeLoop(env, driver, seeds), recorder))
    assert [attempt.seed for attempt in attempts] == list(seeds)
    with Dataset(path) as dataset:
        return [dataset.read(i) for i in range(len(dataset))]


@pytest.mark.parametrize("num_envs", [1, 2, 5])
def test_each_row_is_the_observation_before_its_action(num_envs: int, tmp_path: Path) -> None:
    episodes = recorded(tmp_path / "d.hdf5", counter(num_envs), Constant(num_envs, 1), [3, 1, 2])
    for seed, episode in zip([3, 1, 2], episodes, strict=True):
        steps = np.arange(4)
        np.testing.assert_array_equal(episode.obs["state"], np.stack([np.full(4, seed), steps, 0.5 * steps], 1))
        np.testing.assert_array_equal(episode.final_obs["state"], [seed, 4, 2.0])
        np.testing.assert_array_equal(episode.rewards, steps + 1)
        np.testing.assert_array_equal(episode.terminated, [False, False, False, True])
        assert not episode.truncated.any()
        np.testing.assert_array_equal(episode.gate, np.full(4, seed))
        assert [(e.step, e.kind, e.reason) for e in episode.events] == [(2, "mark", f"seed {seed}")]
        assert episode.info.seed == seed


def test_a_time_limit_is_a_truncation(tmp_path: Path) -> None:
    (episode,) = recorded(tmp_path / "d.hdf5", counter(1, end=None), Constant(1, 1), [0])
    assert len(episode) == 6
    assert episode.truncated.tolist() == [False] * 5 + [True]
    assert not episode.terminated.any()


def test_timestamps_are_measured(tmp_path: Path) -> None:
    (episode,) = recorded(tmp_path / "d.hdf5", counter(1), Constant(1, 1), [0])
    assert episode.timestamps[0] == 0
    gaps = np.diff(episode.timestamps)
    assert (gaps > 0).all()
    assert len(set(gaps.round(12).tolist())) > 1


def test_seeds_are_taken_lazily_and_may_be_endless(tmp_path: Path) -> None:
    taken: list[int] = []

    def seeds():  # type: ignore[no-untyped-def]
        for seed in itertools.count():
            taken.append(seed)
            yield seed

    path = tmp_path / "d.hdf5"
    with counter(2, end=3) as env, open_writer(path, env) as writer:
        recorder = EpisodeRecorder(writer, describe={})
        with closing(record_episodes(EpisodeLoop(env, Constant(2, 1), seeds()), recorder)) as attempts:
            found = list(itertools.islice(attempts, 3))
    assert found == [Attempt(seed=seed, success=False, steps=3, name=f"demo_{seed}") for seed in range(3)]
    assert len(taken) <= 6
    with Dataset(path) as dataset:  # what was in progress is neither kept nor left behind
        assert [info.seed for info in dataset.info] == [0, 1, 2]


def test_only_what_is_wanted_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "d.hdf5"
    with counter(3) as env, open_writer(path, env) as writer:
        recorder = EpisodeRecorder(writer, describe={})
        loop = EpisodeLoop(env, Constant(3, 1), range(6))
        attempts = list(record_episodes(loop, recorder, keep=lambda slot: slot.seed % 2 == 1))
    assert [attempt.name for attempt in attempts] == [None, "demo_0", None, "demo_1", None, "demo_2"]
    with Dataset(path) as dataset:
        assert [info.seed for info in dataset.info] == [1, 3, 5]


def test_an_episode_may_be_left_before_it_ends() -> None:
    """As a person does who discards one: the next seed begins there, the neighbour goes on."""
    with counter(2, end=5) as env:
        loop = EpisodeLoop(env, Constant(2, 1), [10, 11, 12])
        loop.begin()
        loop.advance()
        loop.end(loop.running[0])
        (fresh,) = loop.begin()
        assert (fresh.seed, fresh.index) == (12, 0)
        ended = [(slot.seed, slot.steps) for tick in loop for slot in tick.ended]
    assert sorted(ended) == [(11, 5), (12, 5)]


def test_order_follows_the_seeds_although_lengths_differ(tmp_path: Path) -> None:
    """PointReach ends when its goal is reached, so episodes finish out of turn."""
    from tests.envs.toy import point_reach_expert

    class Expert(Constant):
        def decide(self, obs: dict[str, torch.Tensor]) -> Decision:
            physical = np.stack([point_reach_expert(row) for row in obs["state"].numpy()])
            unit = (physical - [0.0, 1.0]) * [2.0, 1.0]
            modes = torch.full((len(unit),), -1, dtype=torch.int8)
            return Decision(actions=torch.as_tensor(unit, dtype=torch.float32), modes=modes)

    def run(num_envs: int) -> list[Episode]:
        env = make(TaskConfig(id=POINT_REACH, max_steps=50, worker_kind="sync"), num_envs)
        return recorded(tmp_path / f"{num_envs}.hdf5", env, Expert(num_envs, 2), range(12))

    alone, together = run(1), run(5)
    assert len({len(e) for e in alone}) > 2
    assert [e.info for e in alone] == [
        EpisodeInfo(**{**vars(e.info), "started_at": a.info.started_at}) for e, a in zip(together, alone)
    ]
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.obs["state"], b.obs["state"])
        np.testing.assert_array_equal(a.actions, b.actions)
    assert all(e.info.success for e in alone)
