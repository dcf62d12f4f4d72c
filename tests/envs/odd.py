"""Gymnasium environments as people write them, each odd in one way; a number is to be moved to a goal.

Ids, also from worker processes: gym:tests.envs.odd:odd/<Name>-v0.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def box(low: float = -1.0, high: float = 1.0, size: int = 2) -> spaces.Box:
    return spaces.Box(low, high, (size,), np.float32)


THINGS: dict[str, Any] = {
    "nothing": None,
    "word": "no",
    "False in words": "False",
    "two numbers": [0.5, 1.0],
    "three numbers": [1.0, 2.0, 3.0],
    "a dictionary": {"left": True},
    "a list": [],
    "three things": (0, 0.0, False),
    "a quarter": 0.25,
    "numpy's quarter": np.float64(0.25),
    "an array of one": np.array([0.25]),
    "a list of one": [0.25],
}
"""What `Returning` returns, by name."""


class Plain(gym.Env[Any, Any]):
    """Observation (goal, position); position moves by a tenth of the action; ends where it is near the goal."""

    observation_space, action_space = box(), box(size=1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.goal, self.position = self.draw(), 0.0
        return self.look(), {}

    def draw(self) -> float:
        return float(self.np_random.choice([-0.6, -0.5, 0.5, 0.6]))

    def move(self, action: Any) -> bool:
        self.position += 0.1 * float(np.asarray(action).reshape(-1)[0])
        return abs(self.goal - self.position) < 0.05

    def step(self, action: Any) -> Any:
        near = self.move(action)
        return self.look(), float(near), near, False, {"success": near}

    def look(self) -> Any:
        return np.array([self.goal, self.position], np.float32)


class Wide(Plain):
    """Takes actions from -4 to 4."""

    action_space = box(-4.0, 4.0, 1)


class Renamed(Plain):
    """Calls its observation something else."""

    observation_space = spaces.Dict(goal_and_place=box())

    def look(self) -> Any:
        return {"goal_and_place": super().look()}


class Heedless(Plain):
    """Draws from a generator of its own, whatever the seed."""

    dice = np.random.default_rng(5)

    def draw(self) -> float:
        return float(self.dice.uniform(-1, 1))


class Hopeless(Plain):
    """Never says that it is solved, and never rewards."""

    def step(self, action: Any) -> Any:
        self.move(action)
        return self.look(), 0.0, False, False, {"success": False}


class Spiky(Plain):
    """At step 3 of the episode with seed 1 the position is read as a million and more."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.seed_now, self.age = seed, 0
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        self.age += 1
        obs, *rest = super().step(action)
        if self.seed_now == 1 and self.age == 3:
            obs[1] = 3e6
        return (obs, *rest)


class Windy(Plain):
    """Shows a wind, too, which does nothing."""

    observation_space = box(size=3)

    def __init__(self, wind: float = 0.0) -> None:
        self.wind = wind

    def look(self) -> Any:
        return np.array([self.goal, self.position, self.wind], np.float32)


class Sudden(Plain):
    """Is over at its first step."""

    def step(self, action: Any) -> Any:
        return self.look(), 0.0, True, False, {}


class Former(gym.Env[Any, Any]):
    """As written for Gymnasium's predecessor: seed() by itself, reset() without words, four results of a step."""

    observation_space, action_space = box(), box(size=1)

    def seed(self, seed: int) -> None:
        self.dice = np.random.RandomState(seed)

    def reset(self) -> Any:  # type: ignore[override]
        self.goal, self.position, self.age = self.dice.choice([-0.5, 0.5]), 0.0, 0
        return [self.goal, self.position]

    def step(self, action: Any) -> Any:  # type: ignore[override]
        self.position, self.age = self.position + 0.1 * float(action[0]), self.age + 1
        near = abs(self.goal - self.position) < 0.05
        cut = self.age == 15
        info = {"TimeLimit.truncated": True} if cut and not near else {}
        return [self.goal, self.position], np.array([float(near)]), near or cut, info | {"success": np.array([near])}


class Returning(Plain):
    """Returns what it is told to in place of one part of a step or reset."""

    def __init__(self, part: str, what: str) -> None:
        self.part, self.what = part, THINGS[what]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        result = super().reset(seed=seed)
        return self.what if self.part == "reset" else result

    def step(self, action: Any) -> Any:
        parts = dict(zip(("obs", "reward", "terminated", "truncated", "info"), super().step(action)))
        if self.part == "step":
            return self.what
        if self.part == "success":
            parts["info"] = {"success": self.what}
        elif self.part in parts:
            parts[self.part] = self.what
        return tuple(parts.values())


class Limited(Plain):
    """An action space of any limits, in one dimension or more."""

    def __init__(self, low: list[float], high: list[float]) -> None:
        self.action_space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)
        self.observation_space = box(size=2 + len(low))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.taken = np.zeros(self.action_space.shape)
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.taken = np.asarray(action)
        return super().step(action)

    def look(self) -> Any:
        return np.concatenate([super().look(), self.taken]).astype(np.float32)


class Scalar(Plain):
    """The action is one number without a dimension, and nothing else is taken."""

    action_space = spaces.Box(-1.0, 1.0, (), np.float32)

    def step(self, action: Any) -> Any:
        assert isinstance(action, np.ndarray), repr(action)
        assert self.action_space.contains(action), repr(action)
        return super().step(action)


class Breaking(Plain):
    """Breaks in close, or ends the process in its third step."""

    def __init__(self, where: str) -> None:
        self.where, self.steps = where, 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.where == "step" and self.steps == 3:
            raise SystemExit("emergency stop")
        return super().step(action)

    def close(self) -> None:
        if self.where == "close":
            raise RuntimeError("the window is gone")


class Idle(Plain):
    """Has no actions."""

    action_space = box(size=0)


class OneBuffer(Plain):
    """Hands out one array again and again."""

    def look(self) -> Any:
        if not hasattr(self, "buffer"):
            self.buffer = np.zeros(2, np.float32)
        self.buffer[:] = self.goal, self.position
        return self.buffer


for kind in (
    Plain,
    Wide,
    Renamed,
    Heedless,
    Hopeless,
    Spiky,
    Windy,
    Sudden,
    Former,
    Returning,
    Limited,
    Scalar,
    Breaking,
    Idle,
    OneBuffer,
):
    gym.register(f"odd/{kind.__name__}-v0", f"{__name__}:{kind.__name__}", max_episode_steps=20)


def gentle(obs: Any) -> np.ndarray:
    """Solve them within the limits of Plain; its greatest action is one."""
    state = obs["goal_and_place"] if isinstance(obs, dict) else obs
    return np.clip(5.0 * (state[:1] - state[1:2]), -1.0, 1.0)


def brute(obs: Any) -> np.ndarray:
    """Ask for four times what Plain allows, always."""
    return 4.0 * np.sign(obs[:1] - obs[1:2])


def exact_over(obs: Any) -> np.ndarray:
    """Ask for 1.2 in the goal's direction, within what Wide allows."""
    return 1.2 * np.sign(obs[:1])
