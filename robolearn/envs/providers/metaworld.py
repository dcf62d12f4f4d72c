"""Meta-World (Farama, 3.0): what its environments need to be seeded and restored exactly, and its scripted policies.

Measured with 3.0.0: `reset(seed=...)` ignores the seed and draws one of 50 fixed tasks, and `step` refuses to run
before a task was set. With the settings of `MetaWorldQuirks`, and the environment's own `seed` called before each
reset, every seed gives its own initial state and a used environment equals a fresh one bit for bit.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from robolearn.envs.providers.provider import Provider, Quirks, Script, ScriptedExpert
from robolearn.errors import TaskError

if TYPE_CHECKING:
    from robolearn.envs.interface import VectorEnv

PREFIX = "Meta-World/"
SINGLE_TASK = PREFIX + "MT1"
"""The id of every task by its `env_name`."""


class MetaWorldQuirks(Quirks):
    """Seeds that count, and the previous frame that Meta-World stacks into each observation."""

    size = 18

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        env.get_wrapper_attr("sample_tasks")()
        env.get_wrapper_attr("toggle_sample_tasks_on_reset")(False)
        unwrapped: Any = env.unwrapped
        unwrapped._freeze_rand_vec, unwrapped.seeded_rand_vec = False, True
        self._previous_frame = np.zeros(self.size)

    def before_reset(self, seed: int) -> None:
        unwrapped: Any = self._env.unwrapped
        unwrapped.seed(seed)

    def observed(self, obs: np.ndarray) -> None:
        self._previous_frame = np.array(obs[18:36])

    def picture(self, rendered: np.ndarray) -> np.ndarray:
        """Turn the pictures of Meta-World's corner cameras, which hang upside down."""
        unwrapped: Any = self._env.unwrapped
        upside_down = (unwrapped.camera_name or "").startswith("corner")
        return np.rot90(rendered, 2) if upside_down else rendered

    def get(self) -> np.ndarray:
        return self._previous_frame

    def set(self, values: np.ndarray, elapsed: int) -> None:
        super().set(values, elapsed)
        unwrapped: Any = self._env.unwrapped
        unwrapped._prev_obs, unwrapped.curr_path_length = np.array(values), elapsed


def quirks(env: gym.Env, gym_id: str) -> Quirks | None:
    """Return the quirks of a single task; Meta-World's other ids are vector environments."""
    return MetaWorldQuirks(env) if gym_id == SINGLE_TASK else None


def advice(kwargs: Mapping[str, Any]) -> str:
    """Say what to change in constructor arguments that Meta-World refused."""
    known = sorted(importlib.import_module("metaworld").ALL_V3_ENVIRONMENTS)
    if "env_name" not in kwargs:
        return f"choose a task with --task.kwargs.env_name, for example {known[0]} or pick-place-v3"
    close = difflib.get_close_matches(str(kwargs["env_name"]), known, n=3)
    return f"env_name must be one of {', '.join(close or known)}"


def hand_position(obs: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the hand's (T, 3) positions, with which Meta-World's observation begins."""
    return obs["state"][:, :3] if "state" in obs else None


def prepare_script(env: VectorEnv) -> Callable[[], Script]:
    """Return what makes the scripted policy that Meta-World ships for the task that `env` runs."""
    args = env.env_args
    task = args["env_kwargs"].get("env_name")
    if not args["env_name"].startswith(PREFIX) or task is None:
        raise TaskError(
            f"the expert 'metaworld' knows Meta-World's tasks (gym:{SINGLE_TASK} with env_name), received {args}"
        )
    if dict(env.observation_spec).keys() != {"state"} or env.observation_spec["state"].shape != (39,):
        raise TaskError(
            f"Meta-World's scripted policies read its 39 numbers under 'state', received {dict(env.observation_spec)}; "
            "drop use_one_hot and obs_keys"
        )
    from metaworld.policies import ENV_POLICY_MAP

    if task not in ENV_POLICY_MAP:
        raise TaskError(f"Meta-World has no scripted policy for {task!r}; it has {', '.join(sorted(ENV_POLICY_MAP))}")
    # The policies warn at nearly every step that their actions will be clipped, which is how they are meant to work.
    warnings.filterwarnings("ignore", message="Constant\\(s\\) may be too high", module="metaworld")

    def make() -> Script:
        policy = ENV_POLICY_MAP[task]()
        return lambda state: policy.get_action(state.astype(np.float64))

    return make


PROVIDER = Provider(
    prefixes=(PREFIX,),
    package="metaworld",
    extra="metaworld",
    draws=True,
    camera={"camera_name": "corner2", "width": 480, "height": 360},  # shows gripper, object and goal
    quirks=quirks,
    advice=advice,
    end_effector=hand_position,
    expert=ScriptedExpert(name="metaworld", tasks=(PREFIX,), prepare=prepare_script),
)
