"""A session beside a learner, in real processes: what it acts by and records, and every way in which either may end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robolearn.configuration.finetune import CorrectorConfig, FinetuneConfig
from robolearn.configuration.parts.gates import HumanGateConfig
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.session import SessionConfig
from robolearn.configuration.parts.ways import PPOTuningConfig
from robolearn.configuration.provenance import check_same_inputs
from robolearn.configuration.tree import write_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.datasets.tools.validate import validate
from robolearn.deploy.runner import PolicyRunner
from robolearn.errors import ConfigError, DatasetError, DeviceError
from robolearn.policies.folder import load_policy
from robolearn.policies.policy import Policy
from robolearn.policies.residual import ResidualPolicy, build_correction
from robolearn.rl.finetune import finetune
from robolearn.rl.person import published
from robolearn.rl.person.beside import PersonBeside
from robolearn.specs import ActionMode
from robolearn.training.metrics import read_metrics
from tests.envs.toy import point_reach_expert
from tests.rl.test_residual import TASK, algorithm, config, demonstrations, half_taught
from tests.teleop.recorder import client
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
EXPERT = "tests.envs.toy:point_reach_expert"
QUICK = HumanGateConfig(reaction_s=0.1, stall_s=0.4, least_s=0.2)
NEVER = HumanGateConfig(reaction_s=1e3)
HINT = "run it again"


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy that goes astray, in chunks, and demonstrations."""
    folder = tmp_path_factory.mktemp("taught")
    policy = half_taught(folder / "start", pred_steps=4, exec_steps=2)
    return policy, demonstrations(folder / "d.hdf5")


def attended(taught: tuple[Path, Path], output: Path, updates: int = 3, **changes: Any) -> FinetuneConfig:
    """A run with a session that is rehearsed, fast; its learner does little."""
    policy, data = taught
    corrector = CorrectorConfig(
        device="expert", expert=EXPERT, gate=QUICK, session=SessionConfig(port=0, rate=100.0), operator="Åsa"
    )
    few = {"random_steps": 20, "collect_steps": 1, "batch_size": 16, "utd": 0.25}
    usual = {"demonstrations": (str(data),), "corrector": corrector, "export": "last", "test_episodes": 0}
    return config(policy, output, updates, algorithm(**few), **({"eval_episodes": 2} | usual | changes))


@contextmanager
def beside(c: FinetuneConfig, policy: Policy) -> Iterator[PersonBeside]:
    """A session as `finetune` would start it."""
    folder = Path(c.output)
    folder.mkdir(parents=True, exist_ok=True)
    person = PersonBeside(c, replace(TASK, max_steps=40), folder / "corrections.hdf5", resume_hint=HINT)
    try:
        person.ready()
        person.begin(policy, resume=False)
        yield person
    finally:
        person.close()


def recorded(path: Path) -> int:
    """Return how many episodes a file holds; none while nobody has begun it, or where it is finished just now."""
    if not path.exists():
        return 0
    try:
        with Dataset(path) as dataset:
            return len(dataset)
    except DatasetError:
        return 0


def residual_of(folder: Path) -> ResidualPolicy:
    network = PolicyConfig(backbone=MLPConfig(hidden_sizes=(8,)), head=GaussianHeadConfig(initial_std=0.3))
    base = load_policy(folder)
    return ResidualPolicy(base, build_correction(network, base, 0.5))


@pytest.mark.parametrize("make", [load_policy, residual_of])
def test_each_episode_is_driven_by_the_newest_policy_and_corrected_by_the_device(
    make: Callable[[Path], Policy], taught: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the policy proposed is recorded at each step: by a runner of the weights of then, on what was seen."""
    monkeypatch.setattr(published, "EVERY_S", 0.0)
    torch.manual_seed(0)
    policy = make(taught[0])
    c = attended(taught, tmp_path / "run")
    path = tmp_path / "run" / "corrections.hdf5"
    with beside(c, policy) as person:
        wait_until(lambda: recorded(path) >= 3)
        before = person._publisher.publish()  # type: ignore[union-attr]
        assert before is None
        part = policy.learning_part
        with torch.no_grad():
            part.head.mean.bias += torch.tensor([0.7, -0.7] * (part.config.pred_steps))  # type: ignore[operator]
        person.attend()
        known = recorded(path)
        wait_until(lambda: recorded(path) >= known + 4)
    assert validate(path) == []
    assert person.over
    old, new = make(taught[0]), policy
    if isinstance(old, ResidualPolicy):  # of random weights, but for its last layer
        old.learning_part.load_state_dict(new.learning_part.state_dict())
        old.learning_part.head.mean.bias.data.zero_()  # type: ignore[union-attr, operator]
    by: dict[str, Policy] = {}
    with Dataset(path) as dataset:
        found = [dataset.read(i) for i in range(len(dataset)) if not dataset.interrupted[i]]
    assert len({episode.info.policy for episode in found}) == 2
    for episode in found:
        info, modes = episode.info, episode.action_modes
        assert (info.source, info.device, info.operator) == ("rl", "expert", "Åsa")
        assert info.seed in c.practice_seeds
        assert episode.terminated[-1] == info.success
        acting = by.setdefault(info.policy, old if not by else new)
        runner = PolicyRunner(acting, 1)
        runner.reset([info.seed])
        assert modes is not None
        assert episode.policy_actions is not None
        for t in range(len(episode)):
            if t and modes[t - 1] == ActionMode.INTERVENTION:
                runner.replan()
            proposal = runner.act({"state": torch.from_numpy(episode.obs["state"][t : t + 1])})[0].numpy()
            np.testing.assert_allclose(episode.policy_actions[t], proposal, atol=1e-5)
            expert = np.clip(point_reach_expert(episode.obs["state"][t]) * (2.0, 1.0) - (0.0, 1.0), -1, 1)
            own = modes[t] == ActionMode.INTERVENTION
            np.testing.assert_allclose(episode.actions[t], expert if own else np.clip(proposal, -1, 1), atol=1e-5)
    kinds = [event.kind for episode in found for event in episode.events]
    assert {"takeover", "release"} <= set(kinds) <= {"takeover", "release"}


@pytest.mark.long
def test_both_ways_learn_from_it_while_it_goes_on(
    taught: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The run waits, at its first evaluation, for three episodes; the next updates have them."""
    for way in ("residual", "sac"):
        path = tmp_path / way / "corrections.hdf5"
        usual = attended(taught, tmp_path / way)
        c = replace(usual, loop=replace(usual.loop, evaluate_every=1))
        if way == "residual":
            c = replace(c, method=replace(config(*taught).method, algorithm=usual.method))  # type: ignore[type-var]

        def wait(update: int, _: Any, path: Path = path) -> None:
            if update == 1:
                wait_until(lambda: recorded(path) >= 3)

        result = finetune(c, c.output, on_evaluation=wait, resume_hint=HINT)
        rows = [row for row in read_metrics(tmp_path / way) if "recorded_episodes" in row]
        assert rows[-1]["recorded_episodes"] >= 3
        assert rows[-1]["demonstrated"] > sum(Dataset(taught[1]).lengths)
        assert 0.0 < rows[-1]["corrected"] < 1.0
        assert load_policy(result.policy)
        assert "somebody took over in" in (result.policy / "card.md").read_text(encoding="utf-8")
        assert "somebody took over in" in capfd.readouterr().err
        assert validate(path) == []
        assert Dataset((str(taught[1]), str(path))).lengths, "they read as one"


def test_a_session_that_is_killed_is_told_and_loses_nothing(
    taught: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    c, policy = attended(taught, tmp_path / "run"), load_policy(taught[0])
    path = tmp_path / "run" / "corrections.hdf5"
    with beside(c, policy) as person:
        wait_until(lambda: recorded(path) >= 3)
        os.kill(person._process.pid, signal.SIGKILL)
        person._process.wait()
        kept = recorded(path)
        wait_until(lambda: person.attend() or person.over)
        said = " ".join(capfd.readouterr().err.split())
        assert "session at the device expert is over: its process has died (SIGKILL). Practice goes on" in said
        assert f"stop this (Ctrl-C), then {HINT}" in said
        assert recorded(path) in (kept, kept + 1), "what was in progress is there as well"
        assert validate(path) == []
        person.attend()
    assert capfd.readouterr().err.count("note:") == 1
    with beside(c, policy):  # and it goes on
        wait_until(lambda: recorded(path) >= kept + 3)
    with Dataset(path) as dataset:
        seeds = [info.seed for info in dataset.info]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.long
def test_nobody_comes_nobody_takes_over_and_somebody_quits(
    taught: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    policy = load_policy(taught[0])
    browser = CorrectorConfig(device="browser", session=SessionConfig(port=0))
    (tmp_path / "teleop" / "actions").mkdir(parents=True)
    text = 'tasks: ["*toy/*"]\nactions: {action_0: +x, action_1: +y}\n'
    (tmp_path / "teleop" / "actions" / "toy.yaml").write_text(text, encoding="utf-8")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        with beside(attended(taught, tmp_path / "alone", corrector=browser, demonstrations=()), policy) as person:
            out = ""

            def link() -> Any:
                nonlocal out
                out += capfd.readouterr().out
                return re.search(r"http://\S+", out)

            wait_until(link)
            assert "Correct gym:tests.envs.toy:toy/PointReach-v0" in out
            assert "nobody began an episode at the device browser" in person.summary()
            with client(link().group()) as operator:
                assert operator.hello["verb"] == "finetune"
                assert operator.status["target"] is None
                operator.press("start")
                operator.wait_for_step(3)
                operator.press("failure")
                operator.wait(kept=1)
                operator.press("quit")
                wait_until(lambda: person.attend() or person.over)
            assert "is over: its operator quit. Practice goes on" in " ".join(capfd.readouterr().err.split())
            assert "kept 1 episode of the session at the device browser" in person.summary()
            assert "nobody took over in any" in person.summary()
    finally:
        os.chdir(before)
    path = tmp_path / "never" / "corrections.hdf5"
    usual = attended(taught, tmp_path / "never")
    never = replace(usual, corrector=replace(usual.corrector, gate=NEVER))  # type: ignore[type-var]
    with beside(never, policy) as person:
        wait_until(lambda: recorded(path) >= 2)
    assert "nobody took over in any, so that they are practice and no demonstrations" in person.summary()


def test_what_cannot_begin_is_refused_before_there_is_a_run(taught: tuple[Path, Path], tmp_path: Path) -> None:
    c = attended(taught, tmp_path / "run")

    def refused(kind: type[Exception], words: str, **corrector: Any) -> None:
        with pytest.raises(kind, match=words):
            finetune(replace(c, corrector=CorrectorConfig(**corrector)), c.output)
        assert not (tmp_path / "run").exists()

    refused(DeviceError, "unknown device 'brwoser'; did you mean 'browser'", device="brwoser")
    refused(DeviceError, "map", device="browser")  # no action map of the toy lies here


def test_configurations_that_mean_nothing() -> None:
    browser = CorrectorConfig(device="browser")
    with pytest.raises(ConfigError, match="method ppo learns from actions of its own only"):
        FinetuneConfig(policy="p", method=PPOTuningConfig(), corrector=browser)
    assert FinetuneConfig(policy="p", method=algorithm(), corrector=browser).demonstrations == ()
    with pytest.raises(ConfigError, match="--demonstrations FILE"):
        FinetuneConfig(policy="p", method=algorithm(), corrector=CorrectorConfig(device="expert"))
    with pytest.raises(ConfigError, match=r"person corrects and decides when, which leaves nothing to corrector\.gate"):
        CorrectorConfig(device="browser", gate=QUICK)
    with pytest.raises(ConfigError, match=r"leave corrector\.record none out"):
        CorrectorConfig(device="browser", record="none")
    with pytest.raises(ConfigError, match=r"corrector\.operator is about a person.*--corrector\.device browser"):
        CorrectorConfig(operator="Åsa")
    with pytest.raises(ConfigError, match=r"corrector\.expert browser is a device.*--corrector\.device browser"):
        CorrectorConfig(expert="browser")
    with pytest.raises(ConfigError, match=r"where the networks live, received browser.*--corrector\.device browser"):
        FinetuneConfig(policy="p", method=algorithm(), device="browser")


def test_who_sits_at_the_device_may_change_within_a_run(taught: tuple[Path, Path], tmp_path: Path) -> None:
    first = attended(taught, tmp_path)
    assert first.corrector is not None
    write_yaml(first, tmp_path / "config.yaml")
    other = replace(first, corrector=replace(first.corrector, operator="Bo", session=SessionConfig(port=1)))
    check_same_inputs(other, tmp_path / "config.yaml", output=tmp_path)
    again = replace(first, corrector=replace(first.corrector, device="policy"))
    with pytest.raises(ConfigError, match=r"corrector\.device 'expert', now 'policy'"):
        check_same_inputs(again, tmp_path / "config.yaml", output=tmp_path)


def start(c: FinetuneConfig, *arguments: str) -> subprocess.Popen[str]:
    """Start the run as a user does."""
    write_yaml(c, Path(c.output).parent / "run.yaml")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "robolearn", "finetune", "--config", "run.yaml", *arguments]
    place = Path(c.output).parent
    return subprocess.Popen(command, cwd=place, env=environment, text=True, stdout=-1, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_ctrl_c_a_killed_learner_and_going_on(taught: tuple[Path, Path], tmp_path: Path) -> None:
    c = attended(taught, tmp_path / "run", 1_000_000, eval_episodes=0)
    c = replace(c, loop=replace(c.loop, checkpoint_every=1))
    path = tmp_path / "run" / "corrections.hdf5"

    def recorded_beyond(count: int) -> None:
        wait_until(lambda: recorded(path) >= count + 3)

    running = start(c)
    recorded_beyond(0)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=90)
    assert running.returncode == 130, said
    assert "to go on: robolearn finetune --config" in said
    assert f"of the session at the device expert in {path}; somebody took over in" in said
    assert not parts_of(path).exists(), "the session has finished its file"
    first = recorded(path)
    running = start(c, "--resume")
    recorded_beyond(first)
    running.kill()
    running.wait()
    kept = recorded(path)
    wait_until(lambda: not parts_of(path).exists())  # the session has seen that it is alone, and finished the file
    assert recorded(path) >= kept >= first + 3
    assert validate(path) == []
    after = [row["step"] for row in read_metrics(tmp_path / "run")][-1]
    last = replace(c, loop=replace(c.loop, total_steps=int(after) + 3))
    finetune(last, c.output, resume=True)
    rows = [row for row in read_metrics(tmp_path / "run") if "recorded_episodes" in row]
    assert rows[-1]["recorded_episodes"] >= kept, "the run that goes on has them from the file"
    assert load_policy(tmp_path / "run")
