"""Implicit Q-learning: the expectile by bisection, values of a graph by hand, stitching, and better than cloning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robolearn.cli.main import main
from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.algorithms import CriticConfig, QConfig
from robolearn.configuration.parts.loop import LoopConfig, OptimiserConfig
from robolearn.configuration.parts.offline import IQLConfig
from robolearn.configuration.parts.policy import (
    DenoisingMLPConfig,
    DeterministicHeadConfig,
    DiffusionHeadConfig,
    MixtureHeadConfig,
    MLPConfig,
    PolicyConfig,
)
from robolearn.errors import ConfigError
from robolearn.imitation.bc import cloning, train_bc
from robolearn.policies.folder import load_policy
from robolearn.rl.offline.iql import ImplicitQLearning, expectile_loss, learn_implicitly
from robolearn.specs import ActionSpec, ArraySpec, Episode, EpisodeInfo, ObservationSpec
from tests.imitation.toy import make_episode, write_dataset
from tests.rl.collecting.test_demonstrations import failed

GAMMA = 0.9
PLACES = "ABCDM"
SPEC = ObservationSpec({"place": ArraySpec(shape=(5,))})
STEER = ActionSpec(low=(-1.0,), high=(1.0,))


@pytest.mark.parametrize("expectile", [0.5, 0.8, 0.95])
def test_the_expectile_is_where_the_weighted_errors_balance(expectile: float) -> None:
    """Against bisection of tau E[(x - m)+] = (1 - tau) E[(m - x)+], which is the mean for one half."""
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = x.min(), x.max()
    for _ in range(60):
        middle = (low + high) / 2
        up, down = (x - middle).clamp(min=0).mean(), (middle - x).clamp(min=0).mean()
        low, high = (middle, high) if expectile * up > (1 - expectile) * down else (low, middle)
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    found = grid[torch.stack([expectile_loss(x - m, expectile).mean() for m in grid]).argmin()]
    assert found.item() == pytest.approx(low.item(), abs=2e-3)
    assert expectile != 0.5 or low.item() == pytest.approx(x.mean().item(), abs=1e-6)


def walk(places: str, actions: list[float], seed: int, *, success: bool) -> Episode:
    """An episode through named places, seen as one-hot vectors."""
    seen = np.eye(5, dtype=np.float32)[[PLACES.index(place) for place in places]]
    ended = np.arange(len(actions)) == len(actions) - 1
    return Episode(
        info=EpisodeInfo(success=success, seed=seed),
        obs={"place": seen[:-1]},
        final_obs={"place": seen[-1]},
        actions=np.array(actions, np.float32)[:, None],
        rewards=(ended & success).astype(np.float32),
        terminated=ended & success,
        truncated=ended & (not success),
        timestamps=np.arange(len(actions)) * 0.05,
    )


def crossing(path: Path) -> Path:
    """From A by M to B, a failure; from C by M to D, a success. Nobody went from A to D."""
    return write_dataset(
        path,
        [walk("AMB", [0.0, -0.8], 0, success=False), walk("CMD", [0.0, 0.8], 1, success=True)] * 10,
        observation_spec=SPEC,
        action_spec=STEER,
    )


def config(path: Path, output: Path, steps: int, head: Any, **policy: Any) -> BCConfig:
    return BCConfig(
        dataset=(str(path),),
        policy=PolicyConfig(head=head, backbone=MLPConfig(hidden_sizes=(64,)), obs_normalisation="none", **policy),
        batch_size=32,
        optimiser=OptimiserConfig(learning_rate=3e-3, ema=False, schedule="constant"),
        loop=LoopConfig(total_steps=steps, log_every=50, evaluate_every=0, checkpoint_every=0, tensorboard=False),
        device="cpu",
    )


def method(**changes: Any) -> IQLConfig:
    values = {"gamma": GAMMA, "expectile": 0.95, "tau": 0.05, "learning_rate": 3e-3}
    networks = {"critic": QConfig(hidden_sizes=(32,)), "value": CriticConfig(hidden_sizes=(32,), activation="relu")}
    return IQLConfig(**(values | networks | changes))


def learn(c: BCConfig, iql: IQLConfig | None) -> tuple[Path, list[ImplicitQLearning]]:
    made: list[ImplicitQLearning] = []

    def maker(policy: Any, config: BCConfig, train: Any, windows: Any) -> Any:
        if iql is None:
            return cloning(policy, config, train, windows)
        algorithm, source = learn_implicitly(policy, config, iql, train, windows)
        made.append(algorithm)
        return algorithm, source

    output = Path(c.dataset[0]).parent / f"run_{'bc' if iql is None else 'iql'}_{c.policy.head.name}"
    return train_bc(c, output, learner=maker).policy, made


def at(places: str) -> dict[str, torch.Tensor]:
    return {"place": torch.eye(5)[[PLACES.index(place) for place in places], None]}


def test_values_of_a_graph_and_a_way_that_nobody_went(tmp_path: Path) -> None:
    """V(D's way) by hand: Q(M, right) = 1, Q(M, left) = gamma V(B) = 0; V(M) is their expectile, V(A) = gamma V(M)."""
    data = crossing(tmp_path / "crossing.hdf5")
    c = config(data, tmp_path / "run", 1500, DeterministicHeadConfig())
    folder, made = learn(c, method())
    algorithm = made[0]
    with torch.no_grad():
        q = algorithm.critic(at("MM"), torch.tensor([[[0.8]], [[-0.8]]])).mean(0)
        v = algorithm.value(at("MAC"))
    assert q[0].item() == pytest.approx(1.0, abs=0.05)
    at_m = v[0].item()
    assert at_m == pytest.approx(0.95, abs=0.08), "the 0.95-expectile of 0 and 1, seen equally often, is 0.95"
    assert v[1].item() == pytest.approx(GAMMA * at_m, abs=0.08), "from A the way to D is known, though nobody took it"
    assert v[2].item() == pytest.approx(GAMMA * at_m, abs=0.08)
    steered = load_policy(folder).act(at("M"), deterministic=True).item()
    short = replace(c, loop=replace(c.loop, total_steps=400))
    cloned = load_policy(learn(short, None)[0]).act(at("M"), deterministic=True).item()
    assert steered > 0.6
    assert abs(cloned) < 0.4


@pytest.mark.parametrize("head", ["mixture", pytest.param("diffusion", marks=pytest.mark.long)])
def test_any_head_prefers_what_turned_out_well(head: str, tmp_path: Path) -> None:
    heads: dict[str, Any] = {
        "mixture": MixtureHeadConfig(num_modes=2, min_std=0.05),
        "diffusion": DiffusionHeadConfig(
            network=DenoisingMLPConfig(width=64, num_blocks=1), train_steps=20, inference_steps=5
        ),
    }
    data = crossing(tmp_path / "crossing.hdf5")
    c = config(data, tmp_path / "run", 1200, heads[head])
    torch.manual_seed(0)
    rights = []
    for iql in (None, method()):
        policy = load_policy(learn(c if iql else replace(c, loop=replace(c.loop, total_steps=400)), iql)[0])
        with torch.no_grad():
            rights.append((policy.act(at("M" * 200)) > 0).float().mean().item())
    assert 0.2 < rights[0] < 0.8
    assert rights[1] > 0.9


def test_resume_equals_no_interruption(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "d.hdf5", [make_episode(i) for i in range(3)] + [failed(make_episode(5))])
    chunks = {"obs_steps": 2, "pred_steps": 3, "exec_steps": 2}

    def train(run: str, steps: int, resume: bool = False) -> Path:
        c = config(data, tmp_path / run, steps, MixtureHeadConfig(), **chunks)
        make = lambda policy, bc, train, windows: learn_implicitly(policy, bc, method(), train, windows)  # noqa: E731
        return train_bc(c, tmp_path / run, learner=make, resume=resume).policy

    whole = load_policy(train("whole", 12)).state_dict()
    train("parts", 5)
    parts = load_policy(train("parts", 12, resume=True)).state_dict()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_weight_of_nothing_is_cloning(tmp_path: Path) -> None:
    """Beta zero gives every window weight one, and the policy's own numbers are drawn as ever."""
    data = crossing(tmp_path / "crossing.hdf5")
    c = config(data, tmp_path / "run", 20, DeterministicHeadConfig())
    weighted, cloned = (load_policy(learn(c, iql)[0]).state_dict() for iql in (method(beta=0.0), None))
    assert all(torch.equal(value, cloned[name]) for name, value in weighted.items())


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_dataset(tmp_path / "d.hdf5", [make_episode(0), failed(make_episode(1))])
    small = ["--policy.backbone.hidden_sizes", "8", "--loop.total_steps", "3", "--batch_size", "8", "--device", "cpu"]
    words = ["train", "--method", "iql", *small]
    assert main([*words, "--dataset", str(data), "--output", str(tmp_path / "run")]) == 0
    assert "implicit Q-learning" in (tmp_path / "run/policy/card.md").read_text()
    capsys.readouterr()
    bad = write_dataset(tmp_path / "bad.hdf5", [failed(make_episode(i)) for i in range(2)])
    assert main([*words, "--dataset", str(bad), "--output", str(tmp_path / "bad")]) == 2
    assert "are failures only" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"expectile must lie in \[0.5, 1\)"):
        replace(IQLConfig(), expectile=1.0)
