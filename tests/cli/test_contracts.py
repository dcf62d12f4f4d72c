"""Through the command line: units, names, other people's environments and outputs that belong to other inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.cli.main import main
from robolearn.configuration.parts.task import TaskConfig
from robolearn.contract import Interface, reconcile
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.adapted import fitted
from robolearn.envs.make import make
from robolearn.episodes.actor import env_for
from robolearn.errors import PolicyError
from robolearn.imitation.agreement import env_for_rounds
from robolearn.policies.folder import load_policy
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec

Capture = pytest.CaptureFixture[str]
HERE = ("--task.worker_kind", "sync")
TINY = ("--policy.backbone.hidden_sizes", "8", "--batch_size", "8", "--loop.total_steps", "2")


def task(name: str) -> tuple[str, ...]:
    return ("--task", f"gym:tests.envs.odd:odd/{name}-v0", *HERE)


def said(capsys: Capture, *words: object, code: int = 0) -> str:
    """Run a command and return all that it printed."""
    capsys.readouterr()
    found = main([str(word) for word in words])
    output = capsys.readouterr()
    assert found == code, output.err + output.out
    assert "Traceback" not in output.err
    return output.out + output.err


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain.hdf5` of Plain, `policy` hardly trained on it, `wide.hdf5` of Wide, `wide` hardly trained on that."""
    folder = tmp_path_factory.mktemp("contracts")
    for name, kind in (("plain", "Plain"), ("wide", "Wide")):
        words = ["record", folder / f"{name}.hdf5", *task(kind), "--expert", "tests.envs.odd:gentle", "--episodes", 4]
        assert main([str(word) for word in words]) == 0
        words = ["train", "--dataset", folder / f"{name}.hdf5", *TINY, "--output", folder / name]
        assert main([str(word) for word in words]) == 0
    return folder


def test_a_policy_of_narrower_limits_acts_in_its_own_units(home: Path, tmp_path: Path, capsys: Capture) -> None:
    """What it means by 0.5 is 0.5, not a half of 4: Plain and Wide move alike under the same policy."""
    places = []
    for kind in ("Plain", "Wide"):
        out = said(
            capsys, "eval", home / "plain", *task(kind), "--episodes", 3, "--videos", 0, "--output", tmp_path / kind
        )
        assert "of 3" in out or "/3 solved" in out
        with np.load(tmp_path / kind / "plain.npz") as arrays:
            places.append([arrays[f"{seed}/obs/state"] for seed in range(20000, 20003)])
    for ours, theirs in zip(*places):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_recorded_1_2_is_executed_as_1_2(home: Path, capsys: Capture) -> None:
    spec = ActionSpec(low=(-1.2,), high=(1.2,))
    needs = Interface(
        name="the file", observation_spec=ObservationSpec({"state": ArraySpec(shape=(2,))}), action_spec=spec
    )
    with make(TaskConfig(id="gym:tests.envs.odd:odd/Wide-v0", worker_kind="sync")) as env:
        adapted = fitted(env, needs)
        adapted.reset([0])
        step = adapted.step(torch.tensor([[1.0]]))
    assert float(step.obs["state"][0, 1]) == pytest.approx(0.12)


def test_a_policy_that_asks_for_more_than_there_is_is_refused_before_anything_is_written(
    home: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = said(capsys, "eval", home / "wide", *task("Plain"), "--output", tmp_path / "eval", code=2)
    assert "reaches from -4 to 4" in out
    assert "executes -1 to 1" in out
    assert "--limits" in out
    words = ("--num_envs", 2, "--eval_episodes", 2, "--output", tmp_path / "run")
    assert "acts in other units" in said(capsys, "finetune", home / "wide", *task("Plain"), *words, code=2)
    assert not list(tmp_path.iterdir())


def test_a_policy_is_not_trained_on_with_data_in_other_units(home: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ("--loop.total_steps", 2, "--batch_size", 8, "--output", tmp_path / "run")
    out = said(capsys, "train", "--dataset", home / "wide.hdf5", "--init_policy", home / "plain", *words, code=2)
    assert "acts within -1 to 1, the data in wide.hdf5 was recorded within -4 to 4" in out
    assert not (tmp_path / "run").exists()


def test_named_actions_in_another_order_are_refused() -> None:
    seen = ObservationSpec({"state": ArraySpec(shape=(2,))})

    def side(*names: str) -> Interface:
        return Interface(
            name=names[0], observation_spec=seen, action_spec=ActionSpec(low=(-1, -1), high=(1, 1), names=names)
        )

    with pytest.raises(PolicyError, match="are x, y, those of y are y, x: other quantities, or another order"):
        reconcile(side("x", "y"), side("y", "x"))
    assert reconcile(side("x", "y"), side("action_0", "action_1")).is_identity


def test_a_policy_meets_an_environment_of_other_names_by_a_stated_mapping(
    home: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ("eval", home / "plain", *task("Renamed"), "--episodes", 2, "--videos", 0)
    out = said(capsys, *words, "--output", tmp_path / "out", code=2)
    assert "sees 'state'; the task tests.envs.odd:odd/Renamed-v0 offers 'goal_and_place'" in out
    remedy = out.split("say so: ")[1].strip()
    assert not (tmp_path / "out").exists()
    option, mapping = remedy.split(" ", 1)
    assert "/2 solved" in said(capsys, *words, "--output", tmp_path / "out", option, mapping.strip("'"))
    assert json.loads((tmp_path / "out" / "plain.json").read_text())["env_args"]["robolearn"]["rename"] == {
        "goal_and_place": "state"
    }
    out = said(capsys, *words, "--output", tmp_path / "no", "--task.rename", "{state: goal_and_place}", code=2)
    assert "'state' is not observed; this environment observes goal_and_place. The task's own name comes first" in out


def test_the_same_mapping_serves_recording_and_rounds(home: Path, tmp_path: Path, capsys: Capture) -> None:
    """The expert sees the task's own names; the file and the policy see the others."""
    path = tmp_path / "renamed.hdf5"
    words = ("--task.rename", "{goal_and_place: state}", "--expert", "tests.envs.odd:gentle", "--episodes", 2)
    said(capsys, "record", path, *task("Renamed"), *words)
    with Dataset(path) as renamed, Dataset(home / "plain.hdf5") as plain:
        assert list(renamed.observation_spec) == ["state"]
        np.testing.assert_array_equal(renamed.read(0).actions, plain.read(0).actions)
        config = TaskConfig.from_env_args(renamed.env_args)
        assert config.rename == {"goal_and_place": "state"}
        policy = load_policy(home / "plain")
        with make(config) as env:
            assert list(env_for_rounds(policy, env, plain, "p").observation_spec) == ["state"]
        with (
            make(TaskConfig(id=config.id, worker_kind="sync")) as env,
            pytest.raises(PolicyError, match="sees 'state'"),
        ):
            env_for_rounds(policy, env, plain, "p")


def test_dagger_meets_an_environment_of_other_names_before_anything_is_collected(
    home: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = tmp_path / "run"
    words = ("dagger", "--policy", home / "plain", "--dataset", home / "plain.hdf5", *task("Renamed"), "--output", run)
    short = ("--expert", "tests.envs.odd:gentle", "--rounds", 1, "--episodes_per_round", 2, "--loop.total_steps", 1)
    short += ("--batch_size", 8, "--eval_episodes", 0)
    assert "sees 'state'; the task" in said(capsys, *words, *short, code=2)
    assert not run.exists()
    said(capsys, *words, *short, "--task.rename", "{goal_and_place: state}")
    with Dataset((home / "plain.hdf5", run / "rounds" / "01" / "episodes.hdf5")) as together:
        assert len(together) == 6


def test_rounds_in_wider_limits_are_collected_in_the_units_of_the_demonstrations(home: Path) -> None:
    policy = load_policy(home / "plain")
    with (
        Dataset(home / "plain.hdf5") as plain,
        make(TaskConfig(id="gym:tests.envs.odd:odd/Wide-v0", worker_kind="sync")) as env,
    ):
        adapted = env_for_rounds(policy, env, plain, "p")
        assert adapted.action_spec == plain.action_spec
        assert env_for(policy, env).action_spec == plain.action_spec
        runner = PolicyRunner(policy, 1)
        runner.reset([0])
        adapted.reset([0])


@pytest.mark.parametrize(("kind", "share"), [("Plain", 0.75), ("Wide", 0.0)])
def test_an_expert_beyond_the_limits_is_clipped_and_counted(
    kind: str, share: float, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "d.hdf5"
    out = said(
        capsys, "record", path, *task(kind), "--expert", "tests.envs.odd:brute", "--episodes", 3, "--keep_failures"
    )
    with Dataset(path) as dataset:
        assert [info.clipped_steps for info in dataset.info] == [n if share else 0 for n in dataset.lengths]
        assert [info.clipped_share for info in dataset.info] == pytest.approx([share] * 3)
        labels = dataset.arrays(0, ["expert_actions"])["expert_actions"]
        assert np.abs(labels).max() == 1.0
    assert ("at " in out and "(100%); 75% of the size of these actions was cut off" in out) == bool(share)


def test_an_environment_that_ignores_seeds_is_named_and_its_results_are_not_paired(
    home: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = said(
        capsys, "record", tmp_path / "d.hdf5", *task("Heedless"), "--expert", "tests.envs.odd:gentle", "--episodes", 2
    )
    assert "note: tests.envs.odd:odd/Heedless-v0 ignores the seed of reset" in out
    policies = (home / "plain", home / "plain")
    short = ("--episodes", 3, "--videos", 0)
    out = said(capsys, "eval", *policies, *task("Heedless"), *short, "--output", tmp_path / "out")
    assert "ignores the seed of reset: with seed 20000 its 'state' began differently each time" in out
    assert "McNemar" not in out
    assert "ignores the seed of reset" in (tmp_path / "out" / "report.html").read_text()
    out = said(capsys, "eval", *policies, *task("Plain"), *short, "--output", tmp_path / "plain")
    assert "McNemar" in out
    assert "ignores the seed" not in out


def test_absurd_numbers_and_sudden_ends_are_named_with_their_place(tmp_path: Path, capsys: Capture) -> None:
    expert = ("--expert", "tests.envs.odd:gentle", "--episodes", 3, "--keep_failures")
    out = said(capsys, "record", tmp_path / "a.hdf5", *task("Spiky"), *expert)
    assert "observation 'state' entry 1 is 3e+06 after step 3 of the episode with seed 1" in out
    out = said(capsys, "record", tmp_path / "b.hdf5", *task("Sudden"), *expert, "--num_envs", 1)
    assert "3 of 3 episodes ended at the first step" in out
    out = said(capsys, "record", tmp_path / "c.hdf5", *task("Plain"), *expert)
    assert "note:" not in out


def test_environments_of_the_former_api_are_served(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "d.hdf5"
    said(capsys, "record", path, *task("Former"), "--expert", "tests.envs.odd:gentle", "--episodes", 3)
    with Dataset(path) as dataset:
        episodes = [dataset.read(i) for i in range(3)]
    for episode in episodes:
        assert episode.info.success
        assert (episode.terminated[-1], episode.truncated[-1], episode.rewards[-1]) == (True, False, 1.0)
        rng = np.random.RandomState(episode.info.seed)
        assert episode.obs["state"][0, 0] == rng.choice([-0.5, 0.5])
    away = ("--expert", "tests.envs.test_odd:away", "--episodes", 1, "--keep_failures", "--task.max_steps", 18)
    said(capsys, "record", tmp_path / "e.hdf5", *task("Former"), *away)
    with Dataset(tmp_path / "e.hdf5") as dataset:
        episode = dataset.read(0)
    assert (len(episode), episode.terminated[-1], episode.truncated[-1]) == (15, False, True)


@pytest.mark.parametrize(
    ("part", "what", "message"),
    [
        ("reward", "nothing", "step returned the reward None (NoneType); it must be one number"),
        ("reward", "two numbers", "step returned the reward [0.5, 1.0] (list)"),
        ("terminated", "nothing", "step returned the end of the episode None"),
        ("truncated", "word", "step returned the end of the episode 'no' (str); it must be True or False"),
        ("success", "False in words", "info says 'success' is 'False' (str)"),
        ("success", "a dictionary", "info says 'success' is {'left': True} (dict)"),
        ("obs", "nothing", "the observation 'state' is not what observation_space says, float32 (2,)"),
        ("obs", "three numbers", "the observation 'state' is not what observation_space says, float32 (2,)"),
        ("info", "a list", "step returned the info [] (list); it must be a dictionary"),
        ("step", "three things", "(tuple of 3); it must return (observation, reward, terminated, truncated, info)"),
        ("reset", "nothing", "reset returned None (NoneType); it must return (observation, info)"),
        ("reset", "three things", "reset returned (0, 0.0, False) (tuple of 3)"),
    ],
)
def test_what_an_environment_must_not_return_is_named(
    part: str, what: str, message: str, tmp_path: Path, capsys: Capture
) -> None:
    kwargs = ("--task.kwargs.part", part, "--task.kwargs.what", what)
    expert = ("--expert", "tests.envs.odd:gentle", "--episodes", 1)
    out = said(capsys, "record", tmp_path / "d.hdf5", *task("Returning"), *kwargs, *expert, code=2)
    assert message in out
    assert "odd/Returning-v0" in out


@pytest.mark.parametrize("what", ["a quarter", "numpy's quarter", "an array of one", "a list of one"])
def test_rewards_of_one_element_are_numbers(what: str, tmp_path: Path, capsys: Capture) -> None:
    kwargs = ("--task.kwargs.part", "reward", "--task.kwargs.what", what)
    expert = ("--expert", "tests.envs.odd:gentle", "--episodes", 1)
    said(capsys, "record", tmp_path / "d.hdf5", *task("Returning"), *kwargs, *expert)
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert set(dataset.read(0).rewards.tolist()) == {0.25}


def test_an_output_of_other_inputs_is_not_gone_on_with(home: Path, tmp_path: Path, capsys: Capture) -> None:
    run, file = tmp_path / "run", tmp_path / "d.hdf5"
    said(capsys, "train", "--dataset", home / "plain.hdf5", *TINY, "--output", run)
    before = (run / "config.yaml").read_bytes()
    out = said(capsys, "train", "--dataset", home / "wide.hdf5", *TINY, "--output", run, "--resume", code=2)
    assert "made from other inputs" in out
    assert "wide.hdf5" in out
    assert (run / "config.yaml").read_bytes() == before
    expert = ("--expert", "tests.envs.odd:gentle")
    said(capsys, "record", file, *task("Plain"), *expert, "--episodes", 2)
    beside = file.with_name("d.hdf5.yaml").read_bytes()
    for other in (task("Wide"), (*task("Plain"), "--action_noise", "0.3")):
        assert "made from other inputs" in said(
            capsys, "record", file, *other, *expert, "--episodes", 3, "--resume", code=2
        )
    assert file.with_name("d.hdf5.yaml").read_bytes() == beside
    file.with_name("d.hdf5.yaml").unlink()
    out = said(capsys, "record", file, *task("Wide"), *expert, "--episodes", 3, "--resume", code=2)
    assert "holds episodes of another task" in out
    assert "recorded 1 episode of" in said(capsys, "record", file, *task("Plain"), *expert, "--episodes", 3, "--resume")


def test_practice_without_a_reward_is_called_that(home: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    words = ("--num_envs", 2, "--method.num_steps", 25, "--loop.total_steps", 1, "--eval_episodes", 2, "--output", run)
    # A cloned policy without an exact likelihood cannot be fine-tuned; the default head is one that has it.
    out = said(capsys, "finetune", home / "plain", *task("Hopeless"), *words)
    assert "no reward was seen in 50 steps of practice (no episode was solved)" in out
    assert "What helps" in out
    assert "not fine-tuned" in out
    card = (run / "policy" / "card.md").read_text()
    assert "no reward was seen" in card
    ours, theirs = load_policy(run / "policy").state_dict(), load_policy(home / "plain").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    words = ("--algorithm", "ppo", "--algorithm.num_steps", 25, "--env_steps", 50, "--eval_episodes", 1)
    out = said(capsys, "rl", *task("Hopeless"), *words, "--output", tmp_path / "rl")
    assert "every reward was zero" in out
    assert "no reward was seen" in (tmp_path / "rl" / "policy" / "card.md").read_text()


@pytest.mark.parametrize(("algorithm", "remedy"), [("sac", "algorithm.random_steps"), ("ppo", "algorithm.num_steps")])
def test_no_more_steps_are_made_than_asked_for(algorithm: str, remedy: str, capsys: Capture, tmp_path: Path) -> None:
    words = ("rl", *task("Plain"), "--algorithm", algorithm, "--env_steps", 200, "--output", tmp_path / "run")
    assert f"env_steps 200 does not suffice for one update of {algorithm}" in (out := said(capsys, *words, code=2))
    assert remedy in out
    assert not (tmp_path / "run").exists()


def test_values_of_discrete_actions_are_a_policy_like_others(home: Path, tmp_path: Path, capsys: Capture) -> None:
    run, walk = tmp_path / "run", ("--task", "gym:tests.envs.toy:toy/Walk-v0", *HERE, "--task.max_steps", 30)
    learn = ("--algorithm", "dqn", "--algorithm.random_steps", 20, "--algorithm.learning_rate", 0.01)
    learn += ("--algorithm.critic.hidden_sizes", 16, "--algorithm.gamma", 0.9, "--algorithm.tau", 0.05)
    said(capsys, "rl", *walk, *learn, "--env_steps", 300, "--eval_episodes", 1, "--output", run)
    out = said(capsys, "eval", run, "--task.success_threshold", 1, "--episodes", 3, "--output", tmp_path / "out")
    assert "run: 3/3 solved" in out, "right leads to the reward from every cell, and the best action is taken"
    with np.load(tmp_path / "out" / "run.npz") as arrays:
        assert arrays["20000/actions"].tolist() == [[-1.0, 1.0]] * 3
    said(
        capsys, "eval", run, "--sample", "--temporal_ensemble", 0.01, "--episodes", 1, "--output", tmp_path / "sampled"
    )
    other = ("--task", "gym:tests.envs.toy:toy/Counter-v0", *HERE)
    assert "sees 'state'" in said(capsys, "eval", run, *other, "--output", tmp_path / "other", code=2)
    out = said(capsys, "eval", home / "plain", *walk, "--output", tmp_path / "other", code=2)
    assert "sees 'state'" in out or "has 2 discrete actions" in out
    data, more = home / "plain.hdf5", ("--output", tmp_path / "more")
    out = said(capsys, "finetune", "--policy", run, "--num_envs", 2, "--eval_episodes", 1, *more, code=2)
    assert "PPO needs the exact log-probability of actions" in out
    out = said(capsys, "train", "--dataset", data, "--init_policy", run, *TINY[2:], *more, code=2)
    assert "'state'" in out or "discrete" in out
    out = said(capsys, "train", "--dataset", data, "--policy.head", "values", *more, code=2)
    assert "policy.head values chooses one of several discrete actions, and here are 1 quantities" in out
    out = said(capsys, "rl", *task("Plain"), "--algorithm", "sac", "--policy.head", "values", *more, code=2)
    assert "policy.head values chooses" in out
    out = said(capsys, "rl", *walk, "--algorithm", "dqn", "--policy.head", "gaussian", *more, code=2)
    assert "policy.head gaussian says how much" in out
    out = said(capsys, "plot", "density", run, "--dataset", data, "--output", tmp_path / "density.png", code=2)
    assert not (tmp_path / "more").exists()
    assert not (tmp_path / "density.png").exists()


def test_a_dimension_that_never_moved_in_the_data_is_named_when_it_does(tmp_path: Path, capsys: Capture) -> None:
    still, free = ("--task.kwargs.wind", 0.0), ("--task.kwargs.wind", 0.5)
    data, run = tmp_path / "d.hdf5", tmp_path / "run"
    said(capsys, "record", data, *task("Windy"), *still, "--expert", "tests.envs.odd:gentle", "--episodes", 3)
    said(capsys, "train", "--dataset", data, *TINY, "--output", run)
    words = ("eval", run, "--episodes", 2, "--videos", 0)
    assert "note:" not in said(capsys, *words, "--output", tmp_path / "still")
    out = said(capsys, *words, *free, "--output", tmp_path / "out")
    assert out.count("observation 'state'[2] was 0 throughout the data and is 0.5 now") == 1
    assert "throughout the data" in (tmp_path / "out" / "report.html").read_text()
    rounds = ("--rounds", 1, "--episodes_per_round", 2, "--loop.total_steps", 1, "--batch_size", 8)
    rounds += ("--eval_episodes", 0, "--expert", "tests.envs.odd:gentle", "--output", tmp_path / "dagger")
    out = said(capsys, "dagger", "--policy", run, "--dataset", data, *free, *rounds)
    assert out.count("observation 'state'[2] was 0 throughout the data") == 1
