"""A corrector in practice (HIL-SERL): who did what in the replay and in the file, resuming, and what it is good for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robolearn.configuration.finetune import CorrectorConfig, FinetuneConfig
from robolearn.configuration.parts.algorithms import SACConfig
from robolearn.configuration.parts.gates import HumanGateConfig
from robolearn.configuration.parts.ways import PPOTuningConfig
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.adapted import AdaptedEnv
from robolearn.envs.make import make
from robolearn.errors import ConfigError
from robolearn.imitation.gates.gate import BaseGate, Verdict, View
from robolearn.policies.folder import load_policy
from robolearn.rl.collecting.base_env import BaseEnv
from robolearn.rl.collecting.corrected_env import CorrectedEnv
from robolearn.rl.collecting.macro_steps import EpisodeDriver, SeedStream
from robolearn.rl.collecting.replay_collector import ReplayCollector
from robolearn.rl.finetune import finetune
from robolearn.specs import ActionMode, Observation
from robolearn.training.metrics import read_metrics
from tests.envs.toy import point_reach_expert
from tests.rl.test_residual import TASK, algorithm, config, demonstrations, half_taught
from tests.rl.toys import Ledger

EXPERT = "tests.envs.toy:point_reach_expert"
QUICK = HumanGateConfig(reaction_s=0.1, stall_s=0.4, least_s=0.2)


class Sometimes(BaseGate):
    """The corrector makes the steps that the ledger's counter says: the third and the fourth."""

    def judge(self, view: View) -> Verdict:
        step = view.obs["state"][:, 1].numpy()
        return Verdict(correct=(step == 2) | (step == 3))


class Half:
    """A corrector that always does 0.5."""

    def reset(self, seeds: Sequence[int], mask: Tensor | None = None) -> None: ...

    def act(self, obs: Observation) -> Tensor:
        return torch.full((len(obs["state"]), 1), 0.5)


class Constantly:
    """A learner that always proposes chunks of -0.25."""

    network = torch.nn.Identity()

    def explore(self, window: Observation, generator: Any = None, network: Any = None) -> Tensor:
        return torch.full((len(window["state"]), 4, 1), -0.25)


def collector(seed: int = 0, **changes: Any) -> ReplayCollector:
    toy: Any = Ledger(3)
    env = CorrectedEnv(toy, Half(), Sometimes())
    driver = EpisodeDriver(env, seeds=SeedStream(0, 50), gamma=0.9, reward="env", corrections=env)
    values: dict[str, Any] = {"random_steps": 0, "collect_steps": 5, "batch_size": 64, "capacity": 60, "n_step": 2}
    sac = SACConfig(**(values | changes))
    return ReplayCollector(driver, Constantly(), sac, exec_steps=3, seed=seed, first_actions="policy")


@pytest.mark.parametrize("overlap", [False, True])
def test_both_buffers_hold_what_was_executed(overlap: bool) -> None:
    """In chunks of three the first has the corrector's third step, the second its first; others are the learner's."""
    source = collector(overlap=overlap)
    source.next()
    metrics = source.take_metrics()
    source.settle()
    everything = source.replay.gather(torch.arange(len(source.replay)))
    first, steps = everything.obs["state"][:, 0, 1], torch.arange(4)
    at = first[:, None] + steps  # (B, 4) the step of the episode that each part of a chunk belongs to
    length = everything.obs["state"][:, 0, 0] % 7 + 1
    made = (steps < 3) & (at < torch.where(length % 2 == 0, length, 10)[:, None])
    by_corrector = made & ((at == 2) | (at == 3))
    torch.testing.assert_close(everything.actions[..., 0], torch.where(by_corrector, 0.5, -0.25))
    ages = source.replay.corrected()
    assert torch.equal(ages, by_corrector.any(1).nonzero()[:, 0])
    assert source.demonstrated == metrics["demonstrated"] == len(ages) > 0
    assert metrics["corrected"] == pytest.approx(by_corrector.sum().item() / made.sum().item())
    half = source._sample()
    assert (half.actions[32:] == 0.5).flatten(1).any(1).all(), (
        "the demonstrations' half: all with the corrector's steps"
    )


def test_marks_follow_the_ring() -> None:
    """After more transitions than it holds, and after a checkpoint, marks are where the corrector's actions are."""
    source, other = collector(), collector(seed=1)
    for _ in range(9):
        source.next()
    assert len(source.replay) == 60
    other.load_state_dict(source.state_dict())
    for _ in range(2):
        for one in (source, other):
            everything = one.replay.gather(torch.arange(len(one.replay)))
            assert torch.equal(one.replay.corrected(), (everything.actions == 0.5).flatten(1).any(1).nonzero()[:, 0])
        batches = source.next(), other.next()
        assert all(torch.equal(a.actions, b.actions) for a, b in zip(*batches))


def test_the_base_plans_anew_after_a_correction(tmp_path: Path) -> None:
    """While the corrector drives, and after, the base proposes as a runner that has just begun its chunk."""
    base = load_policy(half_taught(tmp_path / "start", pred_steps=4, exec_steps=4))

    class Second(BaseGate):
        calls = 0

        def judge(self, view: View) -> Verdict:
            self.calls += 1
            return Verdict(correct=np.array([self.calls == 2]))

    class Still(Half):
        def act(self, obs: Observation) -> Tensor:
            return torch.zeros(1, 2)

    with make(TASK, 1) as inner:
        corrected = CorrectedEnv(inner, Still(), Second())
        env = BaseEnv(AdaptedEnv(corrected), base, corrected)
        obs = env.reset([3])
        runner = PolicyRunner(base, 1)
        runner.reset([3])
        for step in range(4):
            if step == 2:  # the corrector made the second step: a runner that begins its chunk here
                runner.reset([3])
            torch.testing.assert_close(env.proposed, runner.act({"state": obs["state"]}))
            obs = env.step(env.proposed).obs


def helped(folder: Path, policy: Path, data: Path, updates: int, method: Any = None, **changes: Any) -> FinetuneConfig:
    corrector = CorrectorConfig(expert=EXPERT, gate=QUICK, record="all")
    values: dict[str, Any] = {
        "demonstrations": (str(data),),
        "corrector": corrector,
        "export": "last",
        "test_episodes": 0,
    }
    return config(policy, folder, updates, method, **(values | changes))


@pytest.mark.parametrize(("worlds", "way"), [(1, "residual"), (4, "sac")])
def test_corrections_are_the_experts_count_and_are_written(worlds: int, way: str, tmp_path: Path) -> None:
    policy, data = half_taught(tmp_path / "start", pred_steps=4, exec_steps=2), demonstrations(tmp_path / "d.hdf5")
    method = algorithm() if way == "sac" else None
    c = helped(tmp_path / "run", policy, data, 12, method, num_envs=worlds)
    finetune(c, c.output)
    rows = [row for row in read_metrics(tmp_path / "run") if "corrected" in row]
    assert 0.0 < rows[-1]["corrected"] < 1.0
    assert rows[-1]["demonstrated"] > rows[0]["demonstrated"] > sum(Dataset(data).lengths)
    with Dataset(tmp_path / "run" / "corrections.hdf5") as written:
        corrected = 0
        assert len({info.seed for info in written.info}) == len(written) > 3
        for i in range(len(written)):
            arrays = written.arrays(i, ["actions", "action_modes", "policy_actions", "expert_actions"])
            episode, by = written.read(i), arrays["action_modes"] == ActionMode.INTERVENTION
            right = np.array([point_reach_expert(state) for state in episode.obs["state"]]) * (2.0, 1.0) - (0.0, 1.0)
            np.testing.assert_allclose(arrays["actions"][by], right[by], atol=1e-5)
            np.testing.assert_allclose(arrays["actions"][~by], np.clip(arrays["policy_actions"][~by], -1, 1), atol=1e-6)
            assert episode.terminated[-1] == episode.info.success
            corrected += int(by.sum())
        assert corrected > 0
    assert Dataset((str(data), str(tmp_path / "run" / "corrections.hdf5"))).lengths, "they read as one"


@pytest.mark.long
def test_resume_equals_no_interruption(tmp_path: Path) -> None:
    policy, data = half_taught(tmp_path / "start", pred_steps=4, exec_steps=2), demonstrations(tmp_path / "d.hdf5")
    for way, method in {"residual": None, "sac": algorithm()}.items():
        whole, parts = (helped(tmp_path / f"{way}_{name}", policy, data, 6, method) for name in ("whole", "parts"))
        finetune(whole, whole.output)
        finetune(replace(parts, loop=replace(parts.loop, total_steps=3)), parts.output)
        finetune(parts, parts.output, resume=True)
        first, second = (load_policy(Path(c.output) / "policy").state_dict() for c in (whole, parts))
        assert all(torch.equal(value, second[key]) for key, value in first.items())
        files = [Dataset(Path(c.output) / "corrections.hdf5") for c in (whole, parts)]
        assert [info.seed for info in files[0].info] == [info.seed for info in files[1].info]
        for i in range(len(files[0])):
            one, other = (file.read(i) for file in files)
            np.testing.assert_array_equal(one.actions, other.actions)
            np.testing.assert_array_equal(one.obs["state"], other.obs["state"])


@pytest.mark.learning
def test_practice_with_a_corrector_makes_the_policy_better(tmp_path: Path) -> None:
    """Three training seeds from the same start, by success alone: the mean of success on held-out seeds rises."""
    policy, data = half_taught(tmp_path / "start"), demonstrations(tmp_path / "d.hdf5", 4)
    fast = algorithm(collect_steps=16, critic_warmup=200)
    rises = []
    for seed in range(3):
        c = helped(tmp_path / str(seed), policy, data, 40, fast, seed=seed, test_episodes=10, eval_episodes=40)
        result = finetune(c, c.output)
        rises.append(result.best["eval_success"] - result.start["eval_success"])
    assert float(np.mean(rises)) > 0.15, rises
    assert min(rises) > 0.0, rises


def test_refusals(tmp_path: Path) -> None:
    corrector = CorrectorConfig(expert=EXPERT)
    with pytest.raises(ConfigError, match=r"method ppo learns from actions of its own only.*robolearn dagger"):
        FinetuneConfig(policy="p", method=PPOTuningConfig(), demonstrations=("d.hdf5",), corrector=corrector)
    with pytest.raises(ConfigError, match="--demonstrations FILE"):
        FinetuneConfig(policy="p", method=algorithm(), corrector=corrector)
