"""A person corrects the policy while it is learned, through the real page: what they did, and what is learned of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.validate import validate
from robolearn.episodes.record import record
from robolearn.imitation.bc import train_bc
from robolearn.policies.folder import load_policy
from robolearn.specs import ActionMode
from robolearn.training.metrics import read_metrics
from tests.teleop.browser import chromium, open_page
from tests.teleop.recorder import recorder
from tests.waiting import wait_until

STEPS = 60
METHOD = (
    *("--method", "residual", "--method.algorithm.random_steps", "20", "--method.algorithm.collect_steps", "1"),
    *("--method.algorithm.utd", "0.5", "--method.algorithm.batch_size", "16"),
)
RUN = (
    *("--num_envs", "1", "--eval_episodes", "0", "--test_episodes", "0", "--export", "last", "--output", "run"),
    *("--loop.total_steps", "100000", "--loop.checkpoint_every", "1", "--loop.tensorboard", "false"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two demonstrations of Reach, and a policy that has hardly learned from them and means four steps at a time."""
    folder = tmp_path_factory.mktemp("cloned")
    task = TaskConfig(id="Reach", max_steps=STEPS)
    record(RecordConfig(task=task, output=str(folder / "demos.hdf5"), episodes=2, num_envs=1))
    policy = PolicyConfig(backbone=MLPConfig(hidden_sizes=(16,)), head=GaussianHeadConfig(), pred_steps=4, exec_steps=4)
    loop = LoopConfig(total_steps=1, evaluate_every=0, checkpoint_every=0, tensorboard=False)
    train_bc(BCConfig(dataset=(str(folder / "demos.hdf5"),), policy=policy, loop=loop), folder / "clone")
    return folder


def drives(page: Any, words: str) -> None:
    page.locator("#state-name", has_text=words).wait_for()


@pytest.mark.slow
def test_an_episode_through_the_page_is_learned_from(browser: Any, cloned: Path, tmp_path: Path) -> None:
    arguments = (str(cloned / "clone"), "--demonstrations", str(cloned / "demos.hdf5"), *METHOD, *RUN)
    seat = ("--corrector.device", "browser", "--corrector.operator", "Åsa", "--corrector.session.port", "0")
    slowly = ("--corrector.session.rate", "8")

    def newest() -> dict[str, float]:
        rows = [row for row in read_metrics(tmp_path / "run") if "recorded_episodes" in row]
        return rows[-1] if rows else {"recorded_episodes": 0, "demonstrated": 0}

    with recorder(tmp_path, *arguments, *seat, *slowly, verb="finetune", session=False) as running:
        with open_page(browser, running.link) as page:
            assert "Correct Reach" in running.text
            page.locator("#state[data-state=ready]").wait_for()
            assert page.title() == "Reach – robolearn finetune"
            page.keyboard.press("Enter")
            drives(page, "The policy drives")
            page.locator("#handover").click()
            drives(page, "You drive")
            page.keyboard.down("KeyR")
            page.wait_for_timeout(600)
            page.keyboard.up("KeyR")
            page.keyboard.press("KeyG")
            drives(page, "The policy drives")
            page.keyboard.press("Digit1")
            page.locator("#kept", has_text="1 kept").wait_for()
            wait_until(lambda: newest()["recorded_episodes"] == 1)
            page.locator("#state[data-state=ready]").wait_for()
            page.keyboard.press("Escape")
            page.get_by_text("The learner learns from all that was kept").wait_for()
        wait_until(lambda: "is over: its operator quit" in running.text, lambda: running.text)
        running.process.terminate()
        assert running.wait() == 130, running.text
    path = tmp_path / "run" / "corrections.hdf5"
    assert f"kept 1 episode of the session at the device browser in {Path('run/corrections.hdf5')}" in running.text
    assert "somebody took over in 1" in running.text
    assert validate(path) == []
    with Dataset(path) as dataset:
        (episode,) = (dataset.read(i) for i in range(len(dataset)))
    info = episode.info
    assert (info.source, info.operator, info.device, info.success) == ("rl", "Åsa", "browser", True)
    assert info.policy
    own = episode.action_modes == ActionMode.INTERVENTION
    assert 0 < own.sum() < len(own)
    assert episode.actions[own][:, 2].max() > 0.9, "moved up"
    assert episode.policy_actions is not None
    np.testing.assert_allclose(episode.actions[~own], np.clip(episode.policy_actions[~own], -1, 1), atol=1e-6)
    shown = sum(Dataset(cloned / "demos.hdf5").lengths)
    assert newest()["demonstrated"] >= shown + own.sum(), "both what was shown before and what was done now"
    assert newest()["corrected"] == pytest.approx(own.mean(), abs=1e-6)
    assert load_policy(cloned / "clone")
