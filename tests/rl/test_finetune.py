"""Fine-tuning from a policy folder to a policy folder, in a real (toy) Gymnasium environment."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robolearn.cli.main import main
from robolearn.configuration.finetune import FinetuneCommand, FinetuneConfig
from robolearn.configuration.parts.algorithms import CriticConfig
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import (
    DenoisingMLPConfig,
    DeterministicHeadConfig,
    FlowHeadConfig,
    GaussianHeadConfig,
    MixtureHeadConfig,
    MLPConfig,
    PolicyConfig,
)
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.parts.ways import PPOTuningConfig
from robolearn.configuration.tree import load
from robolearn.envs.make import make
from robolearn.errors import ConfigError, PolicyError, TrainingError
from robolearn.policies.build import build_policy
from robolearn.policies.folder import load_policy, save_policy
from robolearn.rl.finetune import FinetuneResult, finetune, prepare
from robolearn.rl.judge import Judge
from robolearn.rl.ways.practice import Practice
from robolearn.training.metrics import read_metrics
from tests.envs.toy import COUNTER, POINT_REACH

TASK = TaskConfig(id=POINT_REACH, worker_kind="sync", kwargs={"tolerance": 0.15})


def half_taught_policy(folder: Path, seed: int = 0) -> Path:
    """A mixture that has been told roughly which way to go, and does not get everywhere."""
    torch.manual_seed(seed)
    with make(TASK) as env:
        config = PolicyConfig(
            head=MixtureHeadConfig(num_modes=2, min_std=0.1), backbone=MLPConfig(hidden_sizes=(32,), activation="tanh")
        )
        policy = build_policy(config, env.observation_spec, env.action_spec)
    optimiser = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for _ in range(25):
        obs = torch.rand(128, 1, 4) * 2 - 1
        label = (obs[..., 2:] - obs[..., :2]).clamp(-1, 1)
        loss = -policy.distribution({"state": obs}).log_prob(label).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_policy(policy, folder)
    return folder


def config(policy: Path, output: Path, updates: int = 3) -> FinetuneConfig:
    return FinetuneConfig(
        policy=str(policy),
        task=TASK,
        output=str(output),
        num_envs=8,
        max_steps=30,
        eval_episodes=40,
        method=PPOTuningConfig(
            num_steps=64,
            epochs=5,
            batch_size=128,
            learning_rate=1e-3,
            critic_learning_rate=None,
            clip=0.2,
            critic_warmup=1,
            target_kl=0.05,
            critic=CriticConfig(hidden_sizes=(32,)),
        ),
        loop=LoopConfig(total_steps=updates, log_every=1, evaluate_every=0, checkpoint_every=0, tensorboard=False),
    )


def test_improves_a_policy_from_success_alone(tmp_path: Path) -> None:
    policy = half_taught_policy(tmp_path / "start")
    result = finetune(config(policy, tmp_path / "run", updates=15), tmp_path / "run")
    assert result.start["eval_success"] < 0.9
    assert result.best["eval_success"] > result.start["eval_success"] + 0.08
    assert result.test is not None
    assert result.test.difference.estimate > 0.0, "better on seeds that nothing was picked on, too"
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows if "value_loss" in row] == list(range(1, 16))
    assert [row["step"] for row in rows if "kl" in row] == list(range(2, 16)), "the critic warms up alone"
    assert all(row["env_steps"] == 8 * 64 * row["step"] for row in rows if "value_loss" in row)
    saved = load_policy(result.policy)
    assert saved.config == load_policy(policy).config
    assert "PPO" in (result.policy / "card.md").read_text()


def test_never_exports_something_worse(tmp_path: Path) -> None:
    """A learning rate that ruins the policy leaves the one it started from."""
    policy = half_taught_policy(tmp_path / "start")
    broken = config(policy, tmp_path / "run")
    broken = replace(broken, method=replace(broken.method, learning_rate=1.0, target_kl=None, critic_warmup=0))
    result = finetune(broken, tmp_path / "run")
    assert result.best == result.start
    assert result.kept_start
    assert result.note.startswith("the policy got worse: no evaluation came up to that of the start")
    assert result.note in (result.policy / "card.md").read_text()
    for name, value in load_policy(policy).state_dict().items():
        assert torch.equal(value, load_policy(result.policy).state_dict()[name])


def test_resume_equals_no_interruption(tmp_path: Path) -> None:
    policy = half_taught_policy(tmp_path / "start")

    def run(name: str, updates: int, resume: bool = False) -> FinetuneResult:
        c = replace(config(policy, tmp_path / name, updates), export="last", eval_episodes=4, test_episodes=0)
        return finetune(c, tmp_path / name, resume=resume)

    whole = run("whole", 4)
    run("parts", 2)
    with pytest.raises(TrainingError, match="resume it"):
        run("parts", 4)
    parts = run("parts", 4, resume=True)
    assert parts.env_steps == whole.env_steps
    for name, value in load_policy(whole.policy).state_dict().items():
        assert torch.equal(value, load_policy(parts.policy).state_dict()[name]), name


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "configs" / "finetune").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert load(FinetuneCommand, path).task is not None


def test_training_seeds_keep_out_of_the_evaluations_way(tmp_path: Path) -> None:
    c = replace(config(tmp_path, tmp_path), test_episodes=30)
    assert c.eval_seeds == range(19_960, 20_000)
    assert c.test_seeds == range(19_930, 19_960)
    few = replace(c, num_seeds=80)
    with make(TASK, 8) as env:
        learner = prepare(
            few, load_policy(half_taught_policy(tmp_path / "start")), Practice(env=env), torch.device("cpu")
        )
        assert set(learner.source.driver.seeds.take(100)) == set(range(10_000, 10_010))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, run = half_taught_policy(tmp_path / "start"), tmp_path / "run"
    arguments = [policy, "--method", "ppo", "--task", POINT_REACH, "--task.worker_kind", "sync", "--output", run]
    small = ["--num_envs", 2, "--method.num_steps", 40, "--loop.total_steps", 1, "--eval_episodes", 2]
    small += ["--task.kwargs.tolerance", 0.3]
    assert main(["finetune", *map(str, arguments + small)]) == 0
    out = capsys.readouterr().out
    assert "success on held-out seeds" in out
    assert "on 100 fresh seeds, fine-tuned against start" in out
    assert str(run / "policy") in out
    assert (run / "config.yaml").exists()
    assert json.loads((run / "start.json").read_text())["eval_success"] <= 1.0
    assert main(["finetune", *map(str, arguments + small)]) == 2
    assert "resume it" in capsys.readouterr().err


def test_a_policy_that_got_worse_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its evaluations were lucky, the test on fresh seeds is not: the start is exported, unless the last was asked."""
    policy = half_taught_policy(tmp_path / "start")
    broken = config(policy, tmp_path / "run")
    broken = replace(broken, method=replace(broken.method, learning_rate=1.0, target_kl=None, critic_warmup=0))
    last = finetune(replace(broken, export="last"), tmp_path / "last")
    assert last.test is not None
    assert not last.kept_start
    assert last.note == f"the policy got worse: {last.test}"
    assert last.test.counts.only_first > last.test.counts.only_second
    monkeypatch.setattr(
        Judge, "start", lambda judge, policy, resume: {"eval_success": 0.0, "eval_steps": 30.0, "score": -1.0}
    )
    best = finetune(broken, tmp_path / "run")
    assert best.kept_start
    assert best.note.startswith("the policy got worse: fine-tuned against start")
    weights = load_policy(policy).state_dict()
    assert all(torch.equal(v, weights[name]) for name, v in load_policy(best.policy).state_dict().items())


def test_refusals(tmp_path: Path) -> None:
    policy = half_taught_policy(tmp_path / "policy")
    with pytest.raises(
        PolicyError, match=r"sees 'state' as float32 \(4,\); the task .*Counter-v0 offers float32 \(3,\)"
    ):
        finetune(replace(config(policy, tmp_path / "a"), task=TaskConfig(id=COUNTER)), tmp_path / "a")
    with pytest.raises(ConfigError, match="it is never written over"):
        finetune(config(tmp_path / "policy", tmp_path), tmp_path)
    with pytest.raises(ConfigError, match="leave no seed to practise on out of num_seeds 200; raise num_seeds"):
        FinetuneConfig(policy="p", num_seeds=200)
    with pytest.raises(ConfigError, match="export last"):
        FinetuneConfig(policy="p", task=TASK, eval_episodes=0)
    with make(TASK) as env:
        plain = PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,)))
        other = build_policy(plain, env.observation_spec, replace(env.action_spec, low=(0,), high=(1,), names=("x",)))
    save_policy(other, tmp_path / "other")
    with pytest.raises(PolicyError, match=r"has 1 actions \(x\), the task .*PointReach-v0 takes 2"):
        finetune(config(tmp_path / "other", tmp_path / "b"), tmp_path / "b")


@pytest.mark.parametrize(
    ("head", "method", "message"),
    [
        (
            "flow",
            "ppo",
            "a policy of flow on mlp does not have; take .*for diffusion and flow --method chain_ppo",
        ),
        ("deterministic", "ppo", "a policy of deterministic on mlp does not have; take .*--method residual"),
        ("deterministic", "chain_ppo", "trains the steps of diffusion and flow heads, this policy has head 'determin"),
        ("mixture", "sac", "needs a cloned tanh-Gaussian .*this policy has head 'mixture'; method residual takes any"),
        ("mixture", "chain_ppo", "this policy has head 'mixture'; method ppo trains it"),
    ],
)
def test_a_way_that_does_not_fit_the_head_names_one_that_does(
    head: str, method: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = {
        "flow": FlowHeadConfig(network=DenoisingMLPConfig(width=8, num_blocks=1)),
        "deterministic": DeterministicHeadConfig(),
        "mixture": MixtureHeadConfig(),
    }
    with make(TASK) as env:
        policy = build_policy(PolicyConfig(head=heads[head]), env.observation_spec, env.action_spec)
    save_policy(policy, tmp_path / "start")
    words = ["finetune", tmp_path / "start", "--method", method, "--task", POINT_REACH, "--task.worker_kind", "sync"]
    assert main([*map(str, words), "--num_envs", "2", "--output", str(tmp_path / "run")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(message, said), said
    assert not (tmp_path / "run").exists(), "what is refused leaves nothing behind"


def recorded(folder: Path, task: str) -> Path:
    path = folder / f"{len(list(folder.glob('*.hdf5')))}.hdf5"
    words = ["record", path, "--task", task, "--episodes", 2]
    assert main([*map(str, words)]) == 0
    return path


def test_demonstrations_of_a_cloning_loss_are_read_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reach, lift = recorded(tmp_path, "Reach"), recorded(tmp_path, "Lift")
    clone = ["train", "--dataset", reach, "--output", tmp_path / "clone", "--policy.backbone.hidden_sizes", 16]
    budget = ["--loop.total_steps", 5, "--loop.evaluate_every", 0, "--policy.head", "gaussian"]
    assert main([*map(str, [*clone, *budget])]) == 0
    words = ["finetune", tmp_path / "clone", "--num_envs", 2, "--max_steps", 10, "--eval_episodes", 2]
    words += ["--test_episodes", 0, "--method.num_steps", 8, "--method.critic_warmup", 0, "--loop.total_steps", 1]
    capsys.readouterr()
    assert main([*map(str, [*words, "--demonstrations", lift, "--output", tmp_path / "refused"])]) == 2
    assert "'goal'" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()
    assert main([*map(str, [*words, "--demonstrations", reach, "--output", tmp_path / "run"])]) == 0
    assert any("cloning_loss" in row for row in read_metrics(tmp_path / "run"))
    assert main([*map(str, [*words, "--method.cloning_coef", -1, "--output", tmp_path / "negative"])]) == 2
    assert "cloning_coef must not be negative, received -1" in capsys.readouterr().err


@pytest.mark.slow
def test_practice_on_warp_leaves_a_policy_for_any_machine(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with make("Fork") as env:
        policy = build_policy(PolicyConfig(obs_steps=1), env.observation_spec, env.action_spec)
        save_policy(policy, tmp_path / "start", env_args=env.env_args)
    small = ["--max_steps", "4", "--num_envs", "2", "--method.num_steps", "6", "--method.batch_size", "6"]
    small += ["--eval_episodes", "2", "--test_episodes", "0", "--loop.total_steps", "3", "--export", "last"]
    warp = ["--task.id", "Fork", "--task.backend", "warp", "--task.max_steps", "3"]
    warp += ["--task.kwargs", "{reward: dense}", "--reward", "env"]
    arguments = [str(tmp_path / "start"), "--output", str(tmp_path / "run"), *warp, *small]
    assert main(["finetune", *arguments]) == 0
    assert max(row.get("env_steps", 0) for row in read_metrics(tmp_path / "run")) == 3 * 6 * 2
    start, tuned = (load_policy(tmp_path / name).state_dict() for name in ("start", "run/policy"))
    assert any(not torch.equal(start[name], tuned[name]) for name in start), "practice changes the policy"
    assert main(["eval", str(tmp_path / "run" / "policy"), "--episodes", "2", "--num_envs", "2"]) == 0
