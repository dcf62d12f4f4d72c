"""A dimension that was constant in the data and moves at run time is warned of once, with its name and place."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.policy import DeterministicHeadConfig, MLPConfig, PolicyConfig
from robolearn.deploy.realtime import RealtimeRunner
from robolearn.deploy.runner import PolicyRunner
from robolearn.errors import NoticeWarning
from robolearn.policies.build import build_policy
from robolearn.policies.policy import Policy
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec


def policy() -> Policy:
    """Sees `state` (2, 2), whose numbers 1 and 3 were 0.5 and 100 in all of the data, and `free`, which moved."""
    ones = np.ones(4)
    state = {"min": -ones, "max": ones, "mean": 0 * ones, "std": ones, "q01": -ones, "q99": ones}
    for place, value in ((1, 0.5), (3, 100.0)):
        for name, array in state.items():
            state[name] = np.where(np.arange(4) == place, 0.0 if name == "std" else value, array)
    free = {name: np.full(1, value[0]) for name, value in state.items()} | {"std": np.full(1, 2.0)}
    torch.manual_seed(0)
    return build_policy(
        PolicyConfig(backbone=MLPConfig(hidden_sizes=(4,)), head=DeterministicHeadConfig()),
        ObservationSpec({"state": ArraySpec(shape=(2, 2)), "free": ArraySpec(shape=(1,), dtype="float64")}),
        ActionSpec(low=(-1.0,), high=(1.0,)),
        {"state": state, "free": free},
    ).eval()


def seen(first: float, second: float) -> dict[str, torch.Tensor]:
    state = torch.tensor([[[0.0, 0.5], [0.3, 100.0]], [[0.1, first], [0.3, second]]])
    return {"state": state, "free": torch.tensor([[5.0], [-5.0]], dtype=torch.float64)}


def test_a_runner_says_once_what_moved_and_where() -> None:
    runner = PolicyRunner(policy(), 2)
    runner.reset([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runner.act(seen(0.5004, 100.05))
    assert runner.notes == ()
    with pytest.warns(NoticeWarning, match=r"'state'\[1\] was 0.5 throughout the data and is 0.75 now") as told:
        runner.act(seen(0.75, 100.0))
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runner.act(seen(0.9, 100.0))
    with pytest.warns(NoticeWarning, match=r"'state'\[3\] was 100 throughout the data and is 98 now"):
        runner.act(seen(0.9, 98.0))
    assert len(runner.notes) == 2


def test_so_does_a_robot_in_real_time() -> None:
    with RealtimeRunner(policy(), control_hz=1000.0) as runner:
        runner.start({key: value[0] for key, value in seen(0.5, 100.0).items()})
        runner.act({})
        assert runner.notes == ()
        with pytest.warns(NoticeWarning, match=r"'state'\[1\]"):
            runner.act({key: value[1] for key, value in seen(0.6, 100.0).items()})
