"""Residual learning and SAC with demonstrations: from a policy folder to a better one, through the command line too."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from robolearn.cli.main import main
from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.algorithms import QConfig, TD3Config
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import (
    DenoisingMLPConfig,
    DeterministicHeadConfig,
    DiffusionHeadConfig,
    GaussianHeadConfig,
    MLPConfig,
    PolicyConfig,
    TransformerConfig,
    VisionConfig,
)
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.parts.ways import ResidualConfig, ResidualPPOConfig, SACTuningConfig
from robolearn.configuration.record import RecordConfig
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.make import make
from robolearn.episodes.record import record
from robolearn.errors import PolicyError
from robolearn.evaluation.evaluate import evaluate
from robolearn.policies.build import build_policy
from robolearn.policies.folder import load_policy, save_policy
from robolearn.policies.policy import Policy
from robolearn.policies.residual import BASE_ACTION, ResidualPolicy, build_correction
from robolearn.rl.collecting.base_env import BaseEnv
from robolearn.rl.collecting.macro_steps import EpisodeDriver, SeedStream
from robolearn.rl.finetune import FinetuneResult, finetune, prepare
from robolearn.rl.networks import ExecutedActionValues
from robolearn.rl.td3 import TD3
from robolearn.rl.ways.practice import Practice
from robolearn.rl.ways.residual import GrowingCorrection
from robolearn.specs import ActionSpec, ArraySpec, Batch, ObservationSpec
from robolearn.training.metrics import read_metrics
from tests.envs.toy import COUNTER, POINT_REACH
from tests.rl.test_off_policy import some_batch
from tests.rl.toys import Ledger

TASK = TaskConfig(id=POINT_REACH, worker_kind="sync", kwargs={"tolerance": 0.12})
SMALL = QConfig(hidden_sizes=(32, 32), members=4, layer_norm=True)
STATISTICS = {
    "state": {
        "mean": np.zeros(4),
        "std": np.full(4, 0.6),
        "min": -np.ones(4),
        "max": np.ones(4),
        "q01": -np.ones(4),
        "q99": np.ones(4),
    }
}


def half_taught(folder: Path, head: Any = None, updates: int = 300, **steps: int) -> Path:
    """A policy that was told which way to go with an error in one direction, so that it stops beside some goals."""
    torch.manual_seed(0)
    with make(TASK) as env:
        config = PolicyConfig(head=head or GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(64,)), **steps)
        statistics = STATISTICS | {"actions": {k: v[:2] for k, v in STATISTICS["state"].items()}}
        policy = build_policy(config, env.observation_spec, env.action_spec, statistics)
    optimiser, length = torch.optim.Adam(policy.parameters(), lr=3e-3), config.obs_steps - 1 + config.pred_steps
    for _ in range(updates):
        obs = torch.rand(128, 1, 4) * 2 - 1
        label = ((obs[..., 2:] - obs[..., :2]) / 0.2 + torch.tensor([0.9, 0.0])).clamp(-1, 1)
        batch = Batch(
            obs={"state": obs.expand(-1, config.obs_steps, -1)},
            actions=label.expand(-1, length, -1),
            valid=torch.ones(128, length, dtype=torch.bool),
            weights=torch.ones(128),
            episodes=torch.zeros(128, dtype=torch.int64),
            steps=torch.zeros(128, dtype=torch.int64),
        )
        loss = policy.loss(batch)[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_policy(policy, folder, env_args=TASK.env_args())
    return folder


def demonstrations(path: Path, episodes: int = 10) -> Path:
    config = RecordConfig(
        task=TASK, output=str(path), episodes=episodes, expert="tests.envs.toy:point_reach_expert", num_envs=2
    )
    record(config)
    return path


def algorithm(**changes: Any) -> SACTuningConfig:
    values = {"random_steps": 300, "collect_steps": 8, "batch_size": 64, "critic": SMALL, "critic_warmup": 60}
    return SACTuningConfig(**(values | {"gamma": 0.95, "learning_rate": 1e-3} | changes))


def config(policy: Path, output: Path, updates: int = 3, method: Any = None, **changes: Any) -> FinetuneConfig:
    network = PolicyConfig(backbone=MLPConfig(hidden_sizes=(32, 32)), head=GaussianHeadConfig(initial_std=0.3))
    usual = ResidualConfig(algorithm=algorithm(), scale=0.6, first_scale=0.3, scale_steps=100, policy=network)
    values: dict[str, Any] = {
        "policy": str(policy),
        "task": TASK,
        "output": str(output),
        "num_envs": 4,
        "max_steps": 40,
        "eval_episodes": 20,
        "test_episodes": 10,
        "method": method or usual,
        "loop": LoopConfig(total_steps=updates, log_every=1, evaluate_every=0, checkpoint_every=0, tensorboard=False),
    }
    return FinetuneConfig(**(values | changes))


DIFFUSION = DiffusionHeadConfig(
    network=DenoisingMLPConfig(width=64, num_blocks=1), train_steps=20, inference_steps=4, solver="ddim"
)


def with_three_seeds(config: FinetuneConfig, folder: Path) -> list[FinetuneResult]:
    """Fine-tune with three training seeds; success must rise by .15 in the mean."""
    results = [finetune(replace(config, seed=seed), folder / str(seed)) for seed in range(3)]
    assert all(result.start["eval_success"] < 0.6 for result in results)
    assert sum(result.best["eval_success"] - result.start["eval_success"] for result in results) / 3 > 0.15
    return results


@pytest.mark.learning
@pytest.mark.parametrize("head", [GaussianHeadConfig(), DeterministicHeadConfig()], ids=["single", "chunks"])
def test_a_correction_mends_what_the_base_cannot(head: Any, tmp_path: Path) -> None:
    """From sparse success, without demonstrations; chunks by the same road."""
    steps = {} if head.name == "gaussian" else {"pred_steps": 4, "exec_steps": 2}
    policy = half_taught(tmp_path / "start", head, **steps)
    before = load_policy(policy).state_dict()
    fast = algorithm(collect_steps=16, learning_rate=3e-3, temperature=0.003)
    c = config(policy, tmp_path / "run", updates=45)
    c = replace(c, method=replace(c.method, algorithm=fast, scale=0.9, first_scale=0.5))  # type: ignore[type-var]
    result = max(with_three_seeds(c, tmp_path), key=lambda result: result.best["eval_success"])
    assert not result.kept_start
    tuned = load_policy(result.policy)
    assert isinstance(tuned, ResidualPolicy)
    assert all(torch.equal(value, before[name]) for name, value in tuned.base.state_dict().items())
    with make(TASK, 4) as env:
        again = evaluate(tuned, env, list(config(policy, tmp_path).eval_seeds))
    assert again.success_rate == result.best["eval_success"], "the folder is what was evaluated"
    rows = read_metrics(result.policy.parent)
    assert all(np.isfinite(row["critic_error_least"]) for row in rows if "eval_success" in row)


def test_resume_equals_no_interruption(tmp_path: Path) -> None:
    policy, data = half_taught(tmp_path / "start", pred_steps=4, exec_steps=2), demonstrations(tmp_path / "d.hdf5")
    for name, method in {
        "sac": None,
        "td3": ResidualConfig(algorithm=td3(), scale_steps=50),
        "ppo": on_policy(),
    }.items():
        shown = () if name == "ppo" else (str(data),)

        def one(run: str, updates: int, name: str = name, method: Any = method, shown: Any = shown) -> FinetuneConfig:
            folder = tmp_path / f"{name}_{run}"
            few = {"eval_episodes": 4, "test_episodes": 0}
            return config(policy, folder, updates, method, export="last", demonstrations=shown, **few)

        whole, parts = one("whole", 4), one("parts", 4)
        finetune(whole, whole.output)
        finetune(one("parts", 2), parts.output)
        finetune(parts, parts.output, resume=True)
        first, second = (load_policy(Path(c.output) / "policy").state_dict() for c in (whole, parts))
        assert all(torch.equal(value, second[key]) for key, value in first.items())
        assert any(value.abs().sum() > 0 for key, value in first.items() if key.startswith("correction.head.mean"))


def on_policy(**changes: Any) -> ResidualPPOConfig:
    values = {"num_steps": 16, "batch_size": 64, "critic_warmup": 1, "scale": 0.9, "gamma": 0.95, "target_kl": None}
    return ResidualPPOConfig(**(values | changes))


@pytest.mark.learning
def test_a_correction_by_ppo_mends_chunks(tmp_path: Path) -> None:
    """From sparse success, of a base without a likelihood, which stays as it is."""
    policy = half_taught(tmp_path / "start", DeterministicHeadConfig(), pred_steps=4, exec_steps=2)
    before = load_policy(policy).state_dict()
    c = config(policy, tmp_path / "run", 40, on_policy(learning_rate=1e-3), num_envs=16)
    tuned = load_policy(with_three_seeds(c, tmp_path)[0].policy)
    assert isinstance(tuned, ResidualPolicy)
    assert all(torch.equal(value, before[name]) for name, value in tuned.base.state_dict().items())


def test_a_correction_by_ppo_begins_as_the_base_and_has_ratios_of_one(tmp_path: Path) -> None:
    """Of the rollout's raw samples under the correction that drew them; the densities by hand."""
    base = load_policy(half_taught(tmp_path / "start", DeterministicHeadConfig(), pred_steps=4, exec_steps=2))
    c = config(tmp_path / "start", tmp_path / "run", 2, on_policy(scale=0.3))
    with make(TASK, 4) as env:
        learner = prepare(c, base, Practice(env=env), torch.device("cpu"))
        assert isinstance(learner.actor, ResidualPolicy)
        correction = learner.actor.correction
        rollout = learner.source.next()
        obs, actions = rollout.flat_obs(), rollout.actions.flatten(0, 1)
        distribution = correction.distribution(obs)
        assert torch.equal(distribution.mode(), obs[BASE_ACTION])
        torch.testing.assert_close(distribution.log_prob(actions).flatten(), rollout.log_probs.flatten())
        drawn = torch.atanh((actions - obs[BASE_ACTION]) / 0.3)  # u of c = tanh(u), u ~ N(0, std)
        std = distribution.corrections.std
        by_hand = torch.distributions.Normal(0.0, std).log_prob(drawn) - torch.log1p(-(torch.tanh(drawn) ** 2))
        torch.testing.assert_close(rollout.log_probs.flatten(), by_hand.sum((-1, -2)), rtol=1e-3, atol=1e-3)
        assert "kl" not in learner.algorithm.update(rollout), "the critic learns alone at first"
        before = {name: value.clone() for name, value in base.state_dict().items()}
        metrics = learner.algorithm.update(learner.source.next())
        assert metrics["kl"] < 0.1
        assert correction.head.mean.weight.abs().sum() > 0
        assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def td3() -> TD3Config:
    return TD3Config(random_steps=300, collect_steps=8, utd=0.5, batch_size=64, critic=SMALL, critic_warmup=60)


def test_the_environment_shows_what_the_base_would_do(tmp_path: Path) -> None:
    """Against a runner of its own in the same episodes, through ends, resets and a replay of the running episodes."""
    base = load_policy(half_taught(tmp_path / "start", pred_steps=4, exec_steps=3))
    task = replace(TASK, max_steps=7)
    generator = torch.Generator().manual_seed(0)
    with make(task, 3) as inner, make(task, 3) as other:
        env = BaseEnv(inner, base)
        driver = EpisodeDriver(env, seeds=SeedStream(0, 50), gamma=0.9, reward="success")
        assert tuple(env.observation_spec) == ("state", BASE_ACTION)
        runners = [PolicyRunner(base, 1) for _ in range(3)]
        for runner, seed in zip(runners, driver.episode_seeds):
            runner.reset([seed])
        for _ in range(17):
            check_proposals(driver, runners)
            transition = driver.advance(torch.rand(3, 1, 2, generator=generator) * 2 - 1)
            shown = {k: v.clone() for k, v in transition.next_obs.items()}
            driver.restart(transition.done)
            for i in transition.done.nonzero()[:, 0].tolist():
                successor = runners[i].act({"state": shown["state"][i]})
                assert torch.equal(shown[BASE_ACTION][i, 0], successor[0].float()), "the true successor has one as well"
                runners[i].reset([driver.episode_seeds[i]])
        again = EpisodeDriver(BaseEnv(other, base), seeds=SeedStream(0, 50), gamma=0.9, reward="success")
        again.load_state_dict(driver.state_dict())
        for key, value in driver.window.items():
            assert torch.equal(value, again.window[key])
        actions = torch.rand(3, 1, 2, generator=generator)
        a, b = (d.advance(actions).next_obs for d in (driver, again))
        assert all(torch.equal(a[key], b[key]) for key in a)


def check_proposals(driver: EpisodeDriver, runners: list[PolicyRunner]) -> None:
    for i, runner in enumerate(runners):
        proposed = runner.act({"state": driver.window["state"][i]})
        assert torch.equal(driver.window[BASE_ACTION][i, 0], proposed[0])


def growing(method: ResidualConfig) -> GrowingCorrection:
    env = Ledger(1)
    base = build_policy(
        PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,))),
        env.observation_spec,
        env.action_spec,
        {
            name: {k: v[:size] for k, v in STATISTICS["state"].items()}
            for name, size in {"state": 3, "actions": 1}.items()
        },
    )
    correction = build_correction(method.policy, base, method.first_scale)
    return GrowingCorrection(correction, ExecutedActionValues.beside(correction, method.algorithm.critic), method)


def test_critics_of_corrections_refuse_tokens() -> None:
    spec = ObservationSpec({"state": ArraySpec(shape=(4,)), "front": ArraySpec(shape=(40, 40, 3), dtype="uint8")})
    action = ActionSpec(low=(-1.0,), high=(1.0,))
    base = build_policy(PolicyConfig(vision=VisionConfig(network="shallow")), spec, action, STATISTICS)
    seeing = PolicyConfig(
        head=GaussianHeadConfig(),
        backbone=TransformerConfig(width=8, num_heads=2, num_layers=1),
        vision=VisionConfig(network="shallow", tokens=2),
    )
    with pytest.raises(PolicyError, match=r"see no tokens of pictures; give the correction policy.vision.tokens 0"):
        ExecutedActionValues.beside(build_correction(seeing, base), SMALL)


def batch_of(rows: int = 32):
    batch = some_batch(rows)
    proposed = torch.rand(rows, 1, 1, generator=torch.Generator().manual_seed(5)) - 0.5
    return batch._replace(
        obs=batch.obs | {BASE_ACTION: proposed}, next_obs=batch.next_obs | {BASE_ACTION: proposed.flip(0)}
    )


def test_the_scale_grows_after_the_warm_up_and_the_correction_waits_for_it() -> None:
    method = ResidualConfig(
        algorithm=algorithm(critic_warmup=10),
        first_scale=0.1,
        scale=0.5,
        scale_steps=20,
        policy=PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,))),
    )
    learner = growing(method)
    start = [p.clone() for p in learner.correction.parameters()]
    scales = []
    for update in range(8):
        metrics = learner.update([batch_of()] * 5)
        scales.append(metrics["scale"])
        assert ("actor_loss" in metrics) == (update >= 2)
        if update < 2:
            assert all(torch.equal(a, b) for a, b in zip(start, learner.correction.parameters()))
    assert scales == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5])
    assert learner.correction.scale.item() == pytest.approx(0.5)


def test_the_target_of_td3_corrects_as_much_as_the_policy() -> None:
    small = PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,)))
    td3 = TD3Config(critic=SMALL)
    learner = growing(ResidualConfig(algorithm=td3, first_scale=0.1, scale=0.5, scale_steps=0, policy=small))
    learner.update([batch_of()] * 2)
    assert isinstance(learner.learner, TD3)
    assert learner.learner.target_policy.get_buffer("scale").item() == pytest.approx(0.5)


def test_critics_value_what_is_executed_whoever_proposed_it() -> None:
    learner = growing(
        ResidualConfig(
            algorithm=algorithm(), policy=PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,)))
        )
    )
    critic, batch = learner.learner.critic, batch_of()
    values = critic(batch.obs, batch.actions)
    assert torch.equal(values, critic(batch.obs | {BASE_ACTION: torch.zeros(32, 1, 1)}, batch.actions))
    assert torch.equal(critic(batch.obs, torch.full((32, 1, 1), 1.7)), critic(batch.obs, torch.ones(32, 1, 1)))


def test_sac_targets_by_hand_without_entropy() -> None:
    """y = r + gamma^n min of two Q'(s', b' + scale tanh(mean')), which is b' for a correction of zero."""
    learner = growing(
        ResidualConfig(
            algorithm=algorithm(critic=replace(SMALL, members=2)),
            policy=PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,))),
        )
    ).learner
    batch = batch_of()

    class Zero:
        def normal(self, *shape: int) -> torch.Tensor:
            return torch.zeros(32, *shape)

    with torch.no_grad():
        target = learner.targets(batch, torch.tensor([3.0]), Zero())  # type: ignore[call-arg]
        q = learner.target({"state": batch.next_obs["state"]}, batch.next_obs[BASE_ACTION])
    torch.testing.assert_close(target, batch.rewards + batch.discounts * q.amin(0))
    assert learner.target_entropy == -0.5


@pytest.mark.learning
def test_sac_goes_on_from_a_cloned_tanh_gaussian_with_demonstrations(tmp_path: Path) -> None:
    policy, data = half_taught(tmp_path / "start"), demonstrations(tmp_path / "d.hdf5")
    c = config(
        policy, tmp_path / "run", 40, algorithm(collect_steps=16, critic_warmup=200), demonstrations=(str(data),)
    )
    result = with_three_seeds(c, tmp_path)[0]
    tuned = load_policy(result.policy)
    assert type(tuned) is Policy
    assert "SAC" in (result.policy / "card.md").read_text()


SHORT = ["--num_envs", 2, "--eval_episodes", 2, "--test_episodes", 2, "--loop.total_steps", 2]
RESIDUAL = ["--method", "residual", "--method.algorithm.collect_steps", 4, "--method.algorithm.random_steps", 40]
RESIDUAL += ["--method.algorithm.critic.members", 2, "--method.algorithm.critic.hidden_sizes", 16]


def command(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.long
def test_command_line_from_demonstrations_to_a_correction_of_a_correction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, data = (
        half_taught(tmp_path / "start", obs_steps=2, pred_steps=4, exec_steps=2),
        demonstrations(tmp_path / "d.hdf5", 4),
    )
    once, twice = tmp_path / "once", tmp_path / "twice"
    options = [*RESIDUAL, *SHORT, "--max_steps", 20, "--export", "last", "--demonstrations", data]
    assert command("finetune", policy, *options, "--output", once) == 0
    out = capsys.readouterr()
    assert "1 at the last step of 4 of 4 episodes" in out.err
    assert str(once / "policy") in out.out
    assert command("finetune", once, *options, "--output", twice) == 0
    tuned = load_policy(twice)
    assert isinstance(tuned, ResidualPolicy)
    assert isinstance(tuned.base, ResidualPolicy)
    capsys.readouterr()
    few = ["--episodes", 3, "--videos", 0]
    assert command("eval", once, twice, *few, "--exec_steps", 3, "--output", tmp_path / "eval") == 0
    assert "success" in capsys.readouterr().out
    assert command("plot", "critic", once, "--output", tmp_path / "critic.png") == 0
    assert "least of several: predicted minus realised return" in capsys.readouterr().out
    assert (tmp_path / "critic.png").stat().st_size > 5000
    lines = [json.loads(line) for line in (once / "critic.jsonl").read_text().splitlines()]
    assert len(lines[-1]["one"]) == len(lines[-1]["least"]) == len(lines[-1]["realised"]) == 2


def test_evaluations_beyond_the_checkpoint_are_forgotten_by_a_run_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a kill after the last checkpoint leaves in critic.jsonl is made anew, and a run begun again begins anew."""
    policy, run = half_taught(tmp_path / "start", updates=1), tmp_path / "run"
    words = ["finetune", policy, *RESIDUAL, *SHORT[:-2], "--max_steps", 20, "--export", "last", "--output", run]
    words += ["--loop.evaluate_every", 2, "--loop.checkpoint_every", 2]
    critic, start = run / "critic.jsonl", run / "start.json"

    def steps() -> list[int]:
        return [json.loads(line)["step"] for line in critic.read_text().splitlines()]

    assert command(*words, "--loop.total_steps", 4) == 0
    assert steps() == [2, 4]
    row = json.loads(critic.read_text().splitlines()[-1])
    stale = [json.dumps(row | {"step": step, "one": [999.0, 999.0]}) + "\n" for step in (5, 6)]
    critic.write_text(critic.read_text() + "".join(stale) + stale[0][:20])
    assert command(*words, "--loop.total_steps", 8, "--resume") == 0
    assert steps() == [2, 4, 6, 8]
    assert "999.0" not in critic.read_text()
    capsys.readouterr()
    assert command("plot", "critic", run, "--output", tmp_path / "critic.txt") == 2
    assert "output must end in .png, .svg or .pdf" in capsys.readouterr().err
    for damaged in ("{", '{"step": 2, "one": "x"}'):
        critic.write_text(f"{damaged}\n{json.dumps(row)}\n")
        assert command("plot", "critic", run, "--output", tmp_path / "critic.png") == 2
        assert "line 1 of" in capsys.readouterr().err
    critic.write_text(json.dumps(row) + "\n")
    shutil.rmtree(run / "checkpoints")  # killed before the first one: nothing of it counts
    start.write_text(json.dumps(json.loads(start.read_text()) | {"eval_success": 77.0}))
    assert command(*words, "--loop.total_steps", 2) == 0
    assert steps() == [2]
    assert json.loads(start.read_text())["eval_success"] <= 1.0


@pytest.mark.long
def test_refusals_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, data = half_taught(tmp_path / "start"), demonstrations(tmp_path / "d.hdf5", 3)

    def refused(*words: object) -> str:
        assert command(*words) == 2
        return capsys.readouterr().err

    run = ["--output", tmp_path / "run"]
    assert "offers float32 (3,)" in refused("finetune", policy, *RESIDUAL, *SHORT, *run, "--task", COUNTER)
    narrow = [*RESIDUAL, *SHORT, *run, "--demonstrations", data]
    assert "sees 'state'" in refused("finetune", policy, *narrow, "--rename", "{state: other}")
    faster = tmp_path / "faster.hdf5"
    shutil.copy(data, faster)
    with h5py.File(faster, "r+") as file:
        file["data"].attrs["control_hz"] *= 2
    assert "was recorded at 20 Hz" in refused("finetune", policy, *RESIDUAL, *SHORT, *run, "--demonstrations", faster)
    failures = tmp_path / "failures.hdf5"
    words = ["--task", POINT_REACH, "--task.worker_kind", "sync", "--task.max_steps", 2, "--keep_failures", "true"]
    expert = ["--expert", "tests.envs.toy:point_reach_expert"]
    assert command("record", *words, *expert, "--episodes", 2, "--output", failures) == 0
    with Dataset(failures) as dataset:
        assert not any(info.success for info in dataset.info)
    capsys.readouterr()
    assert "are failures only" in refused("finetune", policy, *RESIDUAL, *SHORT, *run, "--demonstrations", failures)
    plain = tmp_path / "plain"
    with make(TASK) as env:
        save_policy(
            build_policy(PolicyConfig(head=GaussianHeadConfig()), env.observation_spec, env.action_spec),
            plain,
            env_args=TASK.env_args(),
        )
    assert "does not normalise 'state'" in refused("finetune", plain, *RESIDUAL, *SHORT, *run)
    diffusion = half_taught(tmp_path / "diffusion", DIFFUSION, updates=1, pred_steps=4)
    assert "a cloned tanh-Gaussian" in refused("finetune", diffusion, "--method", "sac", *SHORT, *run)
    assert command("finetune", policy, *RESIDUAL, *SHORT, "--output", tmp_path / "done", "--export", "last") == 0
    capsys.readouterr()
    small = ["--loop.total_steps", 1, "--batch_size", 4]
    cloned = refused("train", "--dataset", data, "--init_policy", tmp_path / "done/policy", *small, *run)
    assert "not trained by cloning, it learns from reward: finetune --method residual" in cloned
    dagger = ["--dataset", data, "--rounds", 1, "--expert", expert[1], *run]
    assert "--from_scratch true" in refused("dagger", "--policy", tmp_path / "done/policy", *dagger)
    by_ppo = ["--method", "residual_ppo", *SHORT, *run]
    assert "leave demonstrations out, or take residual" in refused(
        "finetune", policy, *by_ppo, "--demonstrations", data
    )
    assert "normalise_obs" in refused("finetune", policy, *by_ppo, "--method.normalise_obs", "true")
    assert "does not normalise 'state'" in refused("finetune", plain, *by_ppo)
    for way in ("ppo", "chain_ppo", "sac"):
        said = refused("finetune", tmp_path / "done", "--method", way, *SHORT, *run)
        assert f"method {way} trains a policy's own network" in said
        assert "corrected by up to" in said
        assert "method residual or residual_ppo" in said


@pytest.mark.long
def test_dagger_takes_a_corrected_policy_as_the_one_that_acts(tmp_path: Path) -> None:
    policy, data = half_taught(tmp_path / "start", pred_steps=4, exec_steps=2), demonstrations(tmp_path / "d.hdf5", 3)
    assert command("finetune", policy, *RESIDUAL, *SHORT, "--output", tmp_path / "r", "--export", "last") == 0
    words = ["--policy", tmp_path / "r/policy", "--dataset", data, "--expert", "tests.envs.toy:point_reach_expert"]
    small = ["--rounds", 1, "--episodes_per_round", 2, "--eval_episodes", 2, "--loop.total_steps", 2, "--batch_size", 8]
    assert command("dagger", *words, *small, "--from_scratch", "true", "--output", tmp_path / "dagger") == 0
    assert type(load_policy(tmp_path / "dagger" / "policy")) is Policy


def test_rlpd_from_scratch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = demonstrations(tmp_path / "d.hdf5", 4)
    base = ["rl", "--task", POINT_REACH, "--task.worker_kind", "sync", "--output", tmp_path / "run", "--env_steps", 200]
    sac = ["--algorithm", "sac", "--algorithm.random_steps", 100, "--algorithm.batch_size", 16, "--eval_episodes", 2]
    assert command(*base, *sac, "--demonstrations", data, "--reward", "success") == 0
    assert "of 4 of 4 episodes" in capsys.readouterr().err
    assert (tmp_path / "run" / "critic.jsonl").exists()
    assert command(*base, "--algorithm", "ppo", "--demonstrations", data) == 2
    assert "algorithm sac or td3" in capsys.readouterr().err


@pytest.mark.slow
def test_compiled_updates_equal_eager_ones() -> None:
    """The same draws, a random pair of four critics among them: the same weights while the scale grows."""
    import torch._inductor.config as inductor

    def learn(compile: bool) -> tuple[torch.Tensor, ...]:
        method = ResidualConfig(
            algorithm=algorithm(compile=compile, critic_warmup=4, critic=replace(SMALL, hidden_sizes=(16,))),
            scale_steps=6,
            policy=PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,))),
        )
        torch.manual_seed(0)
        growing_one = growing(method)
        learner = growing_one.learner
        learner.generator = None
        actions = torch.zeros(0)
        for i in range(5):
            torch.manual_seed(i)
            actions = learner.explore(batch_of(3).obs)
            growing_one.update([batch_of(64)] * 2)
        return learner.actor_optimiser.adam.vector, learner.critic_optimiser.adam.vector, actions

    with inductor.patch(fallback_random=True):
        eager, compiled = learn(False), learn(True)
    for one, other in zip(eager, compiled):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
