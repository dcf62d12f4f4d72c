"""DPPO: a linear-Gaussian chain worked out by hand, and real diffusion and flow heads on a toy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.algorithms import CriticConfig
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import (
    DenoisingMLPConfig,
    DiffusionHeadConfig,
    FlowHeadConfig,
    HeadConfig,
    MLPConfig,
    PolicyConfig,
)
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.parts.ways import ChainPPOConfig
from robolearn.envs.make import make
from robolearn.errors import ConfigError, PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.chain_policy import ChainDistribution, ChainPolicy
from robolearn.policies.folder import load_policy, save_policy
from robolearn.policies.heads.chain import ChainHead
from robolearn.policies.noise import BatchNoise, FixedNoise
from robolearn.policies.policy import Policy
from robolearn.rl.finetune import finetune
from robolearn.rl.learner import Learner
from robolearn.rl.ppo import Minibatch
from robolearn.rl.ways.chain_ppo import ChainActorLoss, prepare, with_early_steps
from robolearn.rl.ways.practice import Practice
from robolearn.specs import Batch
from tests.envs.toy import POINT_REACH
from tests.rl.toys import Ledger

NETWORK = DenoisingMLPConfig(width=16, num_blocks=1, time_size=8)
HEADS: dict[str, HeadConfig] = {
    "diffusion": DiffusionHeadConfig(network=NETWORK, inference_steps=5, clip=0.0),
    "ancestral": DiffusionHeadConfig(network=NETWORK, inference_steps=5, solver="ddpm", prediction="sample"),
    "flow": FlowHeadConfig(network=NETWORK, inference_steps=5),
    "midpoint": FlowHeadConfig(network=NETWORK, inference_steps=5, solver="midpoint"),
}


class LinearHead(ChainHead):
    """x_{k+1} = 0.8 x_k + bias + 0.3 noise, whatever is seen, for five steps."""

    def __init__(self, pred_steps: int = 2, action_size: int = 3) -> None:
        nn.Module.__init__(self)
        self.pred_steps, self.action_size, self.early_steps, self.stds = pred_steps, action_size, 0, (0.3,) * 5
        self.bias = nn.Parameter(torch.tensor(0.1))

    def _conditions(self, features: Tensor) -> Tensor:
        return features

    def _means(self, x: Tensor, k: int, conditions: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return 0.8 * x + self.bias

    def _transition_mean(self, features: Tensor, x: Tensor, step: Tensor) -> Tensor:
        return 0.8 * x + self.bias

    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        raise NotImplementedError


def test_log_probs_are_the_mean_over_what_was_executed() -> None:
    head, first = LinearHead(), 2
    distribution = ChainDistribution(head, torch.zeros(4, 1), first, 0.5)
    chain = distribution.sample(BatchNoise(4, "cpu", torch.Generator().manual_seed(0))).detach()
    assert chain.shape == (4, 4, 2, 3)
    executed = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    found = distribution.log_prob(chain, executed).detach().numpy()
    x = chain.numpy()
    expected = stats.norm.logpdf(x[:, 1:], 0.8 * x[:, :-1] + 0.1, 0.5)  # (B, K', Tp, A), the floor as deviation
    both, one = expected.mean((2, 3)), expected[:, :, 0].mean(-1)
    np.testing.assert_allclose(found, np.where(executed[:, 1:].numpy(), both, one), rtol=1e-5)


def test_gradient_is_that_of_the_expected_reward() -> None:
    """Reward -(x_S - 1)^2 of the mean action: with m_S = b sum_i 0.8^i, dE[r]/db = -2 (m_S - 1) sum_i 0.8^i."""
    head, rows = LinearHead(1, 1), 400_000
    policy = nn.Module()
    policy.head, policy.config = head, SimpleNamespace()  # type: ignore[assignment]
    explorer = ChainPolicy(policy, min_std=0.01)  # type: ignore[arg-type]
    explorer.distribution = lambda obs: ChainDistribution(head, obs["state"], 0, 0.01)  # type: ignore[method-assign]
    with torch.no_grad():
        distribution = explorer.distribution({"state": torch.zeros(rows, 1)})
        chain = distribution.sample(BatchNoise(rows, "cpu", torch.Generator().manual_seed(0)))
        executed = torch.ones(rows, 1, dtype=torch.bool)
        log_probs = distribution.log_prob(chain, executed)
        rewards = -(chain[:, -1, 0, 0] - 1.0).square()
    loss = ChainActorLoss(explorer, ChainPPOConfig(denoising_gamma=1.0))
    empty = torch.zeros(rows)
    batch = Minibatch(
        {"state": torch.zeros(rows, 1)}, chain, executed, log_probs, log_probs, rewards - rewards.mean(), empty, empty
    )
    (found,) = torch.autograd.grad(loss(batch)[0], [head.bias])
    total = sum(0.8**i for i in range(5))
    expected = -2.0 * (0.1 * total - 1.0) * total
    assert -5.0 * found.item() == pytest.approx(expected, rel=0.05), "the loss is the mean over the five steps"


def test_clips_and_shares_of_the_steps() -> None:
    policy = nn.Module()
    policy.head, policy.config = LinearHead(), SimpleNamespace()  # type: ignore[assignment]
    config = ChainPPOConfig(clip=0.01, first_clip=0.0001, denoising_gamma=0.5)
    loss = ChainActorLoss(ChainPolicy(policy, min_std=0.1), config)  # type: ignore[arg-type]
    torch.testing.assert_close(loss.clip, torch.tensor([1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2]))
    shares = loss.credit(torch.tensor([2.0, -4.0]))
    torch.testing.assert_close(shares[0], 2.0 * 0.5 ** torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]))
    torch.testing.assert_close(shares[1], -2.0 * shares[0])


def make_policy(env: Ledger, head: HeadConfig, **options: Any) -> Policy:
    torch.manual_seed(0)
    config = PolicyConfig(head=head, backbone=MLPConfig(hidden_sizes=(16,), dropout=0.3), **options)
    return build_policy(config, env.observation_spec, env.action_spec).eval()


def make_learner(head: str, trained_steps: int | None = None, **method: Any) -> tuple[Learner, Policy]:
    env = Ledger(4)
    policy = make_policy(env, HEADS[head], pred_steps=3, exec_steps=2)
    config = FinetuneConfig(policy="p", reward="env", method=ChainPPOConfig(trained_steps=trained_steps, **method))
    assert isinstance(config.method, ChainPPOConfig)
    return prepare(config, config.method, policy, Practice(env=env), torch.device("cpu")), policy


@pytest.mark.parametrize("trained_steps", [None, 2])
@pytest.mark.parametrize("head", HEADS)
def test_ratio_is_one_on_the_first_minibatch(head: str, trained_steps: int | None) -> None:
    learner, _ = make_learner(head, trained_steps, num_steps=16, epochs=1, batch_size=0, critic_warmup=0)
    for _ in range(2):
        metrics = learner.algorithm.update(learner.source.next())
        assert metrics["ratio"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["kl"] == pytest.approx(0.0, abs=1e-8)
        assert metrics["grad_norm"] > 0.0


@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_every_trained_parameter(head: str) -> None:
    learner, _ = make_learner(head, num_steps=16)
    rollout, ppo = learner.source.next(), learner.algorithm
    rows = ppo._with_targets(ppo._rows(rollout), rollout, rollout.rewards)
    gradients = torch.autograd.grad(ppo.actor_loss(rows)[0], list(ppo.policy.parameters()))
    assert all(g.abs().max() > 0 for g in gradients), "a parameter without gradient: something clamps it away"


@pytest.mark.parametrize("head", HEADS)
def test_early_steps_stay_and_evaluation_takes_the_trained_ones(head: str, tmp_path: Path) -> None:
    learner, start = make_learner(head, 2, num_steps=8, batch_size=16, learning_rate=1e-2, clip=0.5, critic_warmup=0)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    obs = {"state": torch.randn(3, 1, 3)}
    tuned = learner.actor
    assert isinstance(tuned, Policy)
    torch.testing.assert_close(tuned.act(obs, deterministic=True), start.act(obs, deterministic=True))
    for _ in range(2):
        learner.algorithm.update(learner.source.next())
    save_policy(tuned, tmp_path / "tuned")
    tuned = load_policy(tmp_path / "tuned")
    assert isinstance(tuned.head, ChainHead)
    assert isinstance(start.head, ChainHead)
    after = tuned.state_dict()
    for name, value in before.items():
        moved = not torch.equal(after[name], value)
        assert moved == name.startswith("head.network."), name
        if name.startswith("head.network."):
            assert torch.equal(after[name.replace("network", "early_network", 1)], value), name
    # By hand: three steps of the network that was cloned, two of the one that was trained.
    with torch.no_grad():
        features = start.features(obs)
        early = start.head.sample_chain(features, FixedNoise(3, "cpu"))
        full = tuned.head.sample_chain(features, FixedNoise(3, "cpu"))
        torch.testing.assert_close(full[:, :4], early[:, :4])
        if max(start.head.stds) == 0.0:  # else the steps' noise has a part
            late = early[:, 3]
            for k in (3, 4):
                late, _ = tuned.head.transition(features, late, torch.full((3,), k), min_std=0.1)
            torch.testing.assert_close(tuned.act(obs, deterministic=True), late.clamp(-1, 1), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(full[:, -1], early[:, -1]), "the last steps are the trained ones"


def test_a_fine_tuned_policy_is_fine_tuned_again() -> None:
    env = Ledger(2)
    once = with_early_steps(make_policy(env, HEADS["flow"]), 2)
    assert with_early_steps(once, None) is once
    with pytest.raises(ConfigError, match="trained_steps must lie between 1 and the 2 steps"):
        with_early_steps(once, 4)
    with pytest.raises(ConfigError, match=r"first 3 steps were set apart.*trained_steps 2"):
        with_early_steps(once, 1)


def test_refusals() -> None:
    env = Ledger(2)
    mixture = make_policy(env, replace(PolicyConfig().head))
    with pytest.raises(PolicyError, match=r"method chain_ppo trains the steps of diffusion and flow heads.*method ppo"):
        with_early_steps(mixture, None)
    fast = DiffusionHeadConfig(network=NETWORK, inference_steps=5, solver="dpm", clip=0.0)
    with pytest.raises(PolicyError, match="multistep solver do not have"):
        with_early_steps(make_policy(env, fast), None)
    with pytest.raises(ConfigError, match=r"trained_steps must lie between 1 and the 5 steps .*received 6"):
        with_early_steps(make_policy(env, HEADS["flow"]), 6)
    with pytest.raises(ConfigError, match="steps without noise have no density"):
        ChainPPOConfig(min_std=0.0)
    with pytest.raises(ConfigError, match=r"first_clip must lie in \(0, clip 0.01\]"):
        ChainPPOConfig(first_clip=0.1)
    with pytest.raises(ConfigError, match="chain_ppo has no entropy_coef"):
        ChainPPOConfig(entropy_coef=0.1)


TASK = TaskConfig(id=POINT_REACH, worker_kind="sync", kwargs={"tolerance": 0.15})
WIDER = DenoisingMLPConfig(width=32, num_blocks=1, time_size=8)
LEARNERS: dict[str, tuple[HeadConfig, int, float]] = {
    "epsilon": (DiffusionHeadConfig(network=WIDER, inference_steps=5), 40, 1e-3),
    "ancestral": (
        DiffusionHeadConfig(network=WIDER, inference_steps=5, solver="ddpm", prediction="sample"),
        40,
        1e-3,
    ),
    "flow": (FlowHeadConfig(network=WIDER, inference_steps=5), 12, 1e-3),
}
"""Head, gradient steps of cloning, learning rate of fine-tuning."""


def half_taught(folder: Path, head: HeadConfig, steps: int) -> Path:
    """A chain that has been told roughly which way to go, and does not get everywhere."""
    torch.manual_seed(0)
    with make(TASK) as env:
        config = PolicyConfig(head=head, backbone=MLPConfig(hidden_sizes=(32,)), obs_normalisation="none")
        policy = build_policy(config, env.observation_spec, env.action_spec)
    optimiser = torch.optim.Adam(policy.parameters(), lr=3e-3)
    rows = torch.arange(256)
    for _ in range(steps):
        obs = torch.rand(256, 1, 4) * 2 - 1
        batch = Batch(
            obs={"state": obs},
            actions=(obs[..., 2:] - obs[..., :2]).clamp(-1, 1),
            valid=torch.ones(256, 1, dtype=torch.bool),
            weights=torch.ones(256),
            episodes=rows,
            steps=rows,
        )
        loss, _ = policy.loss(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_policy(policy, folder)
    return folder


@pytest.mark.learning
@pytest.mark.parametrize("name", LEARNERS)
def test_learns_from_success_alone(name: str, tmp_path: Path) -> None:
    """On 100 seeds that nothing was picked on, as the verb itself judges it."""
    head, taught, learning_rate = LEARNERS[name]
    method = ChainPPOConfig(
        epochs=5,
        batch_size=512,
        learning_rate=learning_rate,
        critic_learning_rate=None,
        clip=0.2,
        first_clip=0.02,
        critic_warmup=1,
        target_kl=None,
        min_std=0.2,
        critic=CriticConfig(hidden_sizes=(32,)),
    )
    config = FinetuneConfig(
        policy=str(half_taught(tmp_path / "start", head, taught)),
        task=TASK,
        num_envs=32,
        max_steps=30,
        eval_episodes=40,
        method=method,
        loop=LoopConfig(total_steps=40, log_every=1, evaluate_every=10, checkpoint_every=0, tensorboard=False),
    )
    result = finetune(config, tmp_path / "run")
    assert result.test is not None
    assert result.test.difference.estimate > 0.2
    assert result.test.p_value < 0.001
