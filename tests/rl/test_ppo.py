"""PPO on toy environments: exact ratios, gradients against finite differences, values against closed forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from robolearn.configuration.parts.algorithms import CriticConfig, PPOConfig
from robolearn.configuration.parts.policy import (
    AutoregressiveHeadConfig,
    DeterministicHeadConfig,
    GaussianHeadConfig,
    HeadConfig,
    MixtureHeadConfig,
    MLPConfig,
    PolicyConfig,
)
from robolearn.errors import ConfigError, PolicyError, TrainingError
from robolearn.policies.build import build_policy
from robolearn.policies.policy import Policy
from robolearn.rl import ppo as module
from robolearn.rl.collecting.macro_steps import EpisodeDriver, SeedStream
from robolearn.rl.collecting.rollout_collector import RolloutCollector
from robolearn.rl.collecting.shown_windows import Shown, ShownWindows
from robolearn.rl.engine import minibatches
from robolearn.rl.engine.side_by_side import SideBySide
from robolearn.rl.networks import ValueNetwork
from robolearn.rl.ppo import PPO, cloning_loss
from robolearn.training import threads
from tests.rl.toys import BatchedToy, Constant, Ledger, Mortal, Steer

HEADS: dict[str, HeadConfig] = {
    "gaussian": GaussianHeadConfig(squash=False, state_dependent_std=False),
    "tanh": GaussianHeadConfig(),
    "mixture": MixtureHeadConfig(num_modes=3),
    "autoregressive": AutoregressiveHeadConfig(num_bins=8, width=16, num_layers=1, num_heads=2),
}


def make_policy(env: BatchedToy, head: HeadConfig = HEADS["gaussian"], seed: int = 0, **options: Any) -> Policy:
    torch.manual_seed(seed)
    config = PolicyConfig(head=head, backbone=MLPConfig(hidden_sizes=(16,), activation="tanh", dropout=0.3), **options)
    return build_policy(config, env.observation_spec, env.action_spec)


class InDouble(nn.Module):
    """Encoders deliver float32; finite differences want more."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double()


def make(
    env: BatchedToy, config: PPOConfig, *, seed: int = 0, reward: Any = "env", device: str = "cpu", **options: Any
):
    policy = make_policy(env, seed=seed, **options).to(device)
    driver = EpisodeDriver(
        env,
        seeds=SeedStream(0, 1000),
        gamma=config.gamma,
        obs_steps=policy.config.obs_steps,
        reward=reward,
        device=device,
    )
    generator = torch.Generator(device).manual_seed(seed)
    collector = RolloutCollector(driver, policy, config.num_steps, generator=generator)
    critic = ValueNetwork.beside(policy, CriticConfig(hidden_sizes=(16,))).to(device)
    ppo = PPO(policy, critic, config, seed=seed)
    return collector, ppo


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("options", [{}, {"obs_steps": 2, "pred_steps": 3, "exec_steps": 2}], ids=["single", "chunk"])
def test_ratio_is_one_on_the_first_minibatch(head: str, options: dict[str, int]) -> None:
    """Also with dropout in the network and with observation statistics that moved since the policy was built."""
    config = PPOConfig(num_steps=16, epochs=1, batch_size=0, normalise_obs=True, learning_rate=1e-2)
    collector, ppo = make(Ledger(4), config, head=HEADS[head], **options)
    ppo.update(collector.next())
    assert not ppo.policy.encoder.encoders["obs:state"].normaliser.is_identity
    for _ in range(2):
        metrics = ppo.update(collector.next())
        assert metrics["ratio"] == pytest.approx(1.0, abs=1e-5)
        assert metrics["kl"] == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("head", HEADS)
def test_policy_gradient_is_that_of_the_surrogate(head: str) -> None:
    """At ratio one the loss has the gradient of -mean(A log p); central differences in a random direction agree."""
    env = Ledger(4)
    config = PPOConfig(num_steps=8, epochs=1, batch_size=0)
    collector, ppo = make(env, config, head=HEADS[head])
    rollout = collector.next()
    for network in (ppo.policy, ppo.critic):
        network.double().encoder = nn.Sequential(network.encoder, InDouble())
    rows = ppo._with_targets(ppo._rows(rollout), rollout, rollout.rewards)
    rows = rows._replace(actions=rows.actions.double(), advantages=rows.advantages.double())
    with torch.no_grad():
        rows = rows._replace(log_probs=ppo.policy.distribution(rows.obs).log_prob(rows.actions, rows.executed))
    parameters = list(ppo.policy.parameters())
    loss = ppo.actor_loss(rows)[0]
    gradients = torch.autograd.grad(loss, parameters)
    if head != "autoregressive":  # whose one-step, one-dimensional action attends to nothing but itself
        assert all(g.abs().max() > 0 for g in gradients), "a parameter without gradient: something clamps it away"
    g = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=g, dtype=torch.float64) for p in parameters]
    predicted = sum((d * gr).sum() for d, gr in zip(direction, gradients)).item()

    def surrogate(step: float) -> float:
        with torch.no_grad():
            for p, d in zip(parameters, direction):
                p += step * d
            log_probs = ppo.policy.distribution(rows.obs).log_prob(rows.actions, rows.executed)
            for p, d in zip(parameters, direction):
                p -= step * d
            return -(rows.advantages * log_probs).mean().item()

    measured = (surrogate(1e-3) - surrogate(-1e-3)) / 2e-3  # heads compute densities in float32
    assert predicted == pytest.approx(measured, rel=5e-3, abs=1e-4)


@pytest.mark.parametrize(("env", "value"), [(Constant, 1 / (1 - 0.9)), (Mortal, 1.0)])
def test_truncation_bootstraps_and_termination_does_not(env: type[BatchedToy], value: float) -> None:
    config = PPOConfig(gamma=0.9, num_steps=16, epochs=10, batch_size=64, critic_warmup=1000, learning_rate=2e-2)
    collector, ppo = make(env(4, max_steps=5), config)
    for _ in range(25):
        ppo.update(collector.next())
    with torch.no_grad():
        values = ppo.critic({"state": torch.zeros(1, 1, 3)})
    assert values.item() == pytest.approx(value, rel=0.02)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("baseline", ["none", "mean"])
def test_without_a_critic_whole_returns_count_and_cut_off_ones_have_no_say(baseline: str, normalise: bool) -> None:
    """Rewards of one, episodes of 5 steps, rollouts of 8: the returns of the last three steps are not known."""
    options: dict[str, Any] = {"baseline": baseline, "normalise_advantages": normalise}
    config = PPOConfig(gamma=0.5, num_steps=8, gae_lambda=1.0, **options)
    collector, ppo = make(Constant(2, max_steps=5), config)
    rollout = collector.next()
    found = ppo._with_targets(ppo._rows(rollout), rollout, rollout.rewards).advantages.view(8, 2)
    returns = torch.tensor([2.0 * (1.0 - 0.5**left) for left in (5, 4, 3, 2, 1)])
    every = returns.repeat_interleave(2)
    expected = returns - (every.mean() if baseline == "mean" else 0.0)
    expected = expected / (every.std() + 1e-8) if normalise else expected
    torch.testing.assert_close(found[:5], expected[:, None].expand(5, 2))
    assert (found[5:] == 0.0).all()
    if baseline == "none":
        assert (found[:5] > 0.0).all(), "nothing is subtracted"


def test_rollouts_without_an_end_are_refused_where_there_is_no_critic() -> None:
    config = PPOConfig(num_steps=4, baseline="mean")
    collector, ppo = make(Constant(2, max_steps=50), config)
    with pytest.raises(TrainingError, match=r"no episode ended within a rollout of 4 steps.*raise num_steps"):
        ppo.update(collector.next())


def test_macro_step_values_discount_by_control_steps() -> None:
    """Chunks of two: the value of an everlasting reward of one is still 1 / (1 - gamma)."""
    config = PPOConfig(gamma=0.9, num_steps=16, epochs=10, batch_size=64, critic_warmup=1000, learning_rate=2e-2)
    collector, ppo = make(Constant(4, max_steps=5), config, pred_steps=2, exec_steps=2)
    for _ in range(25):
        ppo.update(collector.next())
    with torch.no_grad():
        assert ppo.critic({"state": torch.zeros(1, 1, 3)}).item() == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize(("batch_size", "counts"), [(8, [4, 4, 1]), (12, [1] * 6), (13, [1] * 6), (0, [1]), (99, [1])])
def test_minibatches_in_one_graph_take_the_same_steps(
    batch_size: int, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, vectors = PPOConfig(num_steps=10, epochs=2, batch_size=batch_size), []
    for unrolled in (1, minibatches.UNROLLED):
        monkeypatch.setattr(minibatches, "UNROLLED", unrolled)
        source, learner = make(Steer(7), config)
        rollout = source.next()
        learner.update(rollout)
        vectors.append((learner.actor_optimiser.adam.vector.clone(), learner.critic_optimiser.adam.vector.clone()))
    numbers = torch.arange(70.0)
    rows = learner._rows(rollout)._replace(advantages=numbers, values=numbers, returns=numbers)
    groups = minibatches.shuffled_minibatches(rows, 70, batch_size, learner.generator)
    assert [group.count for group in groups] == counts
    assert sum(group.count * group.size for group in groups) == 70
    assert torch.cat([group.rows.advantages for group in groups]).sort().values.equal(numbers), "each row once"
    for one, together in zip(*vectors):
        assert torch.equal(one, together)


def test_actor_and_critic_side_by_side_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_THREADS", 2)
    monkeypatch.setattr(module, "EVAL_ROWS", 16)  # so that the values are computed in several parts, by both threads
    found = []
    for enabled in (False, True):
        source, learner = make(Ledger(4), PPOConfig(num_steps=16, epochs=3, batch_size=8, entropy_coef=0.01))
        learner.side_by_side = SideBySide(enabled=enabled)
        metrics = [learner.update(source.next()) for _ in range(3)]
        found.append((learner.actor_optimiser.adam.vector, learner.critic_optimiser.adam.vector, metrics))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]


def test_recomputed_advantages_are_those_of_the_critic_as_it_is() -> None:
    """Two epochs with them are two updates of one epoch from the same rollout; without, they are not."""

    def weights(epochs: int, updates: int, *, recompute: bool) -> torch.Tensor:
        config = PPOConfig(num_steps=16, epochs=epochs, batch_size=32, recompute_advantages=recompute)
        collector, ppo = make(Ledger(4), config)
        rollout = collector.next()
        for _ in range(updates):
            ppo.update(rollout)
        return ppo.actor_optimiser.adam.vector.clone()

    twice = weights(1, 2, recompute=False)
    assert torch.equal(weights(2, 1, recompute=True), twice)
    assert not torch.allclose(weights(2, 1, recompute=False), twice)


def test_warmup_moves_the_critic_alone() -> None:
    collector, ppo = make(Ledger(2), PPOConfig(num_steps=8, epochs=2, critic_warmup=1))
    actor = [p.clone() for p in ppo.policy.parameters()]
    critic = [p.clone() for p in ppo.critic.parameters()]
    ppo.update(collector.next())
    assert all(map(torch.equal, actor, ppo.policy.parameters()))
    assert not any(map(torch.equal, critic, ppo.critic.parameters()))
    ppo.update(collector.next())
    assert not any(map(torch.equal, actor, ppo.policy.parameters()))


def test_prior_penalty_draws_back_to_the_start() -> None:
    """With no advantage to follow, a moved policy returns to the frozen one."""
    collector, ppo = make(
        Constant(4), PPOConfig(num_steps=64, epochs=5, prior_coef=1.0, learning_rate=3e-3, gae_lambda=0.0)
    )
    with torch.no_grad():
        ppo.policy.head.mean.bias += 0.5
    first = ppo.update(collector.next())["prior_kl"]
    for _ in range(40):
        last = ppo.update(collector.next())["prior_kl"]
    assert first > 0.1
    assert last < 0.1 * first


def test_target_kl_stops_an_update() -> None:
    config = PPOConfig(num_steps=32, epochs=200, batch_size=0, learning_rate=1e-3)
    kl = []
    for target in (None, 0.005):
        collector, ppo = make(Steer(4), replace(config, target_kl=target))
        rollout = collector.next()
        ppo.update(rollout)
        with torch.no_grad():
            log_ratio = ppo.policy.distribution(rollout.flat_obs()).log_prob(rollout.actions[:, :, :].flatten(0, 1))
            log_ratio -= rollout.log_probs.flatten()
        kl.append((log_ratio.exp() - 1 - log_ratio).mean().item())
    assert kl[1] < 0.015 < kl[0]


def test_step_size_follows_the_kl() -> None:
    """A step size far too large comes down until updates move as far as asked."""
    config = PPOConfig(num_steps=32, epochs=5, batch_size=64, learning_rate=2e-2)
    free, held = [], []
    for found, step_kl in ((free, None), (held, 0.01)):
        collector, ppo = make(Steer(8), replace(config, step_kl=step_kl))
        found += [ppo.update(collector.next()) for _ in range(30)]
    settled = [sum(m["kl"] for m in found[10:]) / 20 for found in (free, held)]
    assert settled[1] < 0.015 < 0.03 < settled[0], settled
    scale = 1.0
    for metrics in held:
        factor = 1 / 1.5 if metrics["kl"] > 0.015 else 1.5 if metrics["kl"] < 0.01 / 1.5 else 1.0
        scale = min(1.0, scale * factor)
        assert metrics["step_scale"] == pytest.approx(scale)
    ppo.update(collector.next())
    assert ppo.actor_optimiser.adam.learning_rate.item() == pytest.approx(2e-2 * scale)
    assert scale < 1.0
    assert ppo.critic_optimiser.adam.learning_rate.item() == pytest.approx(2e-2), "the critic's step is its own"


@pytest.mark.parametrize(
    "config",
    [
        PPOConfig(num_steps=32, epochs=10, batch_size=128, learning_rate=3e-3),
        pytest.param(
            PPOConfig(num_steps=32, epochs=10, batch_size=128, learning_rate=3e-3, surrogate="kl", target_kl=0.02),
            marks=pytest.mark.long,
        ),
        PPOConfig(num_steps=8, epochs=1, batch_size=0, learning_rate=1e-2, gae_lambda=1.0),
        pytest.param(
            PPOConfig(
                num_steps=40, epochs=1, batch_size=0, learning_rate=2e-2, gae_lambda=1.0, gamma=0.7, baseline="mean"
            ),
            marks=pytest.mark.long,
        ),
        pytest.param(
            PPOConfig(
                num_steps=32, epochs=10, batch_size=64, normalise_obs=True, normalise_returns=True, learning_rate=3e-3
            ),
            marks=pytest.mark.long,
        ),
    ],
    ids=["clip", "kl", "a2c", "reinforce", "normalised"],
)
def test_learns_to_steer(config: PPOConfig) -> None:
    """The distance kept from the goal halves, with every variant."""
    collector, ppo = make(Steer(8, max_steps=20), replace(config, gamma=min(config.gamma, 0.9)))
    first, last = [], []
    updates = 2400 // (config.num_steps * config.epochs) + 30
    for i in range(updates):
        rollout = collector.next()
        ppo.update(rollout)
        if i < 3:
            first.append(rollout.rewards.mean().item())
        last = [*last[-4:], rollout.rewards.mean().item()]
    assert sum(last) / len(last) > sum(first) / len(first) + 0.4, (first, last)


def test_two_runs_agree_and_resume_equals_no_interruption() -> None:
    config = PPOConfig(num_steps=12, epochs=2, batch_size=16, normalise_obs=True, normalise_returns=True, step_kl=1e-6)

    def run(updates: int, states: Any = None):
        collector, ppo = make(Ledger(3), config, head=MixtureHeadConfig(num_modes=2), exec_steps=2, pred_steps=2)
        if states is not None:
            collector.load_state_dict(states[0])
            ppo.load_state_dict(states[1])
            ppo.load_rank_state_dict(states[2])
        for _ in range(updates):
            ppo.update(collector.next())
        return collector, ppo

    whole, again = run(5), run(5)
    half = run(2)
    assert half[1].step_scale < 1.0
    resumed = run(3, (half[0].state_dict(), half[1].state_dict(), half[1].rank_state_dict()))
    for name, value in whole[1].policy.state_dict().items():
        assert torch.equal(value, again[1].policy.state_dict()[name]), name
        assert torch.equal(value, resumed[1].policy.state_dict()[name]), name
    for name, value in whole[1].critic.state_dict().items():
        assert torch.equal(value, resumed[1].critic.state_dict()[name]), name


def test_return_scale_is_the_deviation_of_the_running_return() -> None:
    collector, ppo = make(Ledger(2, max_steps=6), PPOConfig(num_steps=10, normalise_returns=True, gamma=0.8))
    assert ppo.return_scale is not None
    running, seen = torch.zeros(2, dtype=torch.float64), []
    for _ in range(3):
        rollout = collector.next()
        scaled = ppo.return_scale.apply(rollout)
        for t in range(10):
            running = rollout.rewards[t].double() + 0.8 * running
            seen.append(running)
            running = torch.where(rollout.terminated[t] | rollout.truncated[t], 0.0, running)
        std = torch.cat(seen).std(correction=0)
        torch.testing.assert_close(scaled, (rollout.rewards / std).float())


def test_refusals_say_what_to_do() -> None:
    env = Ledger(2)
    policy = make_policy(env, DeterministicHeadConfig())
    critic = ValueNetwork.beside(policy, CriticConfig())
    with pytest.raises(PolicyError, match=r"log-probability.*deterministic on mlp.*gaussian, mixture or"):
        PPO(policy, critic, PPOConfig())
    with pytest.raises(ConfigError, match="target_kl"):
        PPOConfig(surrogate="kl")
    with pytest.raises(ConfigError, match=r"step_kl must be positive .* received -1"):
        PPOConfig(step_kl=-1)
    collector, ppo = make(env, PPOConfig(num_steps=8))
    rollout = collector.next()
    rollout.rewards[2] = torch.inf
    with pytest.raises(TrainingError, match="not finite in update 0"):
        ppo.update(rollout)


def test_a_log_probability_of_many_dimensions_keeps_its_gradient() -> None:
    """A sharp chunk of 40 numbers has a log-density far above the 2 at which a public reference clamps it."""
    env = Constant(4, max_steps=50)
    config = PPOConfig(num_steps=8, epochs=1, batch_size=0)
    head = MixtureHeadConfig(num_modes=2, min_std=0.01)
    collector, ppo = make(env, config, head=head, pred_steps=40, exec_steps=40)
    with torch.no_grad():
        ppo.policy.head.linear.bias[-80:] = -6.0  # softplus of it adds little to the floor
    rollout = collector.next()
    rows = ppo._with_targets(ppo._rows(rollout), rollout, rollout.rewards)
    whole = rows.executed.sum(-1) > 28
    assert whole.any()
    rows = rows.map(lambda field: field[whole] if len(field) == len(whole) else field)
    assert rows.log_probs.min() > 2.0
    loss, metrics = ppo.actor_loss(rows._replace(advantages=torch.randn(len(rows.log_probs))))
    assert metrics["ratio"].item() == pytest.approx(1.0, abs=1e-4)
    gradient = torch.autograd.grad(loss, [ppo.policy.head.linear.bias])[0]
    logits, means, stds = gradient.split(ppo.policy.head.sizes)
    assert (means != 0.0).all()
    assert (stds != 0.0).all()
    assert (logits != 0.0).all()


def test_the_pull_to_the_start_decays() -> None:
    collector, ppo = make(Constant(2), PPOConfig(num_steps=8, prior_coef=0.5, prior_decay=0.8))
    weights = []
    for _ in range(3):
        ppo.update(collector.next())
        weights.append(ppo.actor_loss.prior_coef.item())
    assert weights == pytest.approx([0.5, 0.4, 0.32])
    with pytest.raises(ConfigError, match=r"prior_decay must lie in \[0, 1\], received 1.5"):
        PPOConfig(prior_decay=1.5)


@pytest.mark.parametrize("options", [{}, {"obs_steps": 2, "pred_steps": 3, "exec_steps": 2}], ids=["single", "chunk"])
def test_a_cloning_loss_draws_to_the_demonstrations(options: dict[str, int]) -> None:
    """Rewards that never differ teach nothing, demonstrations of 0.6 everywhere do; what is not valid has no say."""
    collector, ppo = make(Constant(4), PPOConfig(num_steps=16, batch_size=32, learning_rate=1e-2), **options)
    to, tp = ppo.policy.config.obs_steps, ppo.policy.config.pred_steps
    actions, valid = torch.full((50, tp, 1), 0.6), torch.ones(50, tp, dtype=torch.bool)
    actions[:25, -1], valid[:25, -1] = -50.0, False
    if tp == 1:
        actions, valid = actions[25:], valid[25:]
    windows = Shown({"state": torch.randn(len(actions), to, 3)}, actions, valid)
    direct = -ppo.policy.distribution(windows.obs).log_prob(windows.actions, windows.valid) / windows.valid.sum(-1)
    torch.testing.assert_close(cloning_loss(ppo.policy, windows), direct.mean())
    ppo.shown = ShownWindows(windows, 1.0)
    for _ in range(6):
        metrics = ppo.update(collector.next())
    assert "cloning_loss" in metrics
    rows = ppo.policy.distribution({"state": torch.zeros(1, to, 3)}).mode()
    torch.testing.assert_close(rows, torch.full_like(rows, 0.6), atol=0.15, rtol=0.0)
