"""The algorithms learn what they are known to learn; minutes each, part of CI but not of the fast tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from robolearn.configuration.parts.algorithms import PPOConfig, SACConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.rl import RLConfig
from robolearn.configuration.tree import load
from robolearn.rl.from_scratch import train_rl
from robolearn.training.metrics import read_metrics

pytestmark = pytest.mark.learning
SHIPPED = Path(__file__).parents[2] / "configs" / "rl"
PPO = PPOConfig(num_steps=256, anneal=True, normalise_obs=True, normalise_returns=True)
SAC = SACConfig(random_steps=1000, learning_rate=1e-3)
RUNS = {
    "inverted_pendulum": (
        RLConfig(task=TaskConfig(id="gym:InvertedPendulum-v5"), algorithm=PPO, num_envs=8, env_steps=150_000),
        1000.0,
    ),
    "pendulum": (RLConfig(task=TaskConfig(id="gym:Pendulum-v1"), algorithm=SAC, env_steps=12_000), -200.0),
    "cartpole": (load(RLConfig, SHIPPED / "dqn_cartpole.yaml"), 475.0),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_classic_is_solved(name: str, tmp_path: Path) -> None:
    """In two evaluations at least, of ten episodes on fixed seeds each, so that luck is not enough."""
    config, goal = RUNS[name]
    result = train_rl(
        replace(config, output=str(tmp_path), evaluate_every=config.env_steps // 8, eval_episodes=10, tensorboard=False)
    )
    returns = [row["eval_return"] for row in read_metrics(result.run_dir) if "eval_return" in row]
    assert sorted(returns)[-2] >= goal, returns


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_reach_is_learned_from_scratch(algorithm: str, tmp_path: Path) -> None:
    """With the shipped settings, the last policy solves 95 of 100 episodes that it never saw."""
    shipped = load(RLConfig, SHIPPED / f"{algorithm}_reach.yaml")
    result = train_rl(replace(shipped, output=str(tmp_path), eval_episodes=100, evaluate_every=0, tensorboard=False))
    assert result.metrics["eval_success"] >= 0.95
