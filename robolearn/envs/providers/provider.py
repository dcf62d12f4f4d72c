"""The one interface to third parties: all that a package of environments needs beside Gymnasium's. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from robolearn.envs.interface import VectorEnv

Script = Callable[[Any], np.ndarray]
"""One observation (a dict of arrays, or the bare array where there is only the key "state") -> (A,) physical action."""


class Quirks:
    """Corrections of one environment around Gymnasium's calls; this base changes nothing."""

    size = 0
    """Numbers that the package keeps between steps outside of its physics."""

    def __init__(self, env: gym.Env) -> None:
        self._env = env

    def before_reset(self, seed: int) -> None:
        """Prepare the environment for `reset(seed=seed)`."""

    def observed(self, obs: Any) -> None:
        """Take note of an observation that the environment returned."""

    def picture(self, rendered: np.ndarray) -> np.ndarray:
        """Turn a rendered (height, width, 3) picture the right way up."""
        return rendered

    def get(self) -> np.ndarray:
        """Return the package's own numbers, (size,) float64."""
        return np.zeros(0)

    def set(self, values: np.ndarray, elapsed: int) -> None:
        """Restore `get`'s numbers, and the count of steps where a wrapper keeps one."""
        wrapper: Any = self._env
        while isinstance(wrapper, gym.Wrapper):
            if isinstance(wrapper, gym.wrappers.TimeLimit):
                wrapper._elapsed_steps = elapsed
            wrapper = wrapper.env


@dataclass(frozen=True, kw_only=True)
class ScriptedExpert:
    """A scripted expert for some of a package's tasks."""

    name: str
    """Stands for it in `--expert NAME`."""
    tasks: tuple[str, ...]
    """Beginnings of the ids of the tasks whose own expert it is."""
    prepare: Callable[[VectorEnv], Callable[[], Script]]
    """Returns what makes the script of one environment. Raises TaskError where it does not know the task."""


def _no_quirks(env: gym.Env, gym_id: str) -> Quirks | None:
    return None


def _general_advice(kwargs: Mapping[str, Any]) -> str:
    return "check --task.kwargs against the environment's documentation"


def _nowhere(obs: Mapping[str, np.ndarray]) -> np.ndarray | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A package of Gymnasium environments. The defaults are those of a package that needs nothing in particular."""

    prefixes: tuple[str, ...] = ()
    """Beginnings of the ids that it registers when it is imported."""
    package: str = ""
    """Name that is imported."""
    extra: str = ""
    """Extra of robolearn's that installs it."""
    draws: bool = False
    """Its environments draw pictures, also where their metadata does not say so."""
    camera: Mapping[str, Any] = field(default_factory=dict)
    """Constructor arguments for videos: a view that shows the task well."""
    quirks: Callable[[gym.Env, str], Quirks | None] = _no_quirks
    """(environment, its id) -> its quirks, None where it is not of this package's making."""
    advice: Callable[[Mapping[str, Any]], str] = _general_advice
    """Constructor arguments that were refused -> how to correct them."""
    end_effector: Callable[[Mapping[str, np.ndarray]], np.ndarray | None] = _nowhere
    """Observations of T steps, (T, ...) per key -> (T, 3) positions in metres, None where they do not hold them."""
    expert: ScriptedExpert | None = None
    """The expert that comes with it, or that robolearn has for it."""

    @property
    def distribution(self) -> str:
        """Name of the package at the package index."""
        return self.package.replace("_", "-")
