"""The success classifier: its threshold and figures by brute force, its errors, and as the reward of practice."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.cli.main import main
from robolearn.configuration.parts.policy import VisionConfig
from robolearn.configuration.record import RecordConfig
from robolearn.configuration.reward import RewardConfig
from robolearn.datasets.dataset import Dataset
from robolearn.envs.make import make
from robolearn.episodes.record import record
from robolearn.errors import PolicyError
from robolearn.rl.reward.classified_env import ClassifiedEnv
from robolearn.rl.reward.classifier import ClassifierConfig, SuccessClassifier, load_classifier, save_classifier
from robolearn.rl.reward.train import States, judge, pick_threshold, read_states, shared_out
from robolearn.specs import ArraySpec, ObservationSpec
from tests.envs.toy import POINT_REACH
from tests.imitation.toy import make_episode, write_dataset
from tests.rl.collecting.test_demonstrations import failed
from tests.rl.test_residual import RESIDUAL, SHORT, TASK, half_taught

EXPERT = "tests.envs.toy:point_reach_expert"


@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_is_the_lowest_that_is_precise_enough(wanted: float, seed: int) -> None:
    """Against trying every midpoint between neighbouring scores, ties included."""
    generator = np.random.default_rng(seed)
    solved = generator.random(80) < 0.3
    scored = np.round(np.clip(0.35 + 0.3 * solved + 0.2 * generator.normal(size=80), 0, 1), 2)
    levels = np.unique(np.append(scored, 0.0))
    candidates = [(a + b) / 2 for a, b in itertools.pairwise(levels)]

    def precision(threshold: float) -> float:
        return float(solved[scored >= threshold].mean())

    best = max(map(precision, candidates))
    enough = [t for t in candidates if precision(t) >= min(wanted, best)]
    found = pick_threshold(scored, solved, wanted)
    assert precision(found) >= min(wanted, best)
    assert (scored >= found).sum() == (scored >= min(enough)).sum()


def test_figures_by_hand() -> None:
    """Episodes of 4, 3 and 3 states; two wrong calls in a row in the second, one alone in the third."""
    solved = torch.tensor([0, 0, 0, 1, 0, 0, 0, 0, 0, 1], dtype=torch.bool)
    scored = np.array([0.1, 0.2, 0.1, 0.9, 0.8, 0.7, 0.1, 0.6, 0.1, 0.3])
    figures = judge(scored, States(obs={}, solved=solved, lengths=(4, 3, 3)), 0.5, 2)
    assert figures.precision.estimate == pytest.approx(1 / 4)
    assert figures.recall.estimate == pytest.approx(1 / 2)
    assert figures.false_alarms.estimate == pytest.approx(1 / 3)
    assert figures.precision.low < 0.25 < figures.precision.high


def test_states_and_their_labels(tmp_path: Path) -> None:
    episodes = [make_episode(0, 5), failed(make_episode(1, 4)), make_episode(2, 6)]
    with Dataset(write_dataset(tmp_path / "d.hdf5", episodes)) as dataset:
        states = read_states(dataset, ["state"], 2)
    assert states.lengths == (6, 5, 7)
    assert states.solved.nonzero()[:, 0].tolist() == [4, 5, 16, 17]
    np.testing.assert_array_equal(states.obs["state"][5], episodes[0].final_obs["state"])


def test_whole_episodes_go_to_one_side_and_both_kinds_to_each(tmp_path: Path) -> None:
    episodes = [make_episode(i, 3) if i % 2 else failed(make_episode(i, 3)) for i in range(20)]
    data = write_dataset(tmp_path / "d.hdf5", episodes)
    with Dataset(data) as dataset:
        parts = shared_out(dataset, RewardConfig(dataset=(str(data),)))
        assert sorted(itertools.chain(*parts)) == list(range(20))
        assert [sum(dataset.info[i].success for i in part) for part in parts] == [6, 2, 2]
        assert list(map(len, parts)) == [12, 4, 4]


def test_one_class_only_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failures = write_dataset(tmp_path / "failures.hdf5", [failed(make_episode(i, 3)) for i in range(4)])
    solved = write_dataset(tmp_path / "solved.hdf5", [make_episode(i, 3) for i in range(4)])
    few = write_dataset(tmp_path / "few.hdf5", [make_episode(0, 3), failed(make_episode(1, 3))])

    def refused(*words: object) -> str:
        assert main(["reward", "train", *map(str, words), "--output", str(tmp_path / "run")]) == 2
        return capsys.readouterr().err

    assert "are failures only, so that no state is solved" in refused(failures)
    assert "states that are not solved are missing" in refused(solved, "--last_steps", 4)
    assert "at least 3, one each" in refused(few)
    assert "name the files" in refused()
    assert not (tmp_path / "run").exists()
    policy = half_taught(tmp_path / "start")
    words = [str(word) for word in ("finetune", policy, *RESIDUAL, *SHORT, "--output", tmp_path / "run")]
    assert main([*words, "--reward_from", str(tmp_path / "nothing")]) == 2
    assert "robolearn reward train FILES" in capsys.readouterr().err
    assert main([*words, "--reward_from", str(tmp_path / "nothing"), "--reward", "env"]) == 2
    assert "add --reward success" in capsys.readouterr().err


def recorded(path: Path) -> Path:
    """Successes and failures of a noisy expert."""
    task = replace(TASK, max_steps=14)
    config = RecordConfig(
        task=task, output=str(path), episodes=60, expert=EXPERT, num_envs=4, action_noise=0.4, keep_failures=True
    )
    record(config)
    return path


@pytest.mark.long
def test_from_files_to_the_reward_of_practice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The classifier agrees with the task on states of other episodes; practice by it learns nothing but from it."""
    data, run = recorded(tmp_path / "d.hdf5"), tmp_path / "reward"
    with Dataset(data) as dataset:
        assert 10 < sum(info.success for info in dataset.info) < 60
    words = ["reward", "train", str(data), "--output", str(run), "--device", "cpu", "--loop.tensorboard", "false"]
    assert main([*words, "--loop.total_steps", "1500", "--optimiser.learning_rate", "0.002"]) == 0
    out = capsys.readouterr().out
    assert "on test episodes: precision" in out
    figures = json.loads((run / "figures.json").read_text())
    assert figures["recall"]["low"] < figures["recall"]["estimate"]
    classifier = load_classifier(run)
    generator = torch.Generator().manual_seed(1)
    goal = torch.rand(4000, 2, generator=generator) * 1.6 - 0.8
    gap = torch.randn(4000, 2, generator=generator)
    distance = torch.rand(4000, generator=generator) * 0.6
    state = torch.cat([goal + gap / gap.norm(dim=1, keepdim=True) * distance[:, None], goal], 1)
    called = classifier.probability({"state": state}) >= classifier.config.threshold
    assert called[distance < 0.06].float().mean() > 0.7
    assert called[distance > 0.24].float().mean() < 0.05
    policy = half_taught(tmp_path / "start")
    start = ["finetune", policy, *RESIDUAL, *SHORT, "--export", "last", "--output", tmp_path / "tuned"]
    assert main([str(word) for word in (*start, "--reward_from", run)]) == 0
    assert "reward: " in (tmp_path / "tuned/policy/card.md").read_text()
    sac = ["rl", "--task", POINT_REACH, "--task.worker_kind", "sync", "--algorithm", "sac", "--env_steps", "120"]
    more = ["--algorithm.random_steps", "100", "--eval_episodes", "1", "--reward", "success", "--device", "cpu"]
    assert main([*sac, *more, "--reward_from", str(run), "--output", str(tmp_path / "scratch")]) == 0


class Near(SuccessClassifier):
    """Solved within 0.3 of the goal."""

    def forward(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        return 10.0 * (0.3 - (obs["state"][:, :2] - obs["state"][:, 2:]).norm(dim=1))


def test_success_is_held_for_as_many_steps_as_asked(tmp_path: Path) -> None:
    """Against distances kept beside the environment, through a reset by mask and steps by mask."""
    config = ClassifierConfig(
        network=RewardConfig(dataset=("d",)).network, vision=VisionConfig(), threshold=0.5, hold_steps=3
    )

    with make(replace(TASK, terminate_on_success=False), 2) as inner:
        env = ClassifiedEnv(inner, Near(config, inner.observation_spec))
        obs, held = env.reset([0, 1]), np.zeros(2, int)
        seen = 0
        for t in range(40):
            away = (obs["state"][:, 2:] - obs["state"][:, :2]) / 0.2
            mask = torch.tensor([True, t % 5 != 4])
            if t == 30:
                obs, held[1] = env.reset([7], torch.tensor([False, True])), 0
                continue
            step = env.step(away.clamp(-1, 1).float(), mask)
            obs = step.obs
            near = (obs["state"][:, :2] - obs["state"][:, 2:]).norm(dim=1).numpy() <= 0.3
            held = np.where(mask.numpy(), np.where(near, held + 1, 0), held)
            assert step.success.tolist() == (held >= 3).tolist()
            assert not step.terminated.any()
            seen += int(step.success.sum())
        assert seen > 10


def test_pictures_and_a_saved_folder(tmp_path: Path) -> None:
    spec = ObservationSpec({"camera": ArraySpec(shape=(40, 40, 3), dtype="uint8"), "state": ArraySpec(shape=(2,))})
    config = ClassifierConfig(
        network=RewardConfig(dataset=("d",)).network, vision=VisionConfig(), threshold=0.7, hold_steps=1
    )
    classifier = SuccessClassifier(config, spec).eval()
    obs = {"camera": torch.randint(0, 255, (3, 40, 40, 3), dtype=torch.uint8), "state": torch.randn(3, 2)}
    save_classifier(classifier, tmp_path / "reward", "card")
    again = load_classifier(tmp_path)
    assert again.config == config
    torch.testing.assert_close(again.probability(obs), classifier.probability(obs))
    (tmp_path / "reward/reward.safetensors").unlink()
    with pytest.raises(PolicyError, match="does not hold a whole success classifier"):
        load_classifier(tmp_path)
