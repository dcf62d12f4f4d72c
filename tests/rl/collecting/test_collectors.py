"""Collection beside learning: how old the acting policy is, that nothing is lost, that time is won, what goes wrong."""

from __future__ import annotations

import threading

import pytest
import torch

from robolearn.configuration.parts.algorithms import SACConfig
from robolearn.envs.interface import Observation, Step
from robolearn.errors import TrainingError
from robolearn.rl.collecting.replay_collector import ReplayCollector
from tests.rl.test_off_policy import SMALL, make
from tests.rl.toys import Ledger, Steer

OVERLAP = SACConfig(random_steps=20, batch_size=16, critic=SMALL, collect_steps=2, utd=0.5, overlap=True)


def finish(collector: ReplayCollector) -> None:
    collector.settle()
    collector.driver.env.close()


def test_the_policy_that_acts_is_the_one_from_before_the_last_update() -> None:
    collector, learner = make(Ledger(2, max_steps=5), OVERLAP)
    acting, learning = [], []
    explore = learner.explore

    def recorded(window: Observation, generator: torch.Generator, network: torch.nn.Module) -> torch.Tensor:
        acting.append(torch.cat([p.flatten() for p in network.parameters()]))
        return explore(window, generator, network)

    learner.explore = recorded
    for _ in range(6):
        batches = collector.next()
        assert len(batches) == 2, "two steps of two environments, one update for two transitions"
        collector.settle()
        learning.append(learner.actor_optimiser.adam.vector.clone())
        learner.update(batches)
    # Round 0 is collected before anything is learned and round 1 beside the update from it.
    for i, weights in enumerate([learning[0], *learning]):
        for step in acting[2 * i : 2 * i + 2]:
            assert torch.equal(step, weights)
    assert not torch.equal(learning[0], learning[-1])
    finish(collector)


def test_every_step_enters_the_replay_once_and_in_order() -> None:
    """A ledger's observations count its steps, so successors of successors show whether anything is missing."""
    collector, learner = make(Ledger(2, max_steps=5), OVERLAP)
    for _ in range(8):
        learner.update(collector.next())
    assert len(collector.replay) == collector.env_steps == 20 + 8 * 4
    collector.settle()
    assert collector.driver.control_steps == collector.env_steps + 4, "one round is ahead"
    every = collector.replay.gather(torch.arange(len(collector.replay)))
    going = every.discounts > 0
    following = {k: v[2:] for k, v in every.obs.items()}  # two environments
    begins = following["state"][:, 0, 1] == 0
    for key, value in every.next_obs.items():
        same = (value[:-2] == following[key]).flatten(1).all(1)
        assert (same | begins | ~going[:-2]).all()
        assert same.any()
    ended = [*collector.episodes, *collector.driver.finished]
    assert all(e.length == (e.seed % 7 + 1 if e.seed % 7 + 1 in (2, 4) else 5) for e in ended)
    assert sum(e.length for e in ended) + int(collector.driver.lengths.sum()) == collector.driver.control_steps
    finish(collector)


class Meeting(Steer):
    """Once there is a `door`, a step ends only while somebody else waits there, too."""

    door: threading.Barrier | None = None

    def step(self, actions: torch.Tensor, mask: torch.Tensor | None = None) -> Step:
        if self.door is not None:
            self.door.wait()
        return super().step(actions, mask)


def test_steps_and_updates_take_place_at_the_same_time() -> None:
    env = Meeting(1, max_steps=50)
    collector, learner = make(env, SACConfig(random_steps=2, batch_size=4, critic=SMALL, overlap=True))
    learner.update(collector.next())
    collector.settle()
    env.door = threading.Barrier(2, timeout=20.0)
    for _ in range(5):
        collector.next()
        env.door.wait()  # learning: without a step beside it, nobody else comes
    finish(collector)


def test_what_goes_wrong_beside_an_update_is_told_at_the_next() -> None:
    class Broken(Ledger):
        def observe(self) -> Observation:
            obs = super().observe()
            return {"state": torch.where((self.age == 4)[:, None], torch.nan, obs["state"])}

    collector, _ = make(Broken(2, max_steps=9), SACConfig(random_steps=2, batch_size=4, critic=SMALL, overlap=True))
    for _ in range(2):
        collector.next()
    with pytest.raises(TrainingError, match=r"'state' of environment 0 at step 4 of the episode with seed 0"):
        collector.next()
    finish(collector)
