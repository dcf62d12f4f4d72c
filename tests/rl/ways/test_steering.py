"""Steering a flow's noise: a seldom mode found by reward, targets by hand, resume, and through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.algorithms import QConfig
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import (
    DenoisingMLPConfig,
    FlowHeadConfig,
    GaussianHeadConfig,
    MLPConfig,
    PolicyConfig,
)
from robolearn.configuration.parts.ways import (
    ChainPPOConfig,
    PPOTuningConfig,
    ResidualConfig,
    ResidualPPOConfig,
    SACTuningConfig,
    SteeringConfig,
    Way,
)
from robolearn.datasets.dataset import Dataset
from robolearn.envs.interface import Observation
from robolearn.errors import ConfigError, PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.folder import load_policy
from robolearn.policies.heads.flow import TIME_SCALE, FlowHead
from robolearn.policies.noise import BatchNoise
from robolearn.policies.policy import Policy
from robolearn.policies.residual import ResidualPolicy, check_clonable
from robolearn.policies.steered import SteeredPolicy, build_steering
from robolearn.rl.finetune import finetune, prepare
from robolearn.rl.learner import Learner
from robolearn.rl.networks import ExecutedChunkValues
from robolearn.rl.ways.practice import Practice
from robolearn.rl.ways.steering import NoiseAliasedSAC
from tests.rl.test_off_policy import some_batch
from tests.rl.test_residual import SHORT, STATISTICS, TASK, command, demonstrations, half_taught
from tests.rl.toys import BatchedToy

SELDOM = 0.15
"""Of the base's draws, those that go left."""
SMALL = QConfig(hidden_sizes=(32, 32), layer_norm=True)
STEERING = PolicyConfig(backbone=MLPConfig(hidden_sizes=(32,)), head=GaussianHeadConfig())


class Fork(BatchedToy):
    """One step, solved where it goes left."""

    def begin(self, seed: int) -> Tensor:
        return torch.zeros(3, dtype=torch.float64)

    def move(self, state: Tensor, actions: Tensor) -> Tensor:
        return state

    def judge(self, state: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left = actions[:, 0] < 0.0
        return left.float(), torch.zeros_like(left), left


class TwoPoints(nn.Module):
    """The exact velocity of a flow from noise to -0.8, seldom, and 0.8: (E[a | x_t] - x_t) / (1 - t)."""

    def condition(self, time: Tensor, features: Tensor) -> Tensor:
        return (time / TIME_SCALE)[:, None]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        t, points = condition[..., None], torch.tensor([-0.8, 0.8])
        scores = torch.tensor([SELDOM, 1 - SELDOM]).log() - 0.5 * ((x - t * points) / (1 - t)).square()
        return ((scores.softmax(-1) * points).sum(-1, keepdim=True) - x) / (1 - t)


class Half(nn.Module):
    """A velocity that takes noise w to the chunk w / 2 in one step."""

    def condition(self, time: Tensor, features: Tensor) -> Tensor:
        return time[:, None]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return -0.5 * x


class Known(nn.Module):
    """Critics that value an action a in a state s at a^2 + s_0 / 10, and at one more."""

    def forward(self, obs: Observation, actions: Tensor) -> Tensor:
        value = actions[:, 0, 0].square() + 0.1 * obs["state"][:, -1, 0]
        return torch.stack([value, value + 1.0])


def base_of(env: BatchedToy, network: nn.Module, inference_steps: int) -> Policy:
    config = PolicyConfig(backbone=MLPConfig(hidden_sizes=(8,)), head=FlowHeadConfig(inference_steps=inference_steps))
    sizes = {"state": 3, "actions": 1}
    statistics = {name: {k: v[:size] for k, v in STATISTICS["state"].items()} for name, size in sizes.items()}
    base = build_policy(config, env.observation_spec, env.action_spec, statistics).eval()
    assert isinstance(base.head, FlowHead)
    base.head.network = network  # type: ignore[assignment]
    return base


def method(*, algorithm: dict[str, Any] | None = None, **changes: Any) -> SteeringConfig:
    quick = {"random_steps": 128, "collect_steps": 1, "batch_size": 64, "critic": SMALL, "critic_warmup": 50}
    quick |= {"n_step": 1, "learning_rate": 1e-2, "critic_learning_rate": 3e-3, "utd": 0.25}
    values: dict[str, Any] = {"share_steps": 60, "noise_critic": SMALL, "policy": STEERING} | changes
    return SteeringConfig(algorithm=SACTuningConfig(**(quick | (algorithm or {}))), **values)


def learner_of(env: BatchedToy, base: Policy, seed: int = 0, way: Way | None = None) -> Learner:
    torch.manual_seed(seed)
    config = FinetuneConfig(policy="p", method=way or method(), seed=seed)
    practice = Practice(env=env)  # type: ignore[arg-type]
    return prepare(config, base, practice, torch.device("cpu"))


def share_to_the_left(policy: Policy, rows: int = 400) -> float:
    noise = BatchNoise(rows, "cpu", torch.Generator().manual_seed(0))
    actions = policy.act({"state": torch.zeros(rows, 1, 3)}, deterministic=True, noise=noise)
    return float((actions < 0.0).float().mean())


def test_it_learns_to_pick_what_the_base_seldom_does() -> None:
    """From success alone; the base is as it was."""
    env = Fork(16, max_steps=1)
    base = base_of(env, TwoPoints(), 4)
    assert 0.05 < share_to_the_left(base) < 0.2
    before = {name: value.clone() for name, value in base.state_dict().items()}
    found = []
    for seed in range(3):
        learner = learner_of(env, base, seed)
        assert share_to_the_left(learner.actor) == share_to_the_left(base), "it begins as the base"
        for _ in range(30):
            learner.algorithm.update(learner.source.next())
        found.append(share_to_the_left(learner.actor))
    assert sum(found) / 3 > 0.9, found
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def aliased(way: SteeringConfig | None = None) -> NoiseAliasedSAC:
    """A learner whose base makes w / 2 of noise w."""
    base = base_of(Fork(2), Half(), 1)
    torch.manual_seed(0)
    way = way or method()
    return NoiseAliasedSAC(SteeredPolicy(base, build_steering(way.policy, base, way.bound)), way)


class Zero:
    def normal(self, *shape: int) -> Tensor:
        return torch.zeros(32, *shape)


def test_critics_of_noise_learn_what_those_of_chunks_say() -> None:
    """Q_w(s, w) = (w / 2)^2 + s_0 / 10, and half more for the mean of the critics; they alone learn from it."""
    learner = aliased(method(algorithm={"actor_value": "mean"}))
    learner.critic = Known()  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        batch = some_batch(64)
        batch.obs["state"].normal_(generator=generator)
        asked = learner.asked_noise(batch)
        learner.noise_optimiser.step(
            batch._replace(actions=asked / learner.policy.bound), learner.noise_targets(batch.obs, asked)
        )
    w = torch.linspace(-1.4, 1.4, 9).view(-1, 1, 1)
    obs = {"state": torch.zeros(9, 1, 3)}
    obs["state"][:, 0, 0] = torch.linspace(1.0, -1.0, 9)
    expected = (w[:, 0, 0] / 2).square() + 0.1 * obs["state"][:, 0, 0] + 0.5
    torch.testing.assert_close(learner.noise_targets(obs, w), expected)
    with torch.no_grad():
        found = learner.noise_critic(obs, w / learner.policy.bound)
    assert (found - expected).abs().mean() < 0.1
    least = aliased(method(algorithm={"actor_value": "min"}))
    least.critic = Known()  # type: ignore[assignment]
    torch.testing.assert_close(least.noise_targets(obs, w), expected - 0.5)


def test_they_are_asked_about_the_bases_own_noise_and_about_the_steerings() -> None:
    learner, batch = aliased(), some_batch(2000)
    with torch.no_grad():
        learner.policy.head.mean.bias.fill_(5.0)  # type: ignore[union-attr, operator]
    own, steered = learner.asked_noise(batch).detach()[:, 0, 0].view(-1, 2).unbind(1)
    assert abs(float(own.mean())) < 0.1
    assert float(own.std()) == pytest.approx(1.0, abs=0.1)
    assert steered.min() > 1.4, "bound 1.5 times tanh of something large"
    assert steered.max() <= 1.5


def test_targets_by_hand() -> None:
    """y = r + gamma^n min_i Q'_i(s', w' / 2), w' = 0.6 bound tanh(mean) where the rest of the noise is drawn as 0."""
    learner, batch = aliased(), some_batch()
    with torch.no_grad():
        learner.policy.head.mean.bias.fill_(0.4)  # type: ignore[union-attr, operator]
        learner.policy.share.fill_(0.6)
        target = learner.targets(batch, torch.tensor([3.0]), Zero())  # type: ignore[arg-type]
        chunk = torch.full((32, 1, 1), 0.5 * 0.6 * 1.5).mul(torch.tensor(0.4).tanh())
        values = learner.target(batch.next_obs, chunk).amin(0)
    torch.testing.assert_close(target, batch.rewards + batch.discounts * values)
    assert learner.target_entropy == -0.5


def test_the_steering_takes_over_once_the_critics_have_learned_alone() -> None:
    learner = aliased(method(algorithm={"critic_warmup": 10}, share_steps=20))
    shares = [learner.update([some_batch()] * 5)["share"] for _ in range(8)]
    assert shares == pytest.approx([0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
    assert learner.steered.steering.share == 1.0
    assert aliased(method(algorithm={"critic_warmup": 0}, share_steps=0)).share == 1.0


def test_critics_value_the_steps_that_are_executed() -> None:
    base = build_policy(
        PolicyConfig(head=FlowHeadConfig(), pred_steps=4, exec_steps=2), Fork(1).observation_spec, Fork(1).action_spec
    )
    critic = ExecutedChunkValues.beside(base, SMALL)
    obs, chunks = {"state": torch.randn(5, 1, 3)}, torch.rand(5, 4, 1)
    values = critic(obs, chunks)
    assert values.shape == (2, 5)
    assert torch.equal(critic(obs, torch.cat([chunks[:, :2], -chunks[:, 2:]], 1)), values)
    assert not torch.equal(critic(obs, -chunks), values)


FLOW = FlowHeadConfig(network=DenoisingMLPConfig(width=32, num_blocks=1), inference_steps=3)


def flow_policy(folder: Path) -> Path:
    return half_taught(folder, FLOW, updates=1, obs_steps=2, pred_steps=4, exec_steps=2)


def test_resume_equals_no_interruption(tmp_path: Path) -> None:
    """With demonstrations, the steering half-way to having taken over."""
    policy, data = flow_policy(tmp_path / "start"), demonstrations(tmp_path / "d.hdf5", 3)

    def one(run: str, updates: int) -> FinetuneConfig:
        return FinetuneConfig(
            policy=str(policy),
            task=TASK,
            output=str(tmp_path / run),
            method=method(algorithm={"collect_steps": 4, "critic_warmup": 4}, share_steps=20),
            demonstrations=(str(data),),
            num_envs=4,
            max_steps=40,
            eval_episodes=0,
            test_episodes=0,
            export="last",
            loop=LoopConfig(total_steps=updates, log_every=1, evaluate_every=0, checkpoint_every=0, tensorboard=False),
        )

    whole, parts = one("whole", 4), one("parts", 4)
    finetune(whole, whole.output)
    finetune(one("parts", 2), parts.output)
    finetune(parts, parts.output, resume=True)
    first, second = (load_policy(Path(c.output) / "policy").state_dict() for c in (whole, parts))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert first["steering.head.mean.weight"].abs().sum() > 0
    assert 0.0 < first["steering.share"] < 1.0


STEER = ["--method", "steering", "--method.algorithm.collect_steps", 4, "--method.algorithm.random_steps", 40]
STEER += ["--method.algorithm.critic.members", 2, "--method.algorithm.critic.hidden_sizes", 16]
STEER += ["--method.noise_critic.hidden_sizes", 16, "--method.algorithm.critic_warmup", 4, "--max_steps", 20]


def test_command_line_with_demonstrations_and_a_corrector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, data = flow_policy(tmp_path / "start"), demonstrations(tmp_path / "d.hdf5", 3)
    run = tmp_path / "run"
    options = [*SHORT, "--export", "last", "--demonstrations", data]
    helped = ["--corrector", "auto", "--corrector.expert", "tests.envs.toy:point_reach_expert"]
    assert command("finetune", policy, *STEER, *options, *helped, "--output", run) == 0
    assert "1 at the last step of 3 of 3 episodes" in capsys.readouterr().err
    assert "STEERING" in (run / "policy" / "card.md").read_text()
    tuned, before = load_policy(run), load_policy(policy).state_dict()
    assert isinstance(tuned, SteeredPolicy)
    assert all(torch.equal(value, before[name]) for name, value in tuned.base.state_dict().items())
    with Dataset(run / "corrections.hdf5") as corrections:
        assert len(corrections) > 0


def test_a_steered_policy_is_corrected_further_and_by_no_other_way() -> None:
    env = Fork(2, max_steps=3)
    steered = learner_of(env, base_of(env, Half(), 1)).actor
    small = {"random_steps": 4, "collect_steps": 2, "batch_size": 4, "critic_warmup": 0, "critic": SMALL}
    off_policy = ResidualConfig(algorithm=SACTuningConfig(**small), policy=STEERING)
    for way in (off_policy, ResidualPPOConfig(num_steps=4, batch_size=4, critic_warmup=0, policy=STEERING)):
        learner = learner_of(env, steered, way=way)
        learner.algorithm.update(learner.source.next())
        assert isinstance(learner.actor, ResidualPolicy)
        assert learner.actor.base is steered
        assert learner.actor.correction.head.mean.weight.abs().sum() > 0  # type: ignore[union-attr, operator]
    for way in (PPOTuningConfig(), ChainPPOConfig(), SACTuningConfig(), SteeringConfig()):
        with pytest.raises(PolicyError, match=r"flow on mlp, steered.*residual or residual_ppo"):
            learner_of(env, steered, way=way)
    with pytest.raises(PolicyError, match="is not trained by cloning"):
        check_clonable(steered, "p")


def test_what_cannot_be_steered_is_refused_before_there_is_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gaussian = half_taught(tmp_path / "gaussian", updates=1)
    assert command("finetune", gaussian, *STEER, *SHORT, "--output", tmp_path / "run") == 2
    assert "has head 'gaussian'; method residual takes any" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="bound must be positive, received 0"):
        SteeringConfig(bound=0.0)
    with pytest.raises(ConfigError, match="steering has no compile"):
        method(algorithm={"compile": True})
    with pytest.raises(ConfigError, match=r"as many steps as its base.*received \(1, 4, 1\)"):
        SteeringConfig(policy=PolicyConfig(head=GaussianHeadConfig(), pred_steps=4))
