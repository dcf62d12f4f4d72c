"""Gymnasium's MuJoCo tasks (v5, default arguments) as rules over batches of worlds. Free of torch and of MuJoCo.

Each rule repeats the arithmetic of its task's `step` in the same order and precision, so that results are equal to the
last bit. What the tasks draw at reset, their models and spaces are Gymnasium's own and not repeated here.
Source: gymnasium/envs/mujoco/*_v5.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from robolearn.configuration.parts.task import TaskConfig


@dataclass(frozen=True)
class Worlds:
    """N worlds of one model, all arrays float64 and those of the present state."""

    qpos: np.ndarray
    """(N, nq)."""
    qvel: np.ndarray
    """(N, nv)."""
    fields: Mapping[str, np.ndarray]
    """(N, ...) further fields of MjData, as the last substep left them: they may lag behind `qpos` by a substep."""
    bodies: Mapping[str, int]
    """Rows of the bodies in such fields, by name."""

    def body(self, name: str) -> np.ndarray:
        """Return a body's position, (N, 3) metres, world frame."""
        return self.fields["xpos"][:, self.bodies[name]]


@dataclass(frozen=True)
class Outcome:
    """A control step of N worlds, as rewards see it."""

    worlds: Worlds
    """After the step."""
    actions: np.ndarray
    """(N, A) float32 physical values."""
    velocity: np.ndarray
    """(N,) m/s, of the rule's `position` over the step; zeros where it has none."""
    healthy: np.ndarray
    """(N,) bool."""

    def effort(self) -> np.ndarray:
        """Return the (N,) float32 sums of squared actions."""
        return np.square(self.actions).sum(axis=1)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One task."""

    observe: Callable[[Worlds], np.ndarray]
    """(N, n) float64."""
    reward: Callable[[Outcome], np.ndarray]
    """(N,)."""
    healthy: Callable[[Worlds], np.ndarray] = lambda worlds: np.ones(len(worlds.qpos), bool)
    """(N,) bool: the episode goes on."""
    position: Callable[[Worlds], np.ndarray] = lambda worlds: worlds.qpos[:, 0]
    """(N,) metres: whose velocity is rewarded."""
    fields: tuple[str, ...] = ()
    """Fields of MjData beside the state that are looked at."""


def _state(worlds: Worlds, skip: int = 0) -> np.ndarray:
    return np.concatenate((worlds.qpos[:, skip:], worlds.qvel), axis=1)


def _state_at_limited_speed(worlds: Worlds) -> np.ndarray:
    return np.concatenate((worlds.qpos[:, 1:], np.clip(worlds.qvel, -10, 10)), axis=1)


def _within(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (low < values) & (values < high)


def _length(vectors: np.ndarray) -> np.ndarray:
    """Map (N, 3) -> (N,). As a product, because `np.linalg.norm` of one vector is a dot product of BLAS."""
    return np.sqrt((vectors[:, None, :] @ vectors[:, :, None])[:, 0, 0])


def _hopper_healthy(worlds: Worlds) -> np.ndarray:
    bounded = _within(_state(worlds)[:, 2:], -100.0, 100.0).all(axis=1)
    return bounded & (worlds.qpos[:, 1] > 0.7) & _within(worlds.qpos[:, 2], -0.2, 0.2)


def _walker_healthy(worlds: Worlds) -> np.ndarray:
    return _within(worlds.qpos[:, 1], 0.8, 2.0) & _within(worlds.qpos[:, 2], -1.0, 1.0)


def _reacher_miss(worlds: Worlds) -> np.ndarray:
    return worlds.body("fingertip") - worlds.body("target")


def _reacher_observation(worlds: Worlds) -> np.ndarray:
    angles = worlds.qpos[:, :2]
    parts = (np.cos(angles), np.sin(angles), worlds.qpos[:, 2:], worlds.qvel[:, :2], _reacher_miss(worlds)[:, :2])
    return np.concatenate(parts, axis=1)


def _reacher_reward(outcome: Outcome) -> np.ndarray:
    return -_length(_reacher_miss(outcome.worlds)) - outcome.effort()


def _pusher_observation(worlds: Worlds) -> np.ndarray:
    places = (worlds.body("tips_arm"), worlds.body("object"), worlds.body("goal"))
    return np.concatenate((worlds.qpos[:, :7], worlds.qvel[:, :7], *places), axis=1)


def _pusher_reward(outcome: Outcome) -> np.ndarray:
    pushed = outcome.worlds.body("object")
    near = -_length(pushed - outcome.worlds.body("tips_arm")) * 0.5
    distance = -_length(pushed - outcome.worlds.body("goal"))
    return distance - outcome.effort() * 0.1 + near


def _ant_contacts(worlds: Worlds) -> np.ndarray:
    """Return (N, nbody * 6) external forces on the bodies, the world itself included."""
    return np.clip(worlds.fields["cfrc_ext"].reshape(len(worlds.qpos), -1), -1.0, 1.0)


def _ant_observation(worlds: Worlds) -> np.ndarray:
    return np.concatenate((_state(worlds, skip=2), _ant_contacts(worlds)[:, 6:]), axis=1)


def _ant_healthy(worlds: Worlds) -> np.ndarray:
    height = worlds.qpos[:, 2]
    return np.isfinite(_state(worlds)).all(axis=1) & (height >= 0.2) & (height <= 1.0)


def _ant_reward(outcome: Outcome) -> np.ndarray:
    contact = 5e-4 * np.square(_ant_contacts(outcome.worlds)).sum(axis=1)
    return outcome.velocity + outcome.healthy - (0.5 * outcome.effort() + contact)


RULES = {
    "HalfCheetah-v5": Rule(
        observe=lambda worlds: _state(worlds, skip=1),
        reward=lambda outcome: outcome.velocity - 0.1 * outcome.effort(),
    ),
    "Hopper-v5": Rule(
        observe=_state_at_limited_speed,
        reward=lambda outcome: outcome.velocity + outcome.healthy - 1e-3 * outcome.effort(),
        healthy=_hopper_healthy,
    ),
    "Walker2d-v5": Rule(
        observe=_state_at_limited_speed,
        reward=lambda outcome: outcome.velocity + outcome.healthy - 1e-3 * outcome.effort(),
        healthy=_walker_healthy,
    ),
    "Swimmer-v5": Rule(
        observe=lambda worlds: _state(worlds, skip=2),
        reward=lambda outcome: outcome.velocity - 1e-4 * outcome.effort(),
    ),
    "InvertedPendulum-v5": Rule(
        observe=_state,
        reward=lambda outcome: outcome.healthy.astype(np.float64),
        healthy=lambda worlds: np.isfinite(_state(worlds)).all(axis=1) & (np.abs(worlds.qpos[:, 1]) <= 0.2),
    ),
    "Reacher-v5": Rule(observe=_reacher_observation, reward=_reacher_reward, fields=("xpos",)),
    "Pusher-v5": Rule(observe=_pusher_observation, reward=_pusher_reward, fields=("xpos",)),
    "Ant-v5": Rule(
        observe=_ant_observation,
        reward=_ant_reward,
        healthy=_ant_healthy,
        position=lambda worlds: worlds.fields["xpos"][:, 1, 0],
        fields=("xpos", "cfrc_ext"),
    ),
}
"""By Gymnasium's ids."""


def why_not_native(task: TaskConfig) -> str | None:
    """Return why a task must run Gymnasium's own code; None where its rule stands for it."""
    if task.gym_id not in RULES:
        return f"{task.id} has no native form; those that have one: {', '.join(RULES)}"
    if task.kwargs:
        return f"the native form of {task.id} has its default arguments only, received kwargs {task.kwargs}"
    if task.success_key is not None:
        return f"the native form of {task.id} gives no info, so no success_key {task.success_key!r}"
    if task.score_key is not None:
        return f"the native form of {task.id} gives no info, so no score_key {task.score_key!r}"
    return None
