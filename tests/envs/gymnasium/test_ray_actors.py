"""Environments in actors on a local cluster of two nodes, against the same ones in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium import gym_vector_env as gymnasium_env
from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv
from robolearn.envs.gymnasium.ray_actors import RayWorkers
from robolearn.errors import TaskError
from tests.envs.toy import COUNTER, FAULTY, POINT_REACH

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))  # the toys are no part of the package
        patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
        both = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        both.add_node(num_cpus=1)
        ray.init(address=both.address, log_to_driver=False)
        yield
        ray.shutdown()
        both.shutdown()


def remote(task: TaskConfig, num_envs: int, monkeypatch: pytest.MonkeyPatch) -> GymVectorEnv:
    monkeypatch.setattr(gymnasium_env, "make_workers", lambda task, n: RayWorkers(task, n, 2))
    return GymVectorEnv(task, num_envs)


@pytest.mark.parametrize("task", [POINT_REACH, COUNTER, "gym:InvertedPendulum-v5"])
def test_equals_the_same_environments_here(task: str, cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TaskConfig(id=task, worker_kind="sync", terminate_on_success=False)
    here = GymVectorEnv(config, 3)
    there = remote(config, 3, monkeypatch)
    assert len(set(there._workers.nodes())) == 2, "one actor on each node"  # type: ignore[attr-defined]
    g = torch.Generator().manual_seed(0)
    first = [env.reset([5, 6, 7]) for env in (here, there)]
    assert all(torch.equal(first[0][key], first[1][key]) for key in first[0])
    mask = None
    for t in range(12):
        actions = torch.rand(3, here.action_spec.size, generator=g) * 2 - 1
        a, b = here.step(actions, mask), there.step(actions, mask)
        rows = torch.ones(3, dtype=torch.bool) if mask is None else mask
        for name in ("reward", "terminated", "truncated", "success"):
            assert torch.equal(getattr(a, name)[rows], getattr(b, name)[rows]), (t, name)
        assert all(torch.equal(a.obs[key], b.obs[key]) for key in a.obs)
        if a.done[rows].any():
            ended = a.done & rows
            seeds = [20 + t + i for i in range(int(ended.sum()))]
            restarted = [env.reset(seeds, ended) for env in (here, there)]
            assert all(torch.equal(restarted[0][key], restarted[1][key]) for key in restarted[0])
        mask = torch.tensor([True, t % 2 == 0, True])
    states = [env.get_states() for env in (here, there)]
    assert (states[0] is None) == (states[1] is None) == (task != "gym:InvertedPendulum-v5")
    if states[0] is not None:
        np.testing.assert_array_equal(states[0], states[1])
    here.close()
    there.close()


def test_faults_name_the_environment(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    env = remote(TaskConfig(id=FAULTY, kwargs={"fault": "raise", "at": 1, "seed": 9}), 4, monkeypatch)
    env.reset([1, 2, 3, 9])
    with pytest.raises(TaskError, match=r"environment 3 of .* failed to step: RuntimeError: the gripper fell off"):
        env.step(torch.zeros(4, 1))
    env.close()
    env = remote(TaskConfig(id=FAULTY, kwargs={"fault": "exit", "at": 1, "seed": 9}), 4, monkeypatch)
    env.reset([1, 2, 3, 9])
    with pytest.raises(TaskError, match=r"a Ray worker of .* was lost while it was to step"):
        env.step(torch.zeros(4, 1))
    env.close()


def test_ray_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TaskError, match=r"needs Ray: pip install robolearn\[ray\]"):
        RayWorkers(TaskConfig(id=COUNTER), 2, 1)
