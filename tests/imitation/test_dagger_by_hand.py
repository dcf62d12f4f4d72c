"""DAgger rounds with a person: through the real page, quit early and resumed, and refused before anything happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.parts.gates import HumanGateConfig
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.provenance import check_same_inputs
from robolearn.configuration.record import RecordConfig
from robolearn.configuration.tree import write_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.validate import validate
from robolearn.episodes.record import record
from robolearn.errors import ConfigError, DeviceError
from robolearn.imitation.bc import train_bc
from robolearn.imitation.dagger import dagger, fingerprint
from robolearn.specs import ActionMode
from tests.teleop.browser import chromium, open_page
from tests.teleop.recorder import Recorder, client, recorder

STEPS = 60
SHORT = ("--loop.total_steps", "5", "--loop.evaluate_every", "0", "--loop.tensorboard", "false")


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two demonstrations of Reach, and a policy that has hardly learned from them and means four steps at a time."""
    folder = tmp_path_factory.mktemp("cloned")
    task = TaskConfig(id="Reach", max_steps=STEPS)
    record(RecordConfig(task=task, output=str(folder / "demos.hdf5"), episodes=2, num_envs=1))
    policy = PolicyConfig(
        backbone=MLPConfig(hidden_sizes=(16,)),
        head=GaussianHeadConfig(),
        pred_steps=4,
        exec_steps=4,
    )
    loop = LoopConfig(total_steps=1, evaluate_every=0, checkpoint_every=0, tensorboard=False)
    train_bc(BCConfig(dataset=(str(folder / "demos.hdf5"),), policy=policy, loop=loop), folder / "clone")
    return folder


def arguments(cloned: Path, *others: str) -> tuple[str, ...]:
    given = ("--policy", str(cloned / "clone" / "policy"), "--dataset", str(cloned / "demos.hdf5"), "--output", "run")
    return (*given, "--rounds", "1", "--episodes_per_round", "2", "--eval_episodes", "0", *SHORT, *others)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


def drives(page: Any, words: str) -> None:
    page.locator("#state-name", has_text=words).wait_for()


def correct_one(page: Any) -> None:
    """Let the policy begin, take over with the button of the page, move up, hand back by the key."""
    page.locator("#state[data-state=ready]").wait_for()
    page.keyboard.press("Enter")
    drives(page, "The policy drives")
    assert page.locator("#handover").inner_text().startswith("Take over")
    page.wait_for_function("() => parseInt(document.querySelector('#plan-steps').textContent) >= 1")
    page.locator("#handover").click()
    drives(page, "You drive")
    page.keyboard.down("KeyR")
    page.wait_for_timeout(300)
    page.keyboard.up("KeyR")
    page.keyboard.press("KeyG")
    drives(page, "The policy drives")
    page.keyboard.down("KeyF")  # by motion
    drives(page, "You drive")
    page.keyboard.up("KeyF")
    page.keyboard.press("KeyG")
    drives(page, "The policy drives")
    page.keyboard.press("Digit1")


@pytest.mark.slow
def test_a_round_through_the_page(browser: Any, cloned: Path, tmp_path: Path) -> None:
    slowly = ("--session.rate", "8", "--operator", "Åsa")
    with (
        recorder(tmp_path, *arguments(cloned, *slowly), verb="dagger") as running,
        open_page(browser, running.link) as page,
    ):
        assert "Correct Reach" in running.text
        for kept in (1, 2):
            correct_one(page)
            page.locator("#kept", has_text=f"{kept} of 2 kept").wait_for()
        page.locator("#state[data-state=ready]").wait_for()
        page.keyboard.press("Escape")
        page.get_by_text("the policy is trained on it").wait_for()
        assert running.wait() == 0, running.text
    path = tmp_path / "run/rounds/01/episodes.hdf5"
    assert validate(path) == []
    with Dataset(path) as dataset:
        found = [dataset.read(i) for i in range(len(dataset))]
    assert len(found) == 2
    for episode in found:
        info = episode.info
        assert (info.source, info.round, info.operator, info.device) == ("dagger", 1, "Åsa", "browser")
        assert info.policy == fingerprint(cloned / "clone" / "policy")
        assert episode.action_modes is not None
        assert episode.expert_actions is not None
        own = episode.action_modes == ActionMode.INTERVENTION
        assert 0 < own.sum() < len(own)
        np.testing.assert_array_equal(episode.expert_actions[own], episode.actions[own])
        assert np.isnan(episode.expert_actions[~own]).all()
        kinds = [(event.kind, event.reason) for event in episode.events if event.kind in ("takeover", "release")]
        by_button, by_motion = ("takeover", "button"), ("takeover", "motion")
        assert kinds == [by_button, ("release", "button"), by_motion, ("release", "button")]
        assert episode.actions[own][:, 2].max() > 0.9, "moved up"
    facts = json.loads((tmp_path / "run/rounds/01/round.json").read_text(encoding="utf-8"))
    assert (facts["episodes"], facts["takeovers"], facts["autonomous"]) == (2, 4, 0)
    assert (tmp_path / "run/policy").is_dir()


def leave_alone(running: Recorder, episodes: int) -> None:
    """Keep so many episodes in which the policy drives alone, and quit."""
    with client(running.link) as operator:
        for _ in range(episodes):
            operator.wait(state="ready")
            kept = operator.status["kept"]
            operator.press("start")
            operator.wait_for_step(3)
            operator.press("failure")
            operator.wait(kept=kept + 1)
        operator.wait(state="ready")
        operator.press("quit")
        running.wait()


@pytest.mark.slow
def test_quit_before_the_rounds_end_is_said_kept_and_resumed_and_nobody_need_take_over(
    cloned: Path, tmp_path: Path
) -> None:
    with recorder(tmp_path, *arguments(cloned), verb="dagger") as first:
        leave_alone(first, 1)
        assert first.process.returncode == 2
        assert "round 1 has 1 of 2 episodes" in first.text
    assert not (tmp_path / "run/policy").exists()
    with recorder(tmp_path, *arguments(cloned), verb="dagger") as again:
        leave_alone(again, 1)
        assert again.process.returncode == 0, again.text
    facts = json.loads((tmp_path / "run/rounds/01/round.json").read_text(encoding="utf-8"))
    assert (facts["episodes"], facts["autonomous"], facts["labelled_steps"]) == (2, 2, 0)
    with Dataset(tmp_path / "run/rounds/01/episodes.hdf5") as dataset:
        assert len({info.seed for info in dataset.info}) == 2


def config(cloned: Path, **changes: Any) -> DaggerConfig:
    return DaggerConfig(policy=str(cloned / "clone" / "policy"), dataset=(str(cloned / "demos.hdf5"),), **changes)


def test_a_device_that_acts_by_itself_is_refused_before_there_is_a_run(cloned: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="acts by itself"):
        dagger(config(cloned, device="expert"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_person_and_a_gate_cannot_both_decide(cloned: Path) -> None:
    with pytest.raises(ConfigError, match="a person decides when to take over, not the gate human"):
        config(cloned, device="browser", gate=HumanGateConfig())
    assert config(cloned, device="browser", weights="iwr").weights == "iwr"


def test_who_sits_at_the_device_may_change_within_a_run(cloned: Path, tmp_path: Path) -> None:
    first = config(cloned, device="browser", operator="Åsa")
    write_yaml(first, tmp_path / "config.yaml")
    other = config(cloned, device="browser", operator="Bo", profile="mine")
    check_same_inputs(other, tmp_path / "config.yaml", output=tmp_path)
    with pytest.raises(ConfigError, match="device 'browser', now ''"):
        check_same_inputs(config(cloned), tmp_path / "config.yaml", output=tmp_path)
