"""TaskConfig: YAML, command line, and the `env_args` of dataset files."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, strategies as st

from robolearn.configuration.parts.task import TaskConfig, environment_name
from robolearn.errors import ConfigError

TASKS = st.builds(
    TaskConfig,
    id=st.sampled_from(["Lift", "gym:HalfCheetah-v5", "gym:pkg.mod:ns/Env-v0", "gym:robolearn/Lift-v0"]),
    kwargs=st.dictionaries(st.text(min_size=1), st.none() | st.integers() | st.text() | st.lists(st.integers())),
    max_steps=st.none() | st.integers(1, 10**6),
    success_key=st.none() | st.just("solved"),
    success_measure=st.sampled_from(["return", "reward"]),
    terminate_on_success=st.booleans(),
    action_limit=st.none() | st.floats(0.1, 10.0),
    obs_keys=st.lists(st.text(min_size=1), max_size=3).map(tuple),
    depth_range=st.sampled_from([(), (0.5, 4.0)]),
)


@given(TASKS)
def test_env_args_are_json_and_name_the_same_task(task: TaskConfig) -> None:
    assert TaskConfig.from_env_args(json.loads(json.dumps(task.env_args()))) == task


def test_env_args_hold_what_robomimic_reads_and_nothing_of_ours_unless_set() -> None:
    task = TaskConfig(id="gym:Meta-World/MT1", kwargs={"env_name": "pick-place-v3"})
    assert task.env_args() == {"env_name": "Meta-World/MT1", "type": 2, "env_kwargs": {"env_name": "pick-place-v3"}}
    assert TaskConfig(id="Lift", max_steps=7).env_args() == {
        "env_name": "robolearn/Lift-v0",
        "type": 2,
        "env_kwargs": {},
        "robolearn": {"task": "Lift", "max_steps": 7},
    }


def test_env_args_of_others_are_read_as_what_they_say() -> None:
    name = {"env_name": "Lift", "env_kwargs": {}}
    assert TaskConfig.from_env_args(name | {"type": 2}).id == "gym:Lift"
    assert TaskConfig.from_env_args(name | {"type": 3}).id == "Lift"
    with pytest.raises(ConfigError, match=r"Lift of robosuite.*--task gym:MODULE:ID"):
        TaskConfig.from_env_args(name | {"type": 1})
    assert environment_name(TaskConfig(id="Lift").env_args()) == "Lift"
    assert environment_name(TaskConfig(id="gym:robolearn/Lift-v0").env_args()) == "robolearn/Lift-v0"
    assert environment_name({"env_name": "x", "robolearn": "damaged"}) == "x"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"id": ""}, "task id"),
        ({"id": "gym:"}, "task id"),
        ({"id": "Lift", "max_steps": 0}, "max_steps"),
        ({"id": "Lift", "workers": -1}, "workers"),
        ({"id": "Lift", "workers": 2, "backend": "warp"}, "no part in backend warp, received 2; leave workers out"),
        ({"id": "Lift", "worker_kind": "process"}, "is for Gymnasium's environments, received 'process' for Lift"),
        ({"id": "gym:X", "workers": 2, "worker_kind": "sync"}, "no part in worker_kind sync"),
        ({"id": "gym:X", "workers": 2, "worker_kind": "vector"}, "no part in worker_kind vector"),
        ({"id": "Lift", "action_limit": float("inf")}, "action_limit"),
        ({"id": "Lift", "success_key": "won", "success_threshold": 3.0}, "drop one"),
    ],
)
def test_refuses_nonsense(values: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TaskConfig(**values)


@pytest.mark.parametrize("env_args", [{}, {"env_name": "x", "type": "two"}, {"env_name": "x", "robolearn": {"no": 1}}])
def test_refuses_malformed_env_args(env_args: dict) -> None:
    with pytest.raises(ConfigError, match="env_args must hold"):
        TaskConfig.from_env_args(env_args)


@pytest.mark.parametrize(
    "module", ["robolearn.configuration.parts.task", "robolearn.envs.gymnasium.host", "robolearn.sim.rendering"]
)
def test_imports_no_torch(module: str) -> None:
    code = f"import sys, {module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
