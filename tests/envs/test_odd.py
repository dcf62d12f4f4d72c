"""Action spaces and buffers as people have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.make import make
from robolearn.errors import TaskError

LIMITED = "gym:tests.envs.odd:odd/Limited-v0"


def away(obs: Any) -> np.ndarray:
    """Move away from the goal."""
    return -np.sign(obs[:1])


def limited(low: list[float], high: list[float], limit: float | None = None) -> Any:
    return make(TaskConfig(id=LIMITED, kwargs={"low": low, "high": high}, action_limit=limit, worker_kind="sync"))


def test_a_constant_dimension_stays_and_is_what_it_must_be() -> None:
    with limited([-1.0, 0.5], [1.0, 0.5]) as env:
        assert env.action_spec.size == 2
        env.reset([0])
        for value in (-1.0, 0.0, 1.0):
            assert env.step(torch.tensor([[0.0, value]])).obs["state"][0, 3] == 0.5


def test_half_infinite_dimensions_name_the_option_and_what_it_must_exceed() -> None:
    with pytest.raises(TaskError, match=r"dimensions \[1\].*set --task.action_limit"):
        limited([-1.0, 2.0], [1.0, np.inf])
    with pytest.raises(TaskError, match=r"action_limit 1 .* dimension 1 has low 2.*above 2"):
        limited([-1.0, 2.0], [1.0, np.inf], 1.0)
    with limited([-1.0, 2.0], [1.0, np.inf], 3.0) as env:
        assert (env.action_spec.low, env.action_spec.high) == ((-1.0, 2.0), (1.0, 3.0))


@pytest.mark.parametrize("name", ["OneBuffer", "Plain"])
def test_one_buffer_for_all_observations_is_noticed_where_it_would_matter(name: str) -> None:
    task = TaskConfig(id=f"gym:tests.envs.odd:odd/{name}-v0", max_steps=20, worker_kind="vector")
    kwargs = {"vector_kwargs": {"autoreset_mode": "SameStep"}}
    env = make(TaskConfig(id=task.id, kwargs=kwargs, worker_kind="vector", terminate_on_success=False), 2)
    with env:
        env.reset([0, 1])

        def run() -> None:
            for _ in range(70):
                step = env.step(torch.zeros(2, 1))
                if step.done.any():
                    env.reset([0] * int(step.done.sum()), step.done)

        if name == "Plain":  # it moves, and its last observation is not its first
            for _ in range(3):
                env.step(torch.ones(2, 1))
            return
        with pytest.raises(TaskError, match="hands out one array again and again"):
            run()


def test_one_buffer_harms_nothing_where_environments_run_one_by_one() -> None:
    with make(TaskConfig(id="gym:tests.envs.odd:odd/OneBuffer-v0", worker_kind="sync")) as env:
        first = env.reset([0])["state"].clone()
        kept = env.reset([0])["state"]
        env.step(torch.ones(1, 1))
        assert torch.equal(first, kept)
