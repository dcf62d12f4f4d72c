"""Training from scratch through the command line and the common loop, on small Gymnasium tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robolearn.cli.main import main
from robolearn.configuration.parts.algorithms import DQNConfig, PPOConfig, QConfig, SACConfig, TD3Config
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.rl import RLConfig
from robolearn.configuration.tree import load
from robolearn.envs.make import make
from robolearn.errors import TaskError
from robolearn.evaluation.policy_task import task_of
from robolearn.policies.folder import load_policy
from robolearn.rl.from_scratch import make_learner, train_rl
from robolearn.training.checkpoint import load_checkpoint
from robolearn.training.metrics import read_metrics
from tests.envs.toy import COUNTER, POINT_REACH, WALK
from tests.rl.toys import Ledger, small_run

SMALL = QConfig(hidden_sizes=(16,))
ALGORITHMS: dict[str, Any] = {
    "ppo": PPOConfig(num_steps=16, epochs=2, normalise_obs=True, normalise_returns=True, anneal=True),
    "sac": SACConfig(random_steps=20, batch_size=16, critic=SMALL, n_step=2),
    "sac_overlap": SACConfig(random_steps=20, batch_size=16, critic=SMALL, collect_steps=2, utd=0.5, overlap=True),
    "td3": TD3Config(random_steps=100, batch_size=16, critic=SMALL, normalise_obs=True),
    "dqn": DQNConfig(random_steps=20, batch_size=16, critic=replace(SMALL, members=1, subset=1)),
}


def config(algorithm: str, output: Path, env_steps: int = 160) -> RLConfig:
    task = WALK if algorithm == "dqn" else POINT_REACH
    return small_run(ALGORITHMS[algorithm], output, env_steps, task=task)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "latest")["algorithm"]["policy"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_resume_equals_no_interruption(algorithm: str, tmp_path: Path) -> None:
    """Replay buffers, running episodes, statistics and generators included; annealing knows the whole length."""
    whole = train_rl(config(algorithm, tmp_path / "whole"))
    half = config(algorithm, tmp_path / "parts", 128)
    if algorithm == "ppo":
        half = replace(half, algorithm=replace(ALGORITHMS["ppo"], anneal=False))
        whole = train_rl(replace(half, env_steps=160, output=str(tmp_path / "unannealed")))
    train_rl(half)
    parts = train_rl(replace(half, env_steps=160), resume=True)
    assert parts.env_steps == whole.env_steps
    for name, value in weights(whole.run_dir).items():
        assert torch.equal(value, weights(parts.run_dir)[name]), name


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_run_folder(algorithm: str, tmp_path: Path) -> None:
    result = train_rl(config(algorithm, tmp_path))
    assert result.env_steps >= 160 - 32
    rows = read_metrics(tmp_path)
    assert any("eval_return" in row and row["env_steps"] > 0 for row in rows)
    assert any("grad_norm" in row for row in rows)
    assert load(RLConfig, tmp_path / "config.yaml") == config(algorithm, tmp_path)
    assert load_policy(result.policy).action_spec.size == 2
    task = WALK if algorithm == "dqn" else POINT_REACH
    assert task_of(result.policy) == TaskConfig(id=task), "so that it is evaluated without naming the task"


def test_success_is_reported_of_tasks_that_know_it(tmp_path: Path) -> None:
    """Counter knows no success of its own; a threshold defines it."""
    lines = {}
    for name, options in {"none": {}, "told": {"success_threshold": 1e9}, "met": {"success_threshold": 1.0}}.items():
        task = TaskConfig(id=COUNTER, worker_kind="sync", **options)
        train_rl(replace(config("ppo", tmp_path / name, 32), task=task))
        lines[name] = [row for row in read_metrics(tmp_path / name) if "eval_return" in row]
    assert all("eval_success" not in row for row in lines["none"])
    assert [row["eval_success"] for row in lines["told"]] == [0.0] * len(lines["told"])
    assert [row["eval_success"] for row in lines["met"]] == [1.0] * len(lines["met"])


def test_wrong_kinds_of_actions_are_refused_with_the_way_out(tmp_path: Path) -> None:
    discrete = replace(config("sac", tmp_path / "a"), task=TaskConfig(id=WALK, worker_kind="sync"))
    with pytest.raises(TaskError, match=r"2 discrete actions, sac needs continuous ones; use algorithm dqn"):
        train_rl(discrete)
    continuous = replace(config("dqn", tmp_path / "b"), task=TaskConfig(id=COUNTER, worker_kind="sync"))
    with pytest.raises(TaskError, match="DQN needs discrete ones; use algorithm sac or ppo"):
        train_rl(continuous)
    assert not list(tmp_path.iterdir()), "a refused run leaves nothing behind"


def test_command_line_reads_the_shipped_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2] / "configs" / "rl"
    for path in sorted(root.glob("*.yaml")):
        load(RLConfig, path)
    arguments = ["--config", root / "dqn_cartpole.yaml", "--output", tmp_path, "--task.worker_kind", "sync"]
    tiny = [
        "--env_steps",
        40,
        "--algorithm.random_steps",
        20,
        "--algorithm.collect_steps",
        4,
        "--algorithm.batch_size",
        8,
        "--eval_episodes",
        1,
    ]
    assert main(["rl", *map(str, arguments + tiny)]) == 0
    assert "mean return" in capsys.readouterr().out


def test_threads_are_counted_for_every_network_of_an_update(tmp_path: Path) -> None:
    """SAC's work is mostly its critics'; with the actor alone counted it ran on one core of two."""
    config = small_run(ALGORITHMS["sac"], tmp_path)
    with make(config.task, config.num_envs) as env:
        learner = make_learner(config, env, torch.device("cpu"))
    sac = learner.algorithm.algorithm
    assert set(learner.networks) == {sac.policy, sac.critic}


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("algorithm", ["ppo", "sac", "redq"])
def test_compiled_updates_equal_eager_ones(algorithm: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same weights and the same draws (`fallback_random`): the same parameters after several updates, the same actions
    with these, and a learner with other settings has a graph of its own. PPO's two networks learn side by side on a
    processor, and on a card compiled updates are launched as CUDA graphs."""
    import torch._inductor.config as inductor

    from robolearn.training import threads
    from tests.rl import test_off_policy as off, test_ppo as on

    monkeypatch.setattr(threads, "MAX_THREADS", 2)

    def learn(compile: bool, max_grad_norm: float) -> tuple[torch.Tensor, ...]:
        actions = torch.zeros(0)
        common: dict[str, Any] = {"compile": compile, "max_grad_norm": max_grad_norm, "learning_rate": 3e-3}
        if algorithm == "ppo":
            settings = PPOConfig(num_steps=16, epochs=1, batch_size=0, normalise_obs=True, **common)
            collector, learner = on.make(Ledger(4), settings, device=device)
            assert learner.side_by_side.jobs == (2 if compile and device == "cpu" else 1)
            metrics = [learner.update(collector.next()) for _ in range(4)]
            assert all(m["ratio"] == pytest.approx(1.0, abs=1e-5) for m in metrics[1:])
        else:
            critic = SMALL if algorithm == "sac" else replace(SMALL, members=4, subset=2)
            settings = SACConfig(critic=critic, tau=0.005 + max_grad_norm, **common)
            _, learner = off.make(Ledger(1), settings, device=device)
            learner.generator = None
            onto = lambda field: field.to(device)  # noqa: E731
            for i in range(4):
                torch.manual_seed(i)
                actions = learner.explore({k: onto(v) for k, v in off.some_batch(3).obs.items()})
                learner.update([off.some_batch(64).map(onto)])
        return learner.actor_optimiser.adam.vector, learner.critic_optimiser.adam.vector, actions

    with inductor.patch(fallback_random=True):
        eager, compiled = ([learn(way, norm) for norm in (0.5, 1e-5)] for way in (False, True))
    for one, other in zip(eager, compiled):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(eager[0][0], eager[1][0], rtol=1e-3, atol=1e-3), "the settings make no difference"


@pytest.mark.slow
def test_a_run_on_warp_leaves_a_policy_for_any_machine(tmp_path: Path) -> None:
    task = TaskConfig(id="Reach", backend="warp", kwargs={"reward": "dense"})
    train_rl(replace(small_run(ALGORITHMS["ppo"], tmp_path, 2 * 16 * 4, num_envs=4), task=task))
    assert {row["env_steps"] for row in read_metrics(tmp_path) if "eval_return" in row} == {64, 128}
    assert main(["eval", str(tmp_path / "policy"), "--episodes", "2", "--num_envs", "2"]) == 0
