"""Calls of environments as people write them: served where the meaning is certain, else refused by name. Free of torch.

What Gymnasium's API has: `reset(seed=..., options=...)` returns (observation, info), `step(action)` returns
(observation, reward, terminated, truncated, info). What its predecessor had, and is still written: `reset()` returns
the observation alone, `seed(number)` is a method of its own, `step` returns (observation, reward, done, info), and
`info["TimeLimit.truncated"]` tells a time limit from an end.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing

from robolearn.errors import TaskError

API = "https://gymnasium.farama.org/api/env"


def plain_environment(env: gym.Env) -> gym.Env:
    """Return the environment without the outer wrappers that only check the order of calls, which we keep ourselves."""
    while isinstance(env, OrderEnforcing):
        env = env.env
    return env


def reset_environment(env: Any, seed: int, name: str) -> Any:
    """Begin the episode of `seed` and return the first observation. Raises TaskError naming what is not the API's."""
    parameters = inspect.signature(env.reset).parameters.values()
    takes_seed = any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in parameters)
    if takes_seed:
        result = env.reset(seed=seed)
    else:
        if callable(own := getattr(env, "seed", None)):
            own(seed)
        result = env.reset()
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        return result[0]
    if result is None or (isinstance(result, tuple) and not isinstance(env.observation_space, gym.spaces.Tuple)):
        raise TaskError(
            f"{name}: reset returned {_shown(result)}; it must return (observation, info), with info a dictionary, or "
            f"the observation alone ({API})"
        )
    return result


def step_environment(env: Any, action: Any, name: str) -> tuple[Any, float, bool, bool, Mapping[str, Any]]:
    """Take a step; returns observation, reward, terminated, truncated and info, of the types that they must have.

    Raises TaskError naming what the environment returned in their place.
    """
    result = env.step(action)
    if not isinstance(result, tuple) or len(result) not in (4, 5):
        raise TaskError(
            f"{name}: step returned {_shown(result)}; it must return (observation, reward, terminated, truncated, "
            f"info) ({API})"
        )
    obs, reward, *ends, info = result
    info = {} if info is None else info
    if not isinstance(info, Mapping):
        raise TaskError(f"{name}: step returned the info {_shown(info)}; it must be a dictionary ({API})")
    flags = [truth(end, f"{name}: step returned the end of the episode") for end in ends]
    if len(flags) == 1:
        cut = flags[0] and truth(info.get("TimeLimit.truncated", False), f"{name}: info TimeLimit.truncated")
        flags = [flags[0] and not cut, cut]
    return obs, number(reward, f"{name}: step returned the reward"), flags[0], flags[1], info


def close_environment(env: Any, name: str) -> None:
    """Close an environment; a failure is told on stderr only, for whatever was done with it is done."""
    try:
        env.close()
    except (Exception, SystemExit) as error:
        print(f"note: {name}: close failed ({type(error).__name__}: {error})", file=sys.stderr)


def number(value: Any, what: str) -> float:
    """Return a number, or an array or list of one, as a float. Raises TaskError for anything else."""
    if type(value) is float:
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise TaskError(f"{what} {_shown(value)}; it must be one number (0.0 where there is none; {API})")
    return float(array.reshape(()))


def truth(value: Any, what: str) -> bool:
    """Return a truth value, or a number or an array of one, as a bool. Raises TaskError for text, None and others."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf" or np.isnan(number := float(array.reshape(()))):
        raise TaskError(f"{what} {_shown(value)}; it must be True or False, or a number ({API})")
    return bool(number)


def _shown(value: Any) -> str:
    text = repr(value)
    text = text if len(text) < 80 else text[:77] + "..."
    return f"{text} ({type(value).__name__}{f' of {len(value)}' if isinstance(value, tuple) else ''})"
