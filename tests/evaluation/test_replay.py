"""Replay: by actions, which must lead to the recorded states, and by the states themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robolearn.cli.main import main
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.datasets.dataset import Dataset
from robolearn.envs.make import make
from robolearn.episodes.record import record
from robolearn.errors import DatasetError
from robolearn.evaluation.replay import replay, restore
from robolearn.specs import Episode


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("replay") / "d.hdf5"
    record(RecordConfig(task=TaskConfig(id="Reach"), output=str(output), episodes=2, num_envs=1))
    return output


@pytest.fixture(scope="module")
def episode(path: Path) -> Episode:
    with Dataset(path) as dataset:
        return dataset.read(1)


def test_the_same_actions_lead_to_the_same_states(episode: Episode) -> None:
    with make("Reach", 1) as env:
        result = replay(env, episode)
    assert (result.exact, result.steps, result.success) == (True, len(episode), True)


def test_the_step_from_which_other_actions_stray_is_named_and_how_far(episode: Episode) -> None:
    actions = episode.actions.copy()
    actions[5] = -actions[5]
    with make("Reach", 1) as env:
        result = replay(env, replace(episode, actions=actions))
    assert not result.exact
    assert result.first_difference == 6
    assert "states differ from step 6 on" in str(result)


def test_restored_states_are_the_recorded_ones_whatever_the_actions_are(episode: Episode) -> None:
    with make("Reach", 2) as env:
        result = restore(env, episode)
        assert np.array_equal(env.get_states()[0], episode.states[-1])  # type: ignore[index]
    assert result.exact
    assert result.steps == len(episode)
    assert result.observation_difference is not None
    assert result.observation_difference < 1e-5
    assert str(result).startswith(f"{len(episode)} states restored, exactly as recorded")


def test_an_episode_without_states_says_how_to_replay_it(episode: Episode) -> None:
    bare = replace(episode, states=None)
    with make("Reach", 1) as env, pytest.raises(DatasetError, match="--by action"):
        restore(env, bare)


def test_the_command_says_it_and_films_it(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = tmp_path / "replay.mp4"
    assert main(["replay", str(path), "--episodes", "0", "1"]) == 0
    assert main(["replay", str(path), "--by", "state", "--video", str(video)]) == 0
    assert capsys.readouterr().out.count("exactly as recorded") == 3
    assert video.stat().st_size > 1000
