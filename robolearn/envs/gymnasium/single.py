"""One Gymnasium environment behind robolearn's conventions; workers hold several of these. Free of torch."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.calls import (
    close_environment,
    number,
    plain_environment,
    reset_environment,
    step_environment,
    truth,
)
from robolearn.envs.gymnasium.physics import Physics
from robolearn.envs.providers.lookup import provider_of, quirks_of
from robolearn.envs.rules import EpisodeRules
from robolearn.envs.spaces import action_layout, describe_spaces, observation_leaves, picture_options
from robolearn.errors import TaskError
from robolearn.sim import rendering


class SingleEnv:
    """One environment: seeded episodes, true final observations, success, and physics states where there are any."""

    def __init__(self, task: TaskConfig) -> None:
        self._task = task
        made, spec = open_environment(task)
        self._env = plain_environment(made)
        self._quirks = quirks_of(self._env, spec.id)
        self._leaves = observation_leaves(self._env.observation_space, task.obs_keys, picture_options(task))
        self._action = action_layout(self._env.action_space, task.action_limit)
        self._physics = Physics.of(self._env.unwrapped)
        self._rules = EpisodeRules.of(task, asked_limit(task), *_own_limits(self._env, spec))
        self.done = True
        self.score = math.nan
        """After the last step, by `score_key`."""
        self._started = False
        self._elapsed, self._return = 0, 0.0

    @property
    def unwrapped(self) -> Any:
        """The environment below all wrappers."""
        return self._env.unwrapped

    def describe(self) -> dict[str, Any]:
        """Return what the vector environment must know, as JSON-serialisable values."""
        return describe_spaces(self._leaves, self._action) | {
            "control_hz": _control_hz(self._env),
            "max_steps": self._rules.max_steps,
            "state_size": None if self._physics is None else self._physics.size + 2 + self._quirks.size,
        }

    def reset(self, seed: int, obs_row: dict[str, np.ndarray]) -> None:
        """Begin the episode of `seed`, writing the first observation into the rows."""
        self.done = True
        self._quirks.before_reset(seed)
        obs = reset_environment(self._env, seed, self._task.id)
        self._elapsed, self._return, self.done, self._started = 0, 0.0, False, True
        self.score = math.nan
        self._write(obs, obs_row)

    def step(self, action: np.ndarray, obs_row: dict[str, np.ndarray]) -> tuple[float, bool, bool, bool]:
        """Take an (A,) physical action; returns reward, terminated, truncated and success (at most one end is True)."""
        obs, reward, terminated, truncated, info = step_environment(
            self._env, self._action.to_env(action), self._task.id
        )
        self._elapsed += 1
        self._return += reward
        self._write(obs, obs_row)
        self.score = self._score(info)
        success = self._success(info, reward)
        terminated, truncated = self._rules.ends(terminated, truncated, bool(success), self._elapsed)
        self.done = terminated or truncated
        if self.done:
            self._rules.check_told(success is not None, info)
        return reward, terminated, truncated, bool(success)

    def get_state(self) -> np.ndarray:
        """Return (S,) float64: MuJoCo's integration state, steps and return so far, what the package itself keeps."""
        assert self._physics is not None
        return np.concatenate([self._physics.get(), [self._elapsed, self._return], self._quirks.get()])

    def set_state(self, state: np.ndarray, obs_row: dict[str, np.ndarray]) -> None:
        """Restore a state of this episode. Goals drawn at reset are not in it: reset with the episode's seed first."""
        assert self._physics is not None
        if not self._started:
            raise TaskError("set_states needs a reset with the episode's seed first: it draws the goal and the scene")
        size = self._physics.size
        self._physics.set(state[:size])
        self._elapsed, self._return, self.done = int(state[size]), float(state[size + 1]), False
        self._quirks.set(state[size + 2 :], self._elapsed)
        self._write(_observe(self._env), obs_row)

    def render(self) -> np.ndarray:
        """Draw the environment, (height, width, 3) uint8."""
        if not self._started:
            raise TaskError("render needs a reset first")
        if self._physics is not None:
            rendering.prepare()
        picture: Any = self._env.render() if self._env.render_mode else None
        if not isinstance(picture, np.ndarray) or picture.ndim != 3:
            raise TaskError(
                f"{self._task.id} gives no pictures with render_mode={self._env.render_mode!r}; its modes are "
                f"{self._env.metadata.get('render_modes')}"
            )
        return np.ascontiguousarray(self._quirks.picture(picture[..., :3]), np.uint8)

    def close(self) -> None:
        close_environment(self._env, self._task.id)

    def _write(self, obs: Any, row: dict[str, np.ndarray]) -> None:
        self._quirks.observed(obs)
        for leaf in self._leaves:
            try:
                leaf.write(obs, row[leaf.key])
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise TaskError(
                    f"{self._task.id}: the observation {leaf.key!r} is not what observation_space says, "
                    f"{leaf.spec.dtype} {leaf.spec.shape} ({type(error).__name__}: {error}); mend the environment's "
                    "observation_space or what it returns"
                ) from None

    def _success(self, info: Mapping[str, Any], reward: float) -> bool | None:
        """Return whether the task is solved; None where neither `info` nor a threshold says so."""
        if self._rules.measured:
            return self._rules.reached(self._return, reward)
        key = next((key for key in self._rules.success_keys if key in info), None)
        return None if key is None else truth(info[key], f"{self._task.id}: info says {key!r} is")

    def _score(self, info: Mapping[str, Any]) -> float:
        """Return what `info` says under `score_key`; NaN where no such key is named."""
        key = self._task.score_key
        if key is None:
            return math.nan
        if key not in info:
            known = ", ".join(sorted(map(str, info))) or "nothing"
            raise TaskError(f"{self._task.id}: info has no score_key {key!r}; it holds {known}")
        score = number(info[key], f"{self._task.id}: info says {key!r} is")
        if math.isnan(score):
            raise TaskError(f"{self._task.id}: info says {key!r} is NaN")
        return score


def open_environment(task: TaskConfig) -> tuple[gym.Env, Any]:
    """Import what registers the id, make the environment, and return it with its registered spec."""
    with opening(task):
        spec = find_spec(task)
        # No time limit of Gymnasium's: ours is the one that is told.
        kwargs: dict[str, Any] = {"disable_env_checker": True, **task.kwargs, "max_episode_steps": -1}
        if _renders(spec):
            kwargs.setdefault("render_mode", "rgb_array")
        return gym.make(spec.id, **kwargs), spec


def asked_limit(task: TaskConfig) -> int | None:
    """Return the time limit that the kwargs ask of Gymnasium, under its own name; None where they ask for none."""
    limit = task.kwargs.get("max_episode_steps")
    if limit in (None, -1):
        return None
    if not isinstance(limit, int) or limit < 1:
        raise TaskError(f"{task.id}: max_episode_steps must be at least 1, received {limit!r}; or set --task.max_steps")
    return limit


def find_spec(task: TaskConfig) -> Any:
    """Find what is registered under the task's id. `module:namespace/Name-v0` imports `module`, as Gymnasium does."""
    assert task.gym_id is not None, task.id
    module, _, gym_id = task.gym_id.rpartition(":")
    _import_provider(gym_id, module)
    return gym.spec(gym_id)


@contextlib.contextmanager
def opening(task: TaskConfig) -> Iterator[None]:
    """Turn errors of making an environment into TaskErrors that say what to install or correct."""
    assert task.gym_id is not None, task.id
    gym_id = task.gym_id.rpartition(":")[2]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of observation spaces, deprecated versions and the like
            yield
    except gym.error.Error as error:
        raise TaskError(f"{task.id}: {str(error).rstrip(' .')}{_closest(gym_id)}") from None
    except ImportError as error:
        raise TaskError(
            f"{task.id} needs a package that is not installed ({error}); Gymnasium's own environments name theirs as "
            'extras: pip install "gymnasium[mujoco]"'
        ) from None
    except TaskError:
        raise
    except Exception as error:  # whatever a third party's constructor raises, most often about its arguments
        raise TaskError(
            f"{task.id} could not be made with kwargs {task.kwargs}: {type(error).__name__}: {error}; "
            f"{provider_of(gym_id).advice(task.kwargs)}"
        ) from error


def _import_provider(gym_id: str, module: str) -> None:
    extra = ""
    if not module and gym_id not in gym.registry:
        provider = provider_of(gym_id)
        module, extra = provider.package, provider.extra
    if not module or (gym_id in gym.registry and module in sys.modules):
        return
    level, gym.logger.min_level = gym.logger.min_level, gym.logger.ERROR
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # notices about other environments
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except ImportError as error:
        remedy = f'pip install "robolearn[{extra}]"' if extra else "check the module before the colon"
        raise TaskError(f"{gym_id} needs {module} ({error}): {remedy}") from None
    finally:
        gym.logger.min_level = level


def _renders(spec: Any) -> bool:
    creator = spec.entry_point
    if creator is None:
        raise TaskError(f"{spec.id} has only a vector form of its own; run it with --task.worker_kind vector")
    if isinstance(creator, str):
        creator = load_env_creator(creator)
    modes = getattr(creator, "metadata", {}).get("render_modes")
    return provider_of(spec.id).draws if modes is None else "rgb_array" in modes


def _closest(gym_id: str) -> str:
    if gym_id in gym.registry:
        return ""
    close = difflib.get_close_matches(gym_id, list(gym.registry), n=3, cutoff=0.6)
    return f"; close to it: {', '.join(close)}" if close else ""


def _own_limits(env: gym.Env, spec: Any) -> Iterator[int | None]:
    """Yield the time limits that are registered or that environments keep themselves, in order of precedence."""
    yield spec.max_episode_steps
    for name in ("max_path_length", "_max_episode_steps"):
        yield getattr(env.unwrapped, name, None)


def _control_hz(env: gym.Env) -> float:
    """Return control steps per second: as the environment says, else from its `dt`, its frame rate, else 1."""
    for name in ("control_hz", "control_freq"):  # gym-pusht's and robosuite's, where dt is a step of the physics
        rate = getattr(env.unwrapped, name, None)
        if isinstance(rate, (int, float)) and rate > 0:
            return float(rate)
    dt = getattr(env.unwrapped, "dt", None)
    if isinstance(dt, (int, float)) and dt > 0:
        return round(1.0 / dt, 6)
    return float(env.metadata.get("render_fps") or 1.0)


def _observe(env: Any) -> Any:
    """Return the current observation, through the observation wrappers on the way out."""
    if isinstance(env, gym.ObservationWrapper):
        return env.observation(_observe(env.env))
    if isinstance(env, gym.Wrapper):
        return _observe(env.env)
    if not hasattr(env, "_get_obs"):
        raise TaskError(f"{type(env).__name__} has no _get_obs, so restored states cannot be observed")
    return env._get_obs()
