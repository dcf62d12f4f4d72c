"""The rules of an episode's end against their definition in words, for all combinations of flags."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.rules import EpisodeRules, ends
from robolearn.errors import TaskError

EVERY = list(itertools.product([False, True], repeat=3))


def in_words(terminated: bool, truncated: bool, success: bool, on_success: bool) -> tuple[bool, bool]:
    if terminated or (on_success and success):
        return True, False
    return (False, True) if truncated else (False, False)


@pytest.mark.parametrize("on_success", [False, True])
@pytest.mark.parametrize("batch", [np.array, torch.tensor])
def test_ends_of_one_environment_and_of_many(on_success: bool, batch) -> None:
    expected = [in_words(*flags, on_success) for flags in EVERY]
    assert [ends(*flags, terminate_on_success=on_success) for flags in EVERY] == expected
    columns = [batch(column) for column in zip(*EVERY)]
    before = [column.tolist() for column in columns]
    together = ends(*columns, terminate_on_success=on_success)
    assert list(zip(*(flags.tolist() for flags in together))) == expected
    assert [column.tolist() for column in columns] == before


def test_the_time_limit_truncates_at_the_step_that_reaches_it() -> None:
    rules = EpisodeRules(task=TaskConfig(id="gym:X"), max_steps=3)
    assert [rules.ends(False, False, False, elapsed) for elapsed in (2, 3, 4)] == [
        (False, False),
        (False, True),
        (False, True),
    ]
    assert rules.ends(False, False, True, 3) == (True, False)
    terminated, truncated = rules.ends(np.array([False, True]), False, np.zeros(2, bool), np.array([3, 3]))
    assert (terminated.tolist(), truncated.tolist()) == ([False, True], [True, False])


def test_the_tasks_own_limit_goes_before_the_environments() -> None:
    assert EpisodeRules.of(TaskConfig(id="gym:X", max_steps=7), 5).max_steps == 7
    assert EpisodeRules.of(TaskConfig(id="gym:X"), None, 0, 5, 6).max_steps == 5
    with pytest.raises(TaskError, match=r"gym:X has no time limit.*--task\.max_steps"):
        EpisodeRules.of(TaskConfig(id="gym:X"), None)


@pytest.mark.parametrize(("measure", "expected"), [("return", [False, True]), ("reward", [True, False])])
def test_success_that_is_measured(measure, expected: list[bool]) -> None:
    task = TaskConfig(id="gym:X", success_threshold=2.0, success_measure=measure)
    rules = EpisodeRules(task=task, max_steps=3)
    assert rules.measured
    returns, rewards = np.array([1.9, 2.0]), np.array([2.5, 0.0])
    assert rules.reached(returns, rewards).tolist() == expected
    assert [rules.reached(*pair) for pair in zip(returns, rewards)] == expected


def test_success_that_is_told() -> None:
    asked, open_ = (EpisodeRules(task=TaskConfig(id="gym:X", success_key=key), max_steps=3) for key in ("won", None))
    assert asked.success_keys == ("won",)
    assert open_.success_keys == ("is_success", "success")
    assert not open_.measured
    open_.check_told(False, {})
    asked.check_told(True, {})
    with pytest.raises(TaskError, match=r"'won' is not in info at the end; it has \['lost'\]"):
        asked.check_told(False, {"lost": 1})


def test_workers_that_import_the_rules_do_not_load_torch() -> None:
    code = "import sys, robolearn.envs.rules; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
