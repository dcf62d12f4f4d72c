"""The honest critic: what is asked and what came of it, against sums by hand; the least of random subsets."""

from __future__ import annotations

import itertools

import pytest
import torch

from robolearn.configuration.parts.algorithms import QConfig
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.deploy.runner import PolicyRunner
from robolearn.evaluation.evaluate import evaluate
from robolearn.policies.build import build_policy
from robolearn.rl.critic_check import CriticCheck, least_of_random_subset
from robolearn.rl.networks import QEnsemble
from tests.rl.toys import Ledger

GAMMA = 0.9
SEEDS = [3, 11, 8, 5, 17]


def test_the_least_of_a_random_subset_is_the_mean_over_all_subsets() -> None:
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    for subset in range(1, 7):
        every = [values[:, list(chosen)].amin(-1) for chosen in itertools.combinations(range(6), subset)]
        torch.testing.assert_close(least_of_random_subset(values, subset), torch.stack(every).mean(0))


@pytest.mark.parametrize("reward", ["env", "success"])
def test_predicted_and_realised_returns(reward: str) -> None:
    """A ledger's reward is its step, and it is solved after seed % 7 + 1 steps where that is even."""
    torch.manual_seed(0)
    env = Ledger(2, max_steps=6)
    config = PolicyConfig(
        head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,)), obs_steps=2, pred_steps=3, exec_steps=2
    )
    policy = build_policy(config, env.observation_spec, env.action_spec).eval()
    critic = QEnsemble.beside(policy, QConfig(hidden_sizes=(8,), members=3, dropout=0.5)).train()
    check = CriticCheck(critic=critic, obs_steps=2, subset=2, gamma=GAMMA, reward=reward)  # type: ignore[arg-type]
    result, report = check.evaluate(policy, env, SEEDS)
    assert result.episodes == evaluate(policy, env, SEEDS).episodes, "watching changes nothing"
    assert critic.training
    critic.eval()
    for i, seed in enumerate(SEEDS):
        length = seed % 7 + 1
        if reward == "success":
            expected = GAMMA ** (length - 1) if length % 2 == 0 else 0.0
        else:
            steps = length if length % 2 == 0 else 6
            expected = sum(GAMMA**t * (t + 1) for t in range(steps))
        assert report.realised[i] == pytest.approx(expected, rel=1e-5)
        window = {"state": torch.tensor([[[float(seed), 0.0, 0.0]] * 2])}
        with torch.no_grad():
            values = critic(window, policy.act(window, deterministic=True))[:, 0]
        assert report.one[i] == pytest.approx(values[0].item(), rel=1e-4)
        assert report.least[i] == pytest.approx(least_of_random_subset(values, 2).item(), rel=1e-4)
    metrics = report.metrics()
    assert metrics["critic_error_least"] == pytest.approx(
        sum(report.least) / len(SEEDS) - sum(report.realised) / len(SEEDS)
    )


def test_runner_is_asked_as_ever() -> None:
    """Of a chunk the executed first action and the plan behind it are the chunk."""
    torch.manual_seed(0)
    env = Ledger(1)
    config = PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,)), pred_steps=3)
    policy = build_policy(config, env.observation_spec, env.action_spec).eval()
    runner = PolicyRunner(policy, 1)
    runner.reset([0])
    obs = {"state": torch.ones(1, 3)}
    action = runner.act(obs)
    chunk = policy.act({"state": torch.ones(1, 1, 3)}, deterministic=True)
    torch.testing.assert_close(torch.cat([action, runner.plan(0)])[None], chunk)
