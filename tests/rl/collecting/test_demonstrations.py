"""Demonstrations as transitions: every macro-step against a walk along the recording, rewards, shares of batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.algorithms import SACConfig
from robolearn.configuration.parts.policy import MixtureHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.reading import Reading
from robolearn.contract import Interface
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.errors import ConfigError, DatasetError, PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.residual import BASE_ACTION
from robolearn.rl.collecting.demonstrations import (
    RecordedEpisode,
    Shape,
    base_actions,
    load_demonstrations,
    macro_steps,
    read_episodes,
    replay_of,
    reward_notes,
)
from robolearn.rl.collecting.macro_steps import EpisodeDriver, SeedStream
from robolearn.rl.collecting.replay_collector import ReplayCollector
from robolearn.rl.networks import QEnsemble
from robolearn.rl.sac import SAC
from tests.imitation.toy import ACTION, OBSERVATION, make_episode, write_dataset
from tests.rl.test_off_policy import SMALL, make_policy
from tests.rl.toys import Ledger

GAMMA = 0.9


def failed(episode):
    ended = episode.terminated
    return replace(episode, terminated=~ended & False, truncated=ended, rewards=np.zeros(len(ended))).with_info(
        success=False
    )


def counted(T: int, *, terminated: bool, first: int = 0) -> RecordedEpisode:
    """An episode whose every number says where it comes from."""
    steps = torch.arange(first, first + T + 1, dtype=torch.float32)
    return RecordedEpisode(
        obs={"state": steps[:, None]},
        actions=steps[:T, None] / 1000,
        rewards=torch.arange(1.0, T + 1),
        terminated=terminated,
    )


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("exec_steps", [1, 2, 3])
@pytest.mark.parametrize("T", [1, 2, 5, 6])
def test_every_step_begins_one_macro_step_and_none_crosses_an_end(T: int, exec_steps: int, n_step: int) -> None:
    """Two episodes, one that terminated and one that was cut, against a plain walk from each step."""
    Tp, episodes = 4, [counted(T, terminated=True), counted(T + 1, terminated=False, first=100)]
    shape = Shape(obs_keys=("state",), obs_steps=2, pred_steps=Tp, exec_steps=exec_steps, gamma=GAMMA, n_step=n_step)
    replay = replay_of(episodes, shape)
    batch = replay.gather(torch.arange(len(replay)))
    assert len(replay) == 2 * T + 1
    begun = batch.obs["state"][:, -1, 0].tolist()
    assert sorted(begun) == sorted([*range(T), *range(100, 100 + T + 1)])
    for i, start in enumerate(map(int, begun)):
        episode, first = (episodes[1], 100) if start >= 100 else (episodes[0], 0)
        t, length = start - first, len(episode)
        end = min(t + n_step * exec_steps, length)
        # Macro-steps are counted from where the chain began, so n of them end where n x Ta steps do.
        reward = sum(GAMMA ** (s - t) * float(episode.rewards[s]) for s in range(t, end))
        discount = 0.0 if end == length and episode.terminated else GAMMA ** (end - t)
        assert batch.rewards[i].item() == pytest.approx(reward, rel=1e-5)
        assert batch.discounts[i].item() == pytest.approx(discount, rel=1e-5)
        assert batch.next_obs["state"][i].flatten().tolist() == [first + max(end - 1, 0), first + end]
        assert batch.obs["state"][i].flatten().tolist() == [first + max(t - 1, 0), start]
        chunk = [float(episode.actions[min(t + k, length - 1), 0]) for k in range(Tp)]
        assert batch.actions[i].flatten().tolist() == pytest.approx(chunk)


def test_executed_steps_of_the_last_macro_step() -> None:
    shape = Shape(obs_keys=("state",), pred_steps=3, exec_steps=3)
    steps = [transition.executed.tolist()[0] for _, _, transition in macro_steps(counted(4, terminated=True), shape)]
    assert steps == [[True] * 3, [True, False, False], [True] * 3, [True, True, False]]


def test_rewards_from_success_and_from_the_file(tmp_path: Path) -> None:
    good, bad = make_episode(0, 6), failed(make_episode(1, 4))
    dense = replace(make_episode(2, 5), rewards=np.linspace(-1, 0, 5))
    path = write_dataset(tmp_path / "d.hdf5", [good, bad, dense])
    with Dataset(path) as dataset:
        episodes = read_episodes(dataset, ("state",), "success")
        assert [episode.rewards.tolist() for episode in episodes] == [[0] * 5 + [1], [0] * 4, [0] * 4 + [1]]
        assert [episode.terminated for episode in episodes] == [True, False, True]
        assert "1 at the last step of 2 of 3 episodes" in reward_notes(dataset, "success")[0]
        recorded = read_episodes(dataset, ("state",), "env")
        np.testing.assert_allclose(recorded[2].rewards, np.linspace(-1, 0, 5), rtol=1e-6)
        assert reward_notes(dataset, "env") == []
        np.testing.assert_array_equal(recorded[0].obs["state"][-1], good.final_obs["state"])


def test_demonstrations_that_show_no_reward(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "bad.hdf5", [failed(make_episode(i, 4)) for i in range(3)])
    with Dataset(path) as dataset, pytest.raises(DatasetError, match=r"3 episodes of .*bad.hdf5 are failures only"):
        read_episodes(dataset, ("state",), "success")
    zero = replace(make_episode(0, 4), rewards=np.zeros(4))
    path = write_dataset(tmp_path / "zero.hdf5", [zero])
    with Dataset(path) as dataset, pytest.raises(DatasetError, match="--reward success"):
        read_episodes(dataset, ("state",), "env")


def test_the_bases_actions_are_those_of_its_runner_on_the_recording(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = PolicyConfig(
        head=MixtureHeadConfig(), backbone=MLPConfig(hidden_sizes=(16,)), obs_steps=2, pred_steps=4, exec_steps=3
    )
    base = build_policy(config, OBSERVATION, ACTION).eval()
    path = write_dataset(tmp_path / "d.hdf5", [make_episode(i, 5 + i) for i in range(3)])
    needs = base.interface("the base")
    shape = Shape(obs_keys=("state", BASE_ACTION), gamma=GAMMA)
    with Dataset(path) as dataset:
        episodes = read_episodes(dataset, tuple(OBSERVATION), "success")
        replay = load_demonstrations(dataset, needs, shape, reward="success", base=base)
    together = base_actions(base, episodes)
    rows = replay.gather(torch.arange(len(replay)))
    begin = 0
    for episode, found in zip(episodes, together):
        alone = PolicyRunner(base, 1)
        alone.reset([0])
        T = len(episode)
        expected = torch.cat([alone.act({k: v[t : t + 1] for k, v in episode.obs.items()}) for t in range(T + 1)])
        assert torch.equal(found, expected)
        assert torch.equal(rows.obs[BASE_ACTION][begin : begin + T, 0], expected[:T])
        assert torch.equal(rows.next_obs[BASE_ACTION][begin : begin + T, 0], expected[1:])
        begin += T


def test_data_of_others_is_refused(tmp_path: Path) -> None:
    path = write_dataset(tmp_path / "d.hdf5", [make_episode(0, 4)])
    shape = Shape(obs_keys=("state",))
    wide = Interface(
        name="the policy p",
        observation_spec=OBSERVATION,
        action_spec=replace(ACTION, low=(-0.5, -1.0), high=(0.5, 1.0)),
    )
    with Dataset(path) as dataset, pytest.raises(PolicyError, match="the same numbers mean other actions"):
        load_demonstrations(dataset, wide, shape, reward="success")
    with Dataset(path, reading=Reading(drop=("goal",))) as dataset, pytest.raises(PolicyError, match="sees 'goal'"):
        load_demonstrations(dataset, replace(wide, action_spec=ACTION), shape, reward="success")


def collector_with(config: SACConfig) -> ReplayCollector:
    env = Ledger(2, max_steps=5)
    policy = make_policy(env)
    learner = SAC(policy, QEnsemble.beside(policy, config.critic), config)
    shown = RecordedEpisode(
        obs={"state": torch.full((9, 3), -7.0)},
        actions=torch.full((8, 1), 0.5),
        rewards=torch.ones(8),
        terminated=True,
    )
    shape = Shape(obs_keys=("state",), gamma=config.gamma, n_step=config.n_step)
    driver = EpisodeDriver(env, seeds=SeedStream(0, 1000), gamma=config.gamma)
    return ReplayCollector(driver, learner, config, demonstrations=replay_of([shown], shape), first_actions="policy")


@pytest.mark.parametrize(("share", "demonstrated"), [(0.5, 16), (0.25, 8), (0.0, 0)])
def test_a_batch_has_its_share_of_demonstrations(share: float, demonstrated: int) -> None:
    collector = collector_with(SACConfig(random_steps=20, batch_size=32, critic=SMALL, demonstration_share=share))
    batch = collector.next()[0]
    assert int((batch.obs["state"][:, 0, 0] == -7.0).sum()) == demonstrated
    assert len(batch.rewards) == 32
    assert (batch.actions.abs() < 1.0).all()
    with pytest.raises(ConfigError, match="clone them"):
        SACConfig(demonstration_share=1.0)


def test_the_policy_itself_acts_before_learning_begins() -> None:
    collector = collector_with(SACConfig(random_steps=60, batch_size=8, critic=SMALL))
    with torch.no_grad():
        head = collector.exploration.network.head
        head.mean.bias.fill_(1.5)
        head.mean.weight.zero_()
    collector.next()
    assert collector.replay.flat["actions"][: len(collector.replay)].median() > 0.7


def test_batches_go_on_where_they_stopped() -> None:
    config = SACConfig(random_steps=20, batch_size=16, critic=SMALL)
    whole, parts, resumed = collector_with(config), collector_with(config), collector_with(config)
    for collector in (whole, parts):
        for _ in range(3):
            collector.next()
    resumed.load_state_dict(parts.state_dict())
    for _ in range(3):
        for a, b in zip(whole.next(), resumed.next()):
            assert torch.equal(a.obs["state"], b.obs["state"])
            assert torch.equal(a.rewards, b.rewards)
