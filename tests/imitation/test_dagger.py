"""DAgger on a toy task: what is logged, who acts, how rounds resume, and that correction corrects."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.dagger import DaggerConfig, GateTruthConfig
from robolearn.configuration.parts.gates import BetaGateConfig, HumanGateConfig, LikelihoodGateConfig
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.edit import delete
from robolearn.envs.make import make
from robolearn.episodes.record import open_writer, record
from robolearn.errors import ConfigError, RobolearnError, TrainingError
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.results import EvaluationResult
from robolearn.imitation.bc import train_bc
from robolearn.imitation.dagger import dagger, fingerprint, undo
from robolearn.imitation.dagger_report import write_dagger_report
from robolearn.imitation.gate_truth import score_gates
from robolearn.policies.folder import load_policy
from robolearn.seeds import REPORTING
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
        eval_episodes=6,
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


@pytest.mark.long
def test_the_experts_share_follows_beta(cloned: Path, tmp_path: Path) -> None:
    for beta, low, high in ((0.0, 0.0, 0.0), (0.5, 0.35, 0.65), (1.0, 1.0, 1.0)):
        run_dir = tmp_path / f"{beta}"
        dagger(config(cloned, rounds=1, gate=BetaGateConfig(start=beta), episodes_per_round=10), run_dir)
        report = json.loads((run_dir / "rounds/01/round.json").read_text())
        assert low <= report["expert_steps"] / report["steps"] <= high


@pytest.mark.parametrize(
    ("schedule", "betas"),
    [("exponential", [0.8, 0.4, 0.2]), ("linear", [0.8, 0.4, 0.0]), ("constant", [0.8, 0.8, 0.8])],
)
def test_beta_schedules(schedule: str, betas: list[float]) -> None:
    made = BetaGateConfig(schedule=schedule, start=0.8)  # type: ignore[arg-type]
    assert [made.beta(i, 3) for i in (1, 2, 3)] == pytest.approx(betas)


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


@pytest.mark.parametrize("kept", [0, 4])
def test_complete_rounds_are_kept_and_interrupted_ones_go_on(
    kept: int, cloned: Path, finished: Path, tmp_path: Path
) -> None:
    """Lose the second round's report and its last episodes: only these are made again, and the result is the same."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    second = run_dir / "rounds" / "02"
    (second / "round.json").unlink()
    shutil.rmtree(second / "train")
    shorter = second / "shorter.hdf5"
    if kept:
        delete(second / "episodes.hdf5", shorter, [f"demo_{i}" for i in range(kept, 6)])
    else:  # the file was made, and that was all
        with make(TASK, 1) as env, open_writer(shorter, env):
            pass
    shorter.replace(second / "episodes.hdf5")
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
    [({"rounds": 0}, "rounds"), ({"eval_episodes": -1}, "eval_episodes"), ({"dataset": ()}, "dataset")],
)
def test_bad_values_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DaggerConfig(**{"policy": "p", "dataset": ("d",), **changes})  # type: ignore[arg-type]


def test_a_folder_of_another_run_is_refused(cloned: Path, finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"made from other inputs.*episodes_per_round 6, now 7"):
        dagger(config(cloned, episodes_per_round=7), finished)
    before = (finished / "config.yaml").read_text()
    with pytest.raises(ConfigError, match=r"gate\.name 'beta', now 'human'"):
        dagger(config(cloned, gate=HumanGateConfig()), finished)
    assert (finished / "config.yaml").read_text() == before


def test_a_policy_of_another_task_is_refused_before_anything_is_collected(cloned: Path, tmp_path: Path) -> None:
    other = replace(TASK, id="gym:Pendulum-v1", kwargs={})
    with pytest.raises(RobolearnError, match="state"):
        dagger(config(cloned, task=other), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_round_can_be_taken_back(cloned: Path, finished: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    number, aside = undo(run_dir)
    assert number == 2
    assert (aside / "episodes.hdf5").exists()
    ours = load_policy(run_dir / "policy").state_dict()
    theirs = load_policy(run_dir / "rounds/01/train/policy").state_dict()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    dagger(config(cloned), run_dir)
    again, first = (load_policy(folder / "policy").state_dict() for folder in (run_dir, finished))
    assert all(np.array_equal(again[name], first[name]) for name in first)
    undo(run_dir)
    undo(run_dir)
    with pytest.raises(TrainingError, match="no complete round"):
        undo(run_dir)


def test_every_round_is_measured_on_the_same_episodes_and_links_what_it_used(finished: Path) -> None:
    results = [EvaluationResult.load(finished / f"rounds/{n:02d}/evaluation.json") for n in range(3)]
    assert len({result.seeds for result in results}) == 1
    assert set(results[0].seeds).isdisjoint(REPORTING)
    second = json.loads((finished / "rounds/02/round.json").read_text())
    assert [Path(p).name for p in second["data"]] == ["demos.hdf5", "episodes.hdf5", "episodes.hdf5"]
    with Dataset(finished / "rounds/02/episodes.hdf5") as dataset:
        assert {info.policy for info in dataset.info} == {fingerprint(finished / "rounds/01/train/policy")}


def test_the_report_counts_what_the_files_hold(finished: Path) -> None:
    page = write_dagger_report(finished).read_text()
    facts = json.loads((finished / "report.json").read_text())
    with Dataset(finished / "rounds/01/episodes.hdf5") as dataset:
        modes = np.concatenate([dataset.arrays(i, ["action_modes"])["action_modes"] for i in range(len(dataset))])
    first = facts["rounds"][0]
    assert (first["expert_steps"], first["steps"]) == (int((modes == ActionMode.EXPERT).sum()), len(modes))
    assert first["labelled_steps"] == len(modes)
    assert f"{first['successes']}/{first['episodes']}" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_simulated_human_corrects_and_only_corrections_are_labelled(cloned: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    gate = HumanGateConfig(reaction_s=0.2, stall_s=0.5, least_s=0.3)
    dagger(config(cloned, gate=gate, rounds=1, weights="iwr", episodes_per_round=12), run_dir)
    facts = json.loads((run_dir / "rounds/01/round.json").read_text())
    assert facts["takeovers"] > 0
    assert facts["labelled_steps"] == facts["expert_steps"] < facts["steps"]
    with Dataset(run_dir / "rounds/01/episodes.hdf5") as dataset:
        episodes = [dataset.read(i) for i in range(len(dataset))]
    takeovers = [event for e in episodes for event in e.events if event.kind == "takeover"]
    assert len(takeovers) == facts["takeovers"]
    assert all(event.reason for event in takeovers)
    hz = facts["expert_steps"] / facts["expert_seconds"]
    assert facts["recovery_seconds"] + facts["correction_seconds"] == pytest.approx(facts["expert_seconds"])
    recovered = [event for e in episodes for event in e.events if event.kind == "mark"]
    assert 0 < len(recovered) <= len(takeovers)
    assert facts["correction_seconds"] >= len(recovered) / hz


def test_demonstrations_are_left_out_by_name_and_rounds_keep_theirs(cloned: Path, tmp_path: Path) -> None:
    """All files hold a demo_0; the likelihood gate opens the newest one, and limits taken from the data stay."""
    short = replace(SHORT, total_steps=2)
    changes = {"exclude": ("demo_0",), "limits": ("data",), "gate": LikelihoodGateConfig(), "loop": short}
    made = config(cloned, eval_episodes=0, **changes)
    assert made.exclude == (f"{cloned / 'demos.hdf5'}:demo_0",)
    dagger(made, tmp_path / "run")
    card = (tmp_path / "run" / "policy" / "card.md").read_text()
    assert "episodes: 15 (dagger, demo)" in card, "three demonstrations and two rounds of six"


def test_a_round_without_interventions_has_nothing_to_weigh(
    cloned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patient = HumanGateConfig(tube=1e9, reaction_s=1e3)
    loop = replace(SHORT, total_steps=2)
    dagger(config(cloned, gate=patient, weights="iwr", rounds=1, eval_episodes=0, loop=loop), tmp_path / "run")
    assert "nobody took over yet, so weights iwr have nothing to weigh" in capsys.readouterr().err


def test_a_single_demonstration_leaves_no_drift_and_stops_nothing(cloned: Path, tmp_path: Path) -> None:
    delete(cloned / "demos.hdf5", tmp_path / "one.hdf5", [f"demo_{i}" for i in range(1, 4)])
    one = {"dataset": (str(tmp_path / "one.hdf5"),), "rounds": 1, "loop": replace(SHORT, total_steps=2)}
    dagger(config(cloned, eval_episodes=2, **one), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("drift.json"))
    assert (tmp_path / "run" / "policy").exists()


def test_gates_are_scored_against_what_would_have_happened(cloned: Path, tmp_path: Path) -> None:
    """Physics that can be restored: Reach, and a policy that was never trained, which fails from everywhere far off."""
    demos = tmp_path / "reach.hdf5"
    record(RecordConfig(task=TaskConfig(id="Reach", max_steps=30), output=str(demos), episodes=4))
    short = replace(SHORT, total_steps=1)
    policy = PolicyConfig(backbone=MLPConfig(hidden_sizes=(16,)), head=GaussianHeadConfig(squash=False))
    train_bc(BCConfig(dataset=(str(demos),), policy=policy, loop=short), tmp_path / "clone")
    start = {"policy": str(tmp_path / "clone/policy"), "dataset": (str(demos),), "expert": "auto", "eval_episodes": 0}
    run_dir = tmp_path / "run"
    dagger(config(cloned, gate=BetaGateConfig(start=0.0), rounds=1, loop=short, **start), run_dir)
    score_gates(GateTruthConfig(run=str(run_dir), gates=("human", "likelihood"), num_envs=3))
    facts = json.loads((run_dir / "gates.json").read_text())
    with Dataset(run_dir / "rounds/01/episodes.hdf5") as dataset:
        failed = [not info.success for info in dataset.info for _ in range(3)]
    assert facts["states"] == len(failed)  # 30 steps of each episode, every tenth one
    assert facts["failing"] == pytest.approx(np.mean(failed))  # a deterministic policy repeats its own attempt
    assert set(facts["gates"]) == {"human", "likelihood"}
    assert "Gates against the truth" in write_dagger_report(run_dir).read_text()


def test_a_better_policy_corrects_a_worse_one(cloned: Path, finished: Path, tmp_path: Path) -> None:
    better = finished / "rounds/02/train/policy"
    dagger(config(cloned, rounds=1, expert=str(better), gate=BetaGateConfig(start=0.0)), tmp_path)
    policy = load_policy(better)
    with Dataset(tmp_path / "rounds/01/episodes.hdf5") as dataset:
        episode = dataset.read(0)
    with torch.no_grad():
        window = {"state": torch.as_tensor(episode.obs["state"], dtype=torch.float32)[:, None]}
        expected = policy.act(window, deterministic=True)[:, 0].numpy()
    assert episode.expert_actions is not None
    np.testing.assert_allclose(episode.expert_actions, np.clip(expected, -1.0, 1.0), atol=1e-5)
