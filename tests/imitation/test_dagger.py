"""DAgger on a toy task: what is logged, who acts, how rounds resume, and that correction corrects."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.datasets.dataset import Dataset
from robolearn.envs.make import make
from robolearn.episodes.record import record
from robolearn.errors import ConfigError
from robolearn.evaluation.evaluate import evaluate
from robolearn.imitation.bc import train_bc
from robolearn.imitation.dagger import dagger
from robolearn.policies.folder import load_policy
from robolearn.specs import ActionMode
from tests.envs.toy import POINT_REACH

TASK = TaskConfig(id=POINT_REACH, kwargs={"tolerance": 0.08}, max_steps=40, worker_kind="sync")
EXPERT = "tests.envs.toy:point_reach_expert"
SHORT = LoopConfig(total_steps=200, evaluate_every=0, checkpoint_every=0, tensorboard=False)


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few demonstrations and a poorly cloned policy."""
    folder = tmp_path_factory.mktemp("cloned")
    record(RecordConfig(task=TASK, output=str(folder / "demos.hdf5"), expert=EXPERT, episodes=4, num_envs=2))
    policy = PolicyConfig(backbone=MLPConfig(hidden_sizes=(64, 64)), head=GaussianHeadConfig(squash=False))
    train_bc(BCConfig(dataset=(str(folder / "demos.hdf5"),), policy=policy, loop=SHORT), folder / "clone")
    return folder


def config(cloned: Path, **changes: object) -> DaggerConfig:
    base = DaggerConfig(
        policy=str(cloned / "clone" / "policy"),
        dataset=(str(cloned / "demos.hdf5"),),
        expert=EXPERT,
        rounds=2,
        episodes_per_round=6,
        num_envs=3,
        loop=SHORT,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(cloned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("dagger")
    dagger(config(cloned), run_dir)
    return run_dir


def physical_expert(state: np.ndarray) -> np.ndarray:
    """The expert's action in [-1, 1] units, worked out apart from the code under test."""
    return np.clip((state[:, 2:4] - state[:, 0:2]) / 0.1, -1.0, 1.0)


def test_every_visited_state_is_labelled_and_every_actor_is_logged(finished: Path) -> None:
    for number in (1, 2):
        with Dataset(finished / "rounds" / f"{number:02d}" / "episodes.hdf5") as dataset:
            for index in range(len(dataset)):
                episode = dataset.read(index)
                assert episode.info.round == number
                assert episode.info.source == "dagger"
                labels, proposals, modes = episode.expert_actions, episode.policy_actions, episode.action_modes
                assert labels is not None
                assert proposals is not None
                assert modes is not None
                np.testing.assert_allclose(labels, physical_expert(episode.obs["state"]), atol=1e-5)
                assert np.isfinite(proposals).all()
                by_expert = modes == ActionMode.EXPERT
                np.testing.assert_array_equal(episode.actions[by_expert], labels[by_expert])
                np.testing.assert_array_equal(episode.actions[~by_expert], proposals[~by_expert])
                assert set(modes.tolist()) <= {int(ActionMode.POLICY), int(ActionMode.EXPERT)}


def test_events_tell_when_control_changed_hands(finished: Path) -> None:
    with Dataset(finished / "rounds" / "01" / "episodes.hdf5") as dataset:
        changes = 0
        for index in range(len(dataset)):
            episode = dataset.read(index)
            acting = int(ActionMode.POLICY)
            told = {event.step: event.kind for event in episode.events}
            assert episode.action_modes is not None
            for step, mode in enumerate(episode.action_modes.tolist()):
                expected = None if mode == acting else "takeover" if mode == ActionMode.EXPERT else "release"
                assert told.get(step) == expected
                changes += expected is not None
                acting = mode
        assert changes


def test_the_experts_share_follows_beta(cloned: Path, tmp_path: Path) -> None:
    for beta, low, high in ((0.0, 0.0, 0.0), (0.5, 0.35, 0.65), (1.0, 1.0, 1.0)):
        run_dir = tmp_path / f"{beta}"
        dagger(config(cloned, rounds=1, beta_start=beta, episodes_per_round=10), run_dir)
        report = json.loads((run_dir / "rounds/01/report.json").read_text())
        assert low <= report["expert_steps"] / report["steps"] <= high


@pytest.mark.parametrize(
    ("schedule", "betas"),
    [("exponential", [0.8, 0.4, 0.2]), ("linear", [0.8, 0.4, 0.0]), ("constant", [0.8, 0.8, 0.8])],
)
def test_beta_schedules(schedule: str, betas: list[float]) -> None:
    made = DaggerConfig(policy="p", dataset=("d",), rounds=3, beta_schedule=schedule, beta_start=0.8)  # type: ignore[arg-type]
    assert [made.beta(i) for i in (1, 2, 3)] == pytest.approx(betas)


def test_files_do_not_depend_on_the_number_of_environments(cloned: Path, finished: Path, tmp_path: Path) -> None:
    dagger(config(cloned, num_envs=1, rounds=1), tmp_path)
    with (
        Dataset(tmp_path / "rounds/01/episodes.hdf5") as alone,
        Dataset(finished / "rounds/01/episodes.hdf5") as together,
    ):
        for index in range(len(alone)):
            a, b = alone.read(index), together.read(index)
            for name in ("actions", "policy_actions", "expert_actions", "action_modes"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
            np.testing.assert_array_equal(a.obs["state"], b.obs["state"])


def test_complete_rounds_are_kept_and_interrupted_ones_go_on(cloned: Path, finished: Path, tmp_path: Path) -> None:
    """Lose the second round's report and two of its episodes: only these are made again, and the result is the same."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    second = run_dir / "rounds" / "02"
    (second / "report.json").unlink()
    shutil.rmtree(second / "train")
    from robolearn.datasets.tools.edit import delete

    delete(second / "episodes.hdf5", second / "shorter.hdf5", ["demo_4", "demo_5"])
    (second / "shorter.hdf5").replace(second / "episodes.hdf5")
    first = (run_dir / "rounds/01/episodes.hdf5").stat().st_mtime_ns
    dagger(config(cloned), run_dir)
    assert (run_dir / "rounds/01/episodes.hdf5").stat().st_mtime_ns == first
    for name in ("rounds/02/episodes.hdf5",):
        with Dataset(run_dir / name) as resumed, Dataset(finished / name) as whole:
            assert len(resumed) == len(whole) == 6
            for index in range(6):
                np.testing.assert_array_equal(resumed.read(index).actions, whole.read(index).actions)
    ours, theirs = (load_policy(folder / "policy").state_dict() for folder in (run_dir, finished))
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_aggregating_never_rewrites_the_demonstrations(cloned: Path, tmp_path: Path) -> None:
    before = (cloned / "demos.hdf5").read_bytes()
    dagger(config(cloned, rounds=1), tmp_path)
    assert (cloned / "demos.hdf5").read_bytes() == before


def test_correction_corrects(cloned: Path, finished: Path) -> None:
    """Distance to the goal at the end, paired over 40 fresh seeds: a permutation (sign) test below 1%."""
    with make(TASK, 8) as env:
        before, after = (
            evaluate(load_policy(folder), env, range(5000, 5040))
            for folder in (cloned / "clone" / "policy", finished / "policy")
        )
    assert after.successes >= before.successes
    gains = np.array([a.steps for a in before.episodes]) - np.array([b.steps for b in after.episodes])
    signs = np.random.default_rng(0).choice([-1, 1], (20_000, len(gains)))
    assert ((signs * gains).mean(1) >= gains.mean()).mean() < 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"rounds": 0}, "rounds"), ({"beta_start": 1.5}, "beta_start"), ({"dataset": ()}, "dataset")],
)
def test_bad_values_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DaggerConfig(**{"policy": "p", "dataset": ("d",), **changes})  # type: ignore[arg-type]
