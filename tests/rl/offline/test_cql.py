"""Conservative Q-learning: its loss by loops, returns by sums, careful values on a toy, and as the start of SAC."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robolearn.cli.main import main
from robolearn.configuration.parts.algorithms import QConfig
from robolearn.configuration.parts.offline import CQLConfig
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.ways import SACTuningConfig
from robolearn.envs.make import make
from robolearn.errors import ConfigError, PolicyError
from robolearn.imitation.bc import train_bc
from robolearn.policies.build import build_policy
from robolearn.policies.folder import load_policy
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.demonstrations import (
    RecordedEpisode,
    Shape,
    macro_starts,
    macro_steps,
    replay_of,
    returns_to_go,
)
from robolearn.rl.finetune import prepare
from robolearn.rl.networks import QEnsemble
from robolearn.rl.offline.cql import ConservativeQLearning, DataBatch, learn_conservatively
from robolearn.rl.offline.saved_critics import CRITIC_FILE, load_critics, save_critics
from robolearn.rl.ways.practice import Practice
from tests.imitation.toy import make_episode, write_dataset
from tests.rl.collecting.test_demonstrations import failed
from tests.rl.offline.test_iql import GAMMA, at, config, crossing
from tests.rl.test_off_policy import some_batch
from tests.rl.test_residual import TASK, config as practice, demonstrations, half_taught
from tests.rl.toys import Ledger


def method(**changes: Any) -> CQLConfig:
    values: dict[str, Any] = {"gamma": GAMMA, "tau": 0.05, "learning_rate": 1e-3, "critic_learning_rate": 3e-3}
    return CQLConfig(**(values | {"cloning_steps": 50, "critic": QConfig(hidden_sizes=(32,))} | changes))


def toy_policy() -> Policy:
    env = Ledger(1)
    torch.manual_seed(0)
    return build_policy(
        PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,))),
        env.observation_spec,
        env.action_spec,
    )


@pytest.mark.parametrize("calibrated", [True, False])
def test_loss_by_loops(calibrated: bool) -> None:
    """Row by row and critic by critic, with densities of the policy's actions from its own log_prob."""
    algorithm = ConservativeQLearning(toy_policy(), method(calibrated=calibrated, num_actions=3, conservatism=0.7))
    batch = some_batch(6)
    returns = torch.linspace(-0.5, 0.5, 6)
    others = algorithm.candidates(DataBatch(batch, returns))
    assert others.actions.shape == (6, 9, 1, 1)
    target = torch.linspace(-1, 1, 6)
    loss, metrics = algorithm.critic_optimiser.loss(batch, target, others)
    critic, policy, total, gaps = algorithm.critic, algorithm.policy, 0.0, []
    with torch.no_grad():
        for member in range(2):
            errors, soft = [], []
            for b in range(6):
                state = {"state": batch.obs["state"][b : b + 1]}
                following = {"state": batch.next_obs["state"][b : b + 1]}
                recorded = critic(state, batch.actions[b : b + 1])[member, 0].item()
                terms = []
                for k in range(9):
                    action = others.actions[b, k][None]
                    value = critic(state, action)[member, 0].item()
                    if k < 3:
                        density = 0.5
                    else:
                        density = policy.distribution(state if k < 6 else following).log_prob(action).exp().item()
                        value = max(value, returns[b].item()) if calibrated else value
                    terms.append(math.exp(value) / density)
                soft.append(math.log(sum(terms) / 9) - recorded)
                errors.append(0.5 * (recorded - target[b].item()) ** 2)
            gaps.append(np.mean(soft))
            total += float(np.mean(errors)) + 0.7 * float(np.mean(soft))
    assert loss.item() == pytest.approx(total, rel=1e-3)
    assert metrics["conservative_gap"].item() == pytest.approx(np.mean(gaps), rel=1e-3)


def test_returns_are_in_the_order_of_the_replay() -> None:
    """Through chunks: the return of every transition is the sum over the rest of its episode."""
    generator = np.random.default_rng(0)
    episodes = [
        RecordedEpisode(
            obs={"state": torch.arange(100.0 * e, 100.0 * e + length + 1)[:, None]},
            actions=torch.zeros(length, 1),
            rewards=torch.as_tensor(generator.normal(size=length), dtype=torch.float32),
            terminated=bool(e % 2),
        )
        for e, length in enumerate((7, 2, 5))
    ]
    shape = Shape(obs_keys=("state",), pred_steps=3, exec_steps=3, gamma=0.8)
    replay = replay_of(episodes, shape)
    found = torch.cat([returns_to_go(one, 0.8)[list(macro_starts(len(one), 3))] for one in episodes])
    assert len(found) == len(replay) == sum(len(list(macro_steps(one, shape))) for one in episodes)
    begins = replay.gather(torch.arange(len(replay))).obs["state"][:, 0, 0]
    for value, begin in zip(found.tolist(), begins.tolist()):
        episode, t = episodes[int(begin) // 100], int(begin) % 100
        assert value == pytest.approx(sum(0.8**i * r for i, r in enumerate(episode.rewards[t:].tolist())), rel=1e-5)


def learn(path: Path, steps: int, cql: CQLConfig) -> tuple[Path, ConservativeQLearning]:
    made: list[ConservativeQLearning] = []

    def maker(policy: Any, bc: Any, train: Any, windows: Any) -> Any:
        algorithm, source = learn_conservatively(policy, bc, cql, train, windows)
        made.append(algorithm)
        return algorithm, source

    output = path.parent / f"run_{cql.conservatism}_{cql.calibrated}"
    c = config(path, output, steps, GaussianHeadConfig(initial_std=0.3))
    return train_bc(c, output, learner=maker).policy, made[0]


@pytest.mark.learning
def test_values_of_unseen_actions_are_careful_and_the_way_is_found(tmp_path: Path) -> None:
    """At M only -0.8 (a failure) and 0.8 (a success) were recorded. Without care unseen actions are worth what the
    network makes of them; with care less than that, and less than the success. The policy goes where it is right."""
    data = crossing(tmp_path / "crossing.hdf5")
    unseen = torch.tensor([-0.3, 0.0, 0.3])[:, None, None]
    values: dict[float, torch.Tensor] = {}
    for conservatism in (0.0, 1.0):
        folder, algorithm = learn(data, 700, method(conservatism=conservatism))
        with torch.no_grad():
            values[conservatism] = algorithm.critic(at("MMM"), unseen).mean(0)
            best = algorithm.critic(at("M"), torch.tensor([[[0.8]]])).mean().item()
    assert (values[1.0] < values[0.0] - 0.05).all(), values
    assert (values[1.0] < best - 0.1).all(), (values, best)
    assert load_policy(folder).act(at("M"), deterministic=True).item() > 0.6


@pytest.mark.learning
def test_calibration_holds_the_policys_values_up(tmp_path: Path) -> None:
    """The policy's action from C is worth nearly what the data had from there, gamma; without, clearly less."""
    data = crossing(tmp_path / "crossing.hdf5")
    found = {}
    for calibrated in (True, False):
        _, algorithm = learn(data, 400, method(conservatism=5.0, calibrated=calibrated, cloning_steps=400))
        with torch.no_grad():
            actions = algorithm.policy.distribution(at("C" * 64)).sample_with_log_prob(
                algorithm._noise(some_batch(64))
            )[0]
            found[calibrated] = algorithm.critic(at("C" * 64), actions).mean().item()
    assert found[True] > found[False] + 0.05, found


def test_resume_equals_no_interruption(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d.hdf5", [make_episode(i) for i in range(3)] + [failed(make_episode(5))])
    chunks = {"obs_steps": 2, "pred_steps": 3, "exec_steps": 2}

    def train(run: str, steps: int, resume: bool = False) -> Path:
        c = config(data, tmp_path / run, steps, GaussianHeadConfig(), **chunks)
        cql = method(cloning_steps=4)
        make = lambda policy, bc, train, windows: learn_conservatively(policy, bc, cql, train, windows)  # noqa: E731
        return train_bc(c, tmp_path / run, learner=make, resume=resume).policy

    whole = train("whole", 12)
    train("parts", 5)
    parts = train("parts", 12, resume=True)
    for load in (load_policy, lambda folder: load_critics(folder, load_policy(folder)).critic):  # type: ignore[union-attr]
        one, other = load(whole).state_dict(), load(parts).state_dict()
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_sac_goes_on_from_the_critics_in_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data = half_taught(tmp_path / "start"), demonstrations(tmp_path / "d.hdf5", 2)
    policy = load_policy(folder)
    own = QConfig(hidden_sizes=(16,), members=3)
    critic = QEnsemble.beside(policy, own)
    save_critics(folder, critic, own, gamma=0.95, reward="success")
    assert load_policy(folder), "a policy is loaded as without"
    sac = SACTuningConfig(gamma=0.95, random_steps=10, batch_size=8)
    c = practice(folder, tmp_path / "run", 2, sac, demonstrations=(str(data),))
    with make(TASK, 2) as env:
        learner = prepare(c, load_policy(folder), Practice(env=env), torch.device("cpu"))
        assert "note: the critics that" in capsys.readouterr().err
        taken = learner.algorithm.algorithm if hasattr(learner.algorithm, "algorithm") else learner.algorithm
        for network in (taken.critic, taken.target):
            assert all(torch.equal(value, network.state_dict()[name]) for name, value in critic.state_dict().items())
        learner.algorithm.update(learner.source.next())
        other = prepare(
            replace(c, method=replace(sac, gamma=0.9)), load_policy(folder), Practice(env=env), torch.device("cpu")
        )
        assert "gamma 0.95, practice has reward success with gamma 0.9: new critics" in capsys.readouterr().err
        assert other.algorithm.algorithm.critic.members == sac.critic.members
    (folder / CRITIC_FILE).write_bytes(b"nothing")
    with pytest.raises(PolicyError, match="does not hold critics of this policy"):
        load_critics(folder, policy)


def test_command_line_and_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_dataset(tmp_path / "d.hdf5", [make_episode(0), failed(make_episode(1))])
    small = ["--policy.backbone.hidden_sizes", "8", "--loop.total_steps", "3", "--batch_size", "8", "--device", "cpu"]
    words = ["train", "--method", "cql", *small, "--dataset", str(data), "--output"]
    assert main([*words, str(tmp_path / "run"), "--policy.head", "gaussian"]) == 0
    assert "conservative Q-learning" in (tmp_path / "run/policy/card.md").read_text()
    policy = load_policy(tmp_path / "run")
    saved = load_critics(tmp_path / "run/policy", policy)
    assert saved is not None
    assert (saved.gamma, saved.reward) == (0.99, "success")
    capsys.readouterr()
    assert main([*words, str(tmp_path / "other")]) == 2
    assert "CQL differentiates through the policy's own actions" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "other"), "--policy.head", "gaussian", "--target", "labels"]) == 2
    assert "take method iql" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="num_actions must be at least 1"):
        CQLConfig(num_actions=0)
    iql = ["train", "--method", "iql", *small, "--dataset", str(data), "--output", str(tmp_path / "iql")]
    assert main(iql) == 0
    assert (tmp_path / "iql/policy" / CRITIC_FILE).exists()
