"""The driver against the ledger environment, whose every number follows from its seed and its actions."""

from __future__ import annotations

import pytest
import torch

from robolearn.envs.interface import Observation
from robolearn.errors import TrainingError
from robolearn.rl.collecting.macro_steps import EpisodeDriver, SeedStream
from tests.rl.toys import Ledger, Steer


def drive(driver: EpisodeDriver, steps: int, chunk: int = 1, seed: int = 0) -> list[torch.Tensor]:
    """Random chunks; returns the windows seen."""
    g = torch.Generator().manual_seed(seed)
    windows = []
    for _ in range(steps):
        transition = driver.advance(torch.randn(driver.num_envs, chunk, 1, generator=g))
        driver.restart(transition.done)
        windows.append(driver.window["state"].clone())
    return windows


def test_seeds_stay_in_their_range() -> None:
    stream = SeedStream(100, 3)
    assert stream.take(2) + stream.take(3) == [100, 101, 102, 100, 101]


def test_windows_repeat_the_first_observation_and_then_slide() -> None:
    driver = EpisodeDriver(Ledger(1, max_steps=4), seeds=SeedStream(6, 1), gamma=0.9, obs_steps=3)
    assert driver.window["state"][0, :, 1].tolist() == [0, 0, 0]
    driver.advance(torch.ones(1, 1, 1))
    assert driver.window["state"][0, :, 1].tolist() == [0, 0, 1]
    driver.advance(torch.ones(1, 1, 1))
    driver.advance(torch.ones(1, 1, 1))
    assert driver.window["state"][0, :, 1].tolist() == [1, 2, 3]
    last = driver.advance(torch.ones(1, 1, 1))
    assert last.truncated.tolist() == [True]
    assert last.next_obs["state"][0, :, 1].tolist() == [2, 3, 4]  # the true end, not the next episode's begin
    driver.restart(last.done)
    assert driver.window["state"][0, :, 1].tolist() == [0, 0, 0]


def test_chunks_stop_at_each_episodes_own_end() -> None:
    """Seed 1 terminates after 2 steps, seed 3 after 4, seed 2 goes on: one chunk of 3."""
    env = Ledger(3, max_steps=10)
    driver = EpisodeDriver(env, seeds=SeedStream(1, 3), gamma=0.5)
    done = driver.advance(torch.full((3, 3, 1), 0.25))
    assert done.executed.tolist() == [[True, True, False], [True] * 3, [True] * 3]
    assert done.terminated.tolist() == [True, False, False]
    assert done.reward.tolist() == [1 + 0.5 * 2, 1 + 0.5 * 2 + 0.25 * 3, 1 + 0.5 * 2 + 0.25 * 3]
    assert done.discount.tolist() == [0.25, 0.125, 0.125]
    assert done.next_obs["state"][0, -1].tolist() == [1.0, 2.0, 0.5]
    driver.restart(done.done)
    assert driver.control_steps == 8
    assert [(e.seed, e.length, e.ret, e.success) for e in driver.take_finished()] == [(1, 2, 3.0, True)]
    assert driver.take_finished() == []


def test_success_reward_ends_the_episode() -> None:
    driver = EpisodeDriver(Steer(1, max_steps=50), seeds=SeedStream(0, 10), gamma=1.0, reward="success")
    transition = None
    for _ in range(50):
        x = driver.window["state"][:, -1, :1]
        transition = driver.advance(-5.0 * x[:, None])
        if transition.done.any():
            break
    assert transition is not None
    assert (transition.terminated, transition.reward) == (torch.tensor([True]), torch.tensor([1.0]))


def test_actions_are_clipped_for_the_environment_only() -> None:
    env = Ledger(2)
    driver = EpisodeDriver(env, seeds=SeedStream(0, 5), gamma=0.9)
    raw = torch.tensor([[[3.0]], [[-7.0]]])
    driver.advance(raw)
    assert env.seen_actions[0].flatten().tolist() == [1.0, -1.0]
    assert raw.flatten().tolist() == [3.0, -7.0]


@pytest.mark.parametrize("chunk", [1, 3])
def test_resume_replays_the_running_episodes(chunk: int) -> None:
    def make() -> EpisodeDriver:
        return EpisodeDriver(Ledger(3, max_steps=9), seeds=SeedStream(0, 50), gamma=0.9, obs_steps=2)

    whole, first, second = make(), make(), make()
    drive(first, 7, chunk)
    drive(whole, 7, chunk)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.window, whole.window, rtol=0, atol=0)
    assert [*map(torch.equal, drive(whole, 9, chunk, seed=1), drive(second, 9, chunk, seed=1))] == [True] * 9
    assert second.control_steps == whole.control_steps
    assert second.episode_seeds == whole.episode_seeds
    assert torch.equal(second.returns, whole.returns)


def test_a_reward_that_is_not_finite_names_its_episode() -> None:
    env = Ledger(2)
    driver = EpisodeDriver(env, seeds=SeedStream(40, 5), gamma=0.9)
    env.judge = lambda state, actions: (  # type: ignore[method-assign]
        torch.tensor([1.0, torch.nan]),
        torch.zeros(2, dtype=torch.bool),
        torch.zeros(2, dtype=torch.bool),
    )
    with pytest.raises(TrainingError, match=r"environment 1 is nan at step 0 of the episode with seed 41"):
        driver.advance(torch.zeros(2, 1, 1))


def test_an_observation_that_is_not_finite_stops_collection_with_its_place() -> None:
    class Broken(Ledger):
        def observe(self) -> Observation:
            obs = super().observe()
            return {"state": torch.where((self.age == 2)[:, None] & (obs["state"] >= 0), torch.nan, obs["state"])}

    driver = EpisodeDriver(Broken(2, max_steps=10), seeds=SeedStream(6, 2), gamma=0.9)
    driver.advance(torch.zeros(2, 1, 1))
    with pytest.raises(TrainingError, match=r"'state' of environment 0 at step 2 of the episode with seed 6"):
        driver.advance(torch.zeros(2, 1, 1))
