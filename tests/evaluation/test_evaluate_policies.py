"""An evaluation as one command: stopped anywhere and gone on with, it is what it would have been."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from robolearn import storage
from robolearn.cli.main import main
from robolearn.configuration.evaluation import EvalConfig
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.make import make
from robolearn.errors import ConfigError
from robolearn.evaluation import evaluate, evaluate_policies
from robolearn.evaluation.evaluate_policies import TAKEN, _names, run_evaluation
from robolearn.policies.build import build_policy
from robolearn.policies.folder import save_policy
from tests.commands import forks
from tests.envs import toy

EPISODES = 9
TASK = TaskConfig(id=toy.POINT_REACH, worker_kind="sync", max_steps=5, kwargs={"tolerance": 1.0})
HEEDLESS = TaskConfig(id="gym:tests.envs.odd:odd/Heedless-v0", worker_kind="sync", max_steps=5)


def save(folder: Path, seed: int, task: TaskConfig = TASK) -> str:
    torch.manual_seed(seed)
    config = PolicyConfig(head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,)), pred_steps=2)
    with make(task) as env:
        save_policy(build_policy(config, env.observation_spec, env.action_spec), folder, env_args=env.env_args)
    return str(folder)


def config_of(policies: Path, output: Path) -> EvalConfig:
    options: Any = {"episodes": EPISODES, "num_envs": 2, "sample": True, "videos": 0}
    return EvalConfig(policies=(str(policies / "a"), str(policies / "b")), task=TASK, output=str(output), **options)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the policies a and b, and `whole`, their evaluation without interruption."""
    folder = tmp_path_factory.mktemp("home")
    for seed, name in enumerate("ab"):
        save(folder / name, seed)
    run_evaluation(config_of(folder, folder / "whole"))
    return folder


@pytest.fixture
def config(home: Path, tmp_path: Path) -> EvalConfig:
    return config_of(home, tmp_path / "out")


@pytest.fixture(autouse=True, scope="module")
def undrawn() -> Iterator[None]:
    """Reports take their time, and are made of the results."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(evaluate_policies, "write_report", lambda folder, *_, **__: folder)
        yield


@pytest.fixture
def run_seeds(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The seeds of each loop of episodes."""
    seen: list[list[int]] = []
    original = evaluate.rollouts

    def rollouts(actor: Any, env: Any, seeds: list[int], **options: Any) -> Iterator[Any]:
        seen.append(list(seeds))
        return original(actor, env, seeds, **options)

    monkeypatch.setattr(evaluate, "rollouts", rollouts)
    return seen


def found(folder: str) -> dict[str, tuple[dict[str, Any], Mapping[str, np.ndarray]]]:
    """The results of a folder, wall times apart."""
    results = {}
    for path in sorted(Path(folder).glob("*.json")):
        with np.load(path.with_suffix(".npz")) as arrays:
            results[path.stem] = json.loads(path.read_text()) | {"seconds": 0.0}, dict(arrays)
    return results


def assert_as_uninterrupted(folder: str, whole: Path) -> None:
    ours, theirs = found(folder), found(str(whole))
    assert ours.keys() == theirs.keys() == {"a", "b"}
    for name in ours:
        assert ours[name][0] == theirs[name][0]
        assert ours[name][1].keys() == theirs[name][1].keys()
        for key, array in theirs[name][1].items():
            np.testing.assert_array_equal(ours[name][1][key], array)


def evaluate_and_die(config: EvalConfig, at: int) -> None:
    """Kill this process before it writes the JSON of a result for the `at`-th time: the arrays beside it are newer."""
    evaluate.KEEP_EVERY_S = 0.0
    written, write = 0, storage.write_json

    def write_json(*args: Any, **options: Any) -> None:
        nonlocal written
        written += 1
        if written == at:
            os.kill(os.getpid(), signal.SIGKILL)
        write(*args, **options)

    storage.write_json = write_json
    run_evaluation(config)


@pytest.mark.parametrize("at", [EPISODES, EPISODES + 4])
def test_a_killed_evaluation_goes_on_and_is_what_it_would_have_been(
    at: int, home: Path, config: EvalConfig, run_seeds: list[list[int]]
) -> None:
    process = forks.Process(target=evaluate_and_die, args=(config, at))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    run_evaluation(replace(config, resume=True))
    assert sum(map(len, run_seeds)) == 2 * EPISODES - (at - 1)
    assert_as_uninterrupted(config.output, home / "whole")


def test_ctrl_c_keeps_the_episodes_and_says_how_to_go_on(
    home: Path,
    config: EvalConfig,
    run_seeds: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original, finished = evaluate.rollouts, 0

    def rollouts(*args: Any, **options: Any) -> Iterator[Any]:
        nonlocal finished
        for found in original(*args, **options):
            finished += 1
            if finished == EPISODES + 4:
                raise KeyboardInterrupt
            yield found

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "rollouts", rollouts)
        with pytest.raises(KeyboardInterrupt):
            run_evaluation(config)
    said = capsys.readouterr().err
    assert "b: " in said
    assert "/3 solved" in said
    words = shlex.split(said.split("to go on: ")[1])
    assert words == ["robolearn", "eval", "--config", f"{config.output}/config.yaml", "--resume"]
    run_seeds.clear()
    assert main(words[1:]) == 0
    assert list(map(len, run_seeds)) == [EPISODES - 3]
    assert_as_uninterrupted(config.output, home / "whole")


def test_what_was_made_anew_is_not_mixed_with_what_was_there(
    config: EvalConfig, run_seeds: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_evaluation(config)

    def interrupted(*_: Any, **__: Any) -> Iterator[Any]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "rollouts", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_evaluation(config)
    run_seeds.clear()
    run_evaluation(replace(config, resume=True))
    assert list(map(len, run_seeds)) == [EPISODES, EPISODES]


def test_other_settings_are_not_gone_on_with(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "own")
    config = config_of(tmp_path / "own", tmp_path / "out")
    run_evaluation(config)
    before = {path: path.read_bytes() for path in Path(config.output).iterdir()}
    longer = replace(TASK, max_steps=6)
    others: tuple[tuple[dict[str, Any], str], ...] = (
        ({"seed": 7}, "seed 20000, now 7"),
        ({"episodes": 11}, f"episodes {EPISODES}, now 11"),
        ({"task": longer}, "task.max_steps 5, now 6"),
        ({"policies": config.policies[::-1]}, "policies"),
        ({"sample": False}, "sample True, now False"),
    )
    for changed, named in others:
        with pytest.raises(ConfigError, match=named):
            run_evaluation(replace(config, resume=True, **changed))
    save(Path(config.policies[1]), seed=5)
    with pytest.raises(ConfigError, match=r"the policy b has changed since .*out/b\.json was made"):
        run_evaluation(replace(config, resume=True))
    assert {path: path.read_bytes() for path in Path(config.output).iterdir()} == before


def test_episodes_that_no_seed_repeats_are_not_gone_on_with(
    config: EvalConfig, tmp_path: Path, run_seeds: list[list[int]]
) -> None:
    """Those under way when it stopped were the longest, and would be drawn anew."""
    config = replace(config, policies=(save(tmp_path / "h", 0, HEEDLESS),), task=HEEDLESS)
    run_evaluation(config)
    path = Path(config.output) / "h.json"
    part = json.loads(path.read_text())
    part["episodes"] = part["episodes"][:4]
    path.write_text(json.dumps(part))
    run_seeds.clear()
    run_evaluation(replace(config, resume=True))
    run_evaluation(replace(config, resume=True))
    assert list(map(len, run_seeds)) == [EPISODES], "all of it anew, and a finished one not"


NAMES = st.sampled_from(["a", "a_1", "a_2", "a_1_2", "b", "policy", *TAKEN])


@settings(max_examples=50)
@given(st.lists(st.builds(Path, NAMES, NAMES), max_size=8))
def test_policies_have_names_of_their_own(folders: list[Path]) -> None:
    names = _names(folders)
    assert len({*names, *TAKEN}) == len(folders) + len(TAKEN), "all different, and of no other file in the folder"
    plain = [f.parent.name if f.name == "policy" else f.name for f in folders]
    assert [n for n, p in zip(names, plain) if plain.count(p) == 1 and p not in TAKEN] == [
        p for p in plain if plain.count(p) == 1 and p not in TAKEN
    ]


def test_a_policy_here_has_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" / "below")
    assert _names([Path(), Path("..")]) == ["below", "mine"]
    assert EvalConfig(policies=("..",)).folder == Path("runs/eval/mine")


def exit_with_what_commands_loaded() -> None:
    sys.exit("matplotlib" in sys.modules)


def test_matplotlib_is_loaded_where_something_is_drawn_and_not_before() -> None:
    """In a fork of a process that has imported what `eval`, `dagger` and `finetune` import."""
    process = forks.Process(target=exit_with_what_commands_loaded)
    process.start()
    process.join(60)
    assert process.exitcode == 0
