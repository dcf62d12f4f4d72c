"""The environment interface that recording, evaluation, DAgger and RL are written against.

There is no hidden auto-reset: `step` always returns the true next observation, and the caller resets finished
environments by mask. So no value can ever be bootstrapped from the wrong episode, in any back end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch

from robolearn.specs import ActionSpec, Actor, Observation, ObservationSpec

__all__ = ["Actor", "Observation", "Step", "VectorEnv", "discrete_actions"]


@dataclass(frozen=True)
class Step:
    """The outcome of one control step of N environments; every tensor is on the environment's device.

    A row is meaningless for an environment that had ended and was not reset; back ends may leave it stale.
    """

    obs: Observation
    """(N, ...) per key: the true observation after the action, also where the episode ended."""
    reward: torch.Tensor
    """(N,) float32."""
    terminated: torch.Tensor
    """(N,) bool: the task ended here; the value beyond is zero."""
    truncated: torch.Tensor
    """(N,) bool: a time limit ended the episode; values bootstrap from `obs`."""
    success: torch.Tensor
    """(N,) bool: the task counts as solved at this step."""

    @property
    def done(self) -> torch.Tensor:
        """(N,) bool."""
        return self.terminated | self.truncated


@runtime_checkable
class VectorEnv(Protocol):
    """N environments stepped together. Actions are (N, A) in [-1, 1]."""

    @property
    def num_envs(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def observation_spec(self) -> ObservationSpec: ...
    @property
    def action_spec(self) -> ActionSpec: ...
    @property
    def control_hz(self) -> float: ...
    @property
    def max_steps(self) -> int:
        """Steps after which an episode is truncated."""
        ...

    @property
    def env_args(self) -> dict[str, Any]:
        """robomimic's `env_name`, `type`, `env_kwargs`: enough to make this environment again."""
        ...

    @property
    def model_xml(self) -> str | None:
        """The MJCF in one piece, all that a viewer of recorded states needs; None where there is none."""
        ...

    def reset(self, seeds: Sequence[int] | None = None, mask: torch.Tensor | None = None) -> Observation:
        """Start new episodes and return the current observation of all N environments.

        Args:
            seeds: one per environment that is reset (in order of index); the same seed always gives the same
                episode, whatever came before and however many environments there are. None draws new ones.
            mask: (N,) bool, which environments to reset; None means all.
        """
        ...

    def step(self, actions: torch.Tensor, mask: torch.Tensor | None = None) -> Step:
        """Advance by one control step with (N, A) actions in [-1, 1].

        Args:
            mask: (N,) bool, which environments to step; the others keep still (rows stale). None means all.

        Raises TaskError naming the environment on NaN actions or a failing environment.
        """
        ...

    def scores(self) -> torch.Tensor | None:
        """Return (N,) float32 how well each environment stands after its last step, larger is better; None where the
        task has no score beside success."""
        ...

    def get_states(self) -> np.ndarray | None:
        """Return (N, S) float64 full physics states, or None where the environment has none."""
        ...

    def set_states(self, states: np.ndarray, mask: torch.Tensor | None = None) -> Observation:
        """Restore full physics states (rows of `states`, one per masked environment); returns as `reset`."""
        ...

    def render(self, index: int = 0) -> np.ndarray:
        """Draw one environment, (height, width, 3) uint8. Raises TaskError where OpenGL is missing."""
        ...

    def world(self, index: int = 0) -> tuple[Any, Any] | None:
        """Return MuJoCo's model and data of one environment, not to be changed; None where this process has none."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None:
        """Close."""
        ...


def discrete_actions(env: VectorEnv) -> int | None:
    """Return how many discrete actions there are, of which `step` takes (N,) integers; None where it takes (N, A)."""
    return getattr(env, "discrete_actions", None)
