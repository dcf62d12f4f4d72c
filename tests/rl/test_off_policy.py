"""SAC, TD3 and DQN: targets by hand, fixed points in closed form and by value iteration, gradients that stay apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from robolearn.configuration.parts.algorithms import DQNConfig, QConfig, SACConfig, TD3Config
from robolearn.configuration.parts.policy import GaussianHeadConfig, MixtureHeadConfig, MLPConfig, PolicyConfig
from robolearn.errors import ConfigError, PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.encoders import LowDimEncoder
from robolearn.policies.normaliser import STILL
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.macro_steps import EpisodeDriver, SeedStream
from robolearn.rl.collecting.replay_buffer import ReplayBatch
from robolearn.rl.collecting.replay_collector import ReplayCollector
from robolearn.rl.dqn import DQN, values_of
from robolearn.rl.networks import QEnsemble
from robolearn.rl.off_policy import least_of_subset
from robolearn.rl.running_statistics import ObservationStatistics
from robolearn.rl.sac import SAC
from robolearn.rl.td3 import TD3
from robolearn.training import precision
from robolearn.training.precision import autocast
from tests.rl.toys import BatchedToy, Constant, Ledger, Mortal, Steer, value_policy

SMALL = QConfig(hidden_sizes=(16,))


def make_policy(env: BatchedToy, head: Any = None, seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    config = PolicyConfig(head=head or GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(16,)))
    return build_policy(config, env.observation_spec, env.action_spec)


def make(
    env: BatchedToy, config: SACConfig | TD3Config, seed: int = 0, device: str = "cpu"
) -> tuple[ReplayCollector, Any]:
    policy = make_policy(env, seed=seed).to(device)
    critic = QEnsemble.beside(policy, config.critic).to(device)
    learner = (SAC if isinstance(config, SACConfig) else TD3)(policy, critic, config, seed=seed)  # type: ignore[arg-type]
    driver = EpisodeDriver(env, seeds=SeedStream(0, 1000), gamma=config.gamma, device=device)
    return ReplayCollector(driver, learner, config, seed=seed), learner


def some_batch(B: int = 32) -> ReplayBatch:
    g = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(shape, generator=g)  # noqa: E731
    discounts = 0.9 * (torch.rand(B, generator=g) > 0.3)
    return ReplayBatch({"state": draw(B, 1, 3)}, draw(B, 1, 1).tanh(), draw(B), discounts, {"state": draw(B, 1, 3)})


def test_ensemble_members_are_separate_networks() -> None:
    """Against each member written out by itself, and no gradient of one reaches another."""
    env = Ledger(1)
    critic = QEnsemble.beside(make_policy(env), QConfig(hidden_sizes=(8, 8), members=3, layer_norm=True))
    batch = some_batch()
    values = critic(batch.obs, batch.actions)
    x = torch.cat([batch.obs["state"][:, 0], batch.actions[:, 0]], -1)
    for m in range(3):
        y = x
        for layer in critic.hidden:
            y = torch.nn.functional.layer_norm(y @ layer.weight[m] + layer.bias[m], (8,))
            y = torch.relu(y)
        torch.testing.assert_close(values[m], (y @ critic.last.weight[m] + critic.last.bias[m])[:, 0])
    gradient = torch.autograd.grad(values[1].sum(), critic.hidden[0].weight)[0]
    assert gradient[1].abs().sum() > 0
    assert gradient[0].abs().sum() == gradient[2].abs().sum() == 0


def test_sac_targets_by_hand() -> None:
    _, sac = make(Ledger(1), SACConfig(critic=SMALL, temperature=0.3))
    batch = some_batch()

    class Zero:
        def normal(self, *shape: int) -> torch.Tensor:
            return torch.zeros(32, *shape)

    with torch.no_grad():
        target = sac.targets(batch, torch.tensor([0.3]), Zero())
        distribution = sac.policy.distribution(batch.next_obs)
        action = distribution.mode()
        q = sac.target(batch.next_obs, action)
        value = torch.minimum(q[0], q[1]) - 0.3 * distribution.log_prob(action)
    torch.testing.assert_close(target, batch.rewards + batch.discounts * value, rtol=1e-4, atol=1e-4)
    assert torch.equal(target[batch.discounts == 0], batch.rewards[batch.discounts == 0])


def test_the_actors_step_leaves_the_critics_alone_and_climbs_their_value() -> None:
    _, sac = make(Ledger(1), SACConfig(critic=SMALL, temperature=1e-4, learn_temperature=False, learning_rate=1e-2))
    batch = some_batch(256)

    def value() -> float:
        with torch.no_grad():
            return sac.critic(batch.obs, sac.policy.distribution(batch.obs).mode()).amin(0).mean().item()

    before, weights = value(), sac.critic_optimiser.adam.vector.clone()
    for _ in range(60):
        sac.actor_step(batch)
    assert torch.equal(weights, sac.critic_optimiser.adam.vector)
    assert value() > before


def test_temperature_moves_the_entropy_to_its_target() -> None:
    """From above (the policy begins wide) to half a nat under zero, while the reward pulls further down."""
    config = SACConfig(
        critic=SMALL, random_steps=200, learning_rate=5e-3, target_entropy=-0.5, gamma=0.5, batch_size=64
    )
    collector, sac = make(Steer(4), config)
    entropy = [-sac.update(collector.next()[:1])["log_prob"].item() for _ in range(600)]
    assert entropy[0] > 0.2
    assert sum(entropy[-50:]) / 50 == pytest.approx(-0.5, abs=0.2)


@pytest.mark.parametrize("algorithm", [SACConfig, TD3Config])
@pytest.mark.parametrize(("env", "value"), [(Constant, 5.0), (Mortal, 1.0)])
def test_fixed_points(algorithm: Any, env: type[BatchedToy], value: float) -> None:
    """Reward one for ever is worth 1/(1-gamma), also through truncations every five steps; a terminal step, one."""
    extra = {"temperature": 1e-6, "learn_temperature": False} if algorithm is SACConfig else {}
    config = algorithm(
        gamma=0.8, critic=SMALL, random_steps=200, batch_size=64, learning_rate=5e-3, tau=0.05, n_step=3, **extra
    )
    collector, learner = make(env(4, max_steps=5), config)
    for _ in range(400):
        learner.update(collector.next()[:1])
    with torch.no_grad():
        state = {"state": torch.zeros(1, 1, 3)}
        values = learner.critic(state, learner.policy.distribution(state).mode())
    torch.testing.assert_close(values, torch.full_like(values, value), rtol=0.05, atol=0.0)


def test_dqn_finds_what_value_iteration_finds() -> None:
    """A random MDP of five states and three actions, all transitions known; some of them end the episode."""
    g = torch.Generator().manual_seed(0)
    successor = torch.randint(5, (5, 3), generator=g)
    reward, ends = torch.rand(5, 3, generator=g), torch.rand(5, 3, generator=g) < 0.2
    q = torch.zeros(5, 3)
    for _ in range(300):
        q = reward + 0.8 * ~ends * q.amax(1)[successor]
    state, action = torch.arange(5).repeat_interleave(3), torch.arange(3).repeat(5)
    one_hot = torch.eye(5)[:, None]
    batch = ReplayBatch(
        {"state": one_hot[state]},
        action[:, None],
        reward.flatten(),
        0.8 * ~ends.flatten(),
        {"state": one_hot[successor.flatten()]},
    )
    torch.manual_seed(0)
    dqn = DQN(value_policy(5, 3, hidden=32), DQNConfig(learning_rate=3e-3, tau=0.05))
    for _ in range(1500):
        dqn.update([batch])
    with torch.no_grad():
        torch.testing.assert_close(values_of(dqn.policy, {"state": one_hot}), q, rtol=0.02, atol=0.02)


def test_subset_takes_random_members() -> None:
    values = torch.arange(10.0)[:, None].expand(10, 4)
    draws = torch.stack([least_of_subset(values, 2, None) for _ in range(300)])
    assert set(draws[:, 0].tolist()) == set(range(9))
    assert torch.equal(least_of_subset(values, 10, None), torch.zeros(4))


def test_update_to_data_ratio_is_kept() -> None:
    for utd, expected in ((0.25, 25), (1.0, 100), (3.0, 300)):
        collector, _ = make(Ledger(2), SACConfig(critic=SMALL, random_steps=10, utd=utd, batch_size=4))
        assert sum(len(collector.next()) for _ in range(50)) == expected


def test_two_runs_agree_and_resume_equals_no_interruption() -> None:
    config = SACConfig(critic=SMALL, random_steps=20, batch_size=16, capacity=50, n_step=3, utd=0.5)

    def run(updates: int, states: Any = None) -> tuple[ReplayCollector, Any]:
        collector, sac = make(Ledger(2, max_steps=6), config)
        if states is not None:
            collector.load_state_dict(states[0])
            sac.load_state_dict(states[1])
            sac.load_rank_state_dict(states[2])
        for _ in range(updates):
            sac.update(collector.next())
        return collector, sac

    whole, again, half = run(60), run(60), run(35)
    resumed = run(25, (half[0].state_dict(), half[1].state_dict(), half[1].rank_state_dict()))
    for other in (again, resumed):
        assert torch.equal(whole[1].actor_optimiser.adam.vector, other[1].actor_optimiser.adam.vector)
        assert torch.equal(whole[1].critic_optimiser.adam.vector, other[1].critic_optimiser.adam.vector)
        assert torch.equal(whole[1].target_update.vector, other[1].target_update.vector)


@pytest.mark.parametrize("algorithm", [SACConfig, TD3Config])
def test_bfloat16_stays_close(algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "CPU_HAS_BFLOAT16", True)
    results = []
    for bf16 in (False, True):
        _, learner = make(Ledger(1), algorithm(critic=SMALL, bf16=bf16))
        for _ in range(4):
            metrics = learner.update([some_batch(64)])
        assert all(p.dtype == torch.float32 for p in learner.policy.parameters())
        results.append(metrics["critic_loss"].item())
    assert results[1] == pytest.approx(results[0], rel=0.05)
    assert results[1] != results[0]


def test_large_values_keep_their_small_differences_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Around 300, where bfloat16 itself steps by 2, values differ as they do in float32."""
    monkeypatch.setattr(precision, "CPU_HAS_BFLOAT16", True)
    _, learner = make(Ledger(1), SACConfig(critic=SMALL, bf16=True))
    batch, critic = some_batch(64), learner.critic
    with torch.no_grad():
        plain = critic(batch.obs, batch.actions)
        critic.last.bias += 300.0
        with autocast(torch.device("cpu"), learner.config.bf16):
            shifted = critic(batch.obs, batch.actions)
    assert plain.std() < 1.0
    torch.testing.assert_close(shifted - 300.0, plain, rtol=0.0, atol=0.05)


def test_sac_learns_to_steer() -> None:
    config = SACConfig(
        critic=QConfig(hidden_sizes=(32,)), random_steps=200, batch_size=64, learning_rate=3e-3, gamma=0.9
    )
    collector, sac = make(Steer(4, max_steps=20), config)
    for _ in range(150):
        sac.update(collector.next()[:2])
    x = torch.linspace(-1, 1, 41)
    state = torch.stack([x, x * x, torch.ones_like(x)], -1)[:, None]
    with torch.no_grad():
        actions = sac.policy.distribution({"state": state}).mode()[:, 0, 0]
    far = x.abs() > 0.3
    assert (torch.sign(actions[far]) == -torch.sign(x[far])).all()


@pytest.mark.parametrize("algorithm", [SACConfig, TD3Config])
def test_observations_are_scaled_by_the_random_steps_alone(algorithm: Any) -> None:
    """Every network alike, targets included; later steps leave the scales alone; what did not vary keeps its scale."""
    config = algorithm(critic=SMALL, random_steps=200, batch_size=16, normalise_obs=True)
    collector, learner = make(Steer(4, max_steps=20), config)
    names = [name for name in ("policy", "critic", "target", "target_policy") if hasattr(learner, name)]
    collector.statistics = ObservationStatistics(*(getattr(learner, name) for name in names))
    learner.update(collector.next())
    seen = collector.replay.gather(torch.arange(200)).obs["state"][:, 0]
    expected = seen.std(0, unbiased=False)
    for _ in range(2):
        for name in names:
            encoders = [m for m in getattr(learner, name).modules() if isinstance(m, LowDimEncoder)]
            assert len(encoders) == 1
            scale = encoders[0].normaliser.scale
            torch.testing.assert_close(scale[:2], expected[:2], rtol=2e-2, atol=1e-6, msg=name)
            assert scale[2] == STILL, "the third entry is constant"
        for _ in range(20):
            learner.update(collector.next())
    with pytest.raises(ConfigError, match=r"needs at least 100, received random_steps 10"):
        algorithm(normalise_obs=True, random_steps=10)


def test_td3_trains_what_the_mode_depends_on_and_its_copies_follow() -> None:
    """The deviation of a tanh-Gaussian stays as it was; a frozen parameter stays too, in the copies as well."""
    policy = make_policy(Ledger(1))
    policy.backbone.requires_grad_(False)
    td3 = TD3(policy, QEnsemble.beside(policy, SMALL), TD3Config(critic=SMALL, tau=0.25))
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    td3.update([some_batch(), some_batch()])
    moved = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.mean.weight", "head.mean.bias"}
    for name, value in td3.target_policy.state_dict().items():
        expected = before[name] + 0.25 * (policy.state_dict()[name] - before[name])
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7, msg=name)


def test_td3s_target_critics_follow_while_the_actor_waits() -> None:
    policy = make_policy(Ledger(1))
    td3 = TD3(policy, QEnsemble.beside(policy, SMALL), TD3Config(critic=SMALL, critic_warmup=100))
    before = [vector.clone() for vector in (td3.target_update.vector, td3.policy_update.vector)]
    td3.update([some_batch()] * 4)
    assert not torch.equal(td3.target_update.vector, before[0])
    assert torch.equal(td3.policy_update.vector, before[1])


@pytest.mark.parametrize("shown", [{"obs_fine": 0.01}, {"obs_ranges": {"state": (1, 3)}}])
def test_observations_are_scaled_that_are_shown_twice_or_in_part(shown: dict[str, Any]) -> None:
    env = Ledger(1)
    policy = build_policy(PolicyConfig(head=GaussianHeadConfig(), **shown), env.observation_spec, env.action_spec)
    values = torch.randn(500, 1, 3) * torch.tensor([1.0, 2.0, 3.0])
    ObservationStatistics(policy).observe({"state": values}, once=True)
    (encoder,) = (module for module in policy.modules() if isinstance(module, LowDimEncoder))
    expected = values[:, 0].std(0, unbiased=False)
    torch.testing.assert_close(encoder.normaliser.scale, expected, rtol=1e-3, atol=1e-5)


def test_refusals() -> None:
    env = Ledger(1)
    policy = make_policy(env, MixtureHeadConfig())
    critic = QEnsemble.beside(policy, SMALL)
    with pytest.raises(PolicyError, match=r"SAC differentiates.*gaussian with squash true"):
        SAC(policy, critic, SACConfig())
    unbounded = make_policy(env, GaussianHeadConfig(squash=False))
    with pytest.raises(PolicyError, match=r"TD3 differentiates.*squash=False"):
        TD3(unbounded, QEnsemble.beside(unbounded, SMALL), TD3Config())
    with pytest.raises(ConfigError, match=r"subset must lie in 1..members \(2\), received 3"):
        QConfig(subset=3)
