"""One or N environments of a task behind Gymnasium's interfaces; `registration` gives them ids."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from robolearn.envs.make import make_task
from robolearn.errors import TaskError

_BOUND = 1e4  # metres, radians, newtons ...: beyond anything the physics can reach; checkers dislike infinity


class GymTask(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One environment of a task. Observations are a dict of arrays, actions lie in [-1, 1].

    `info` holds `is_success`. Options of the task (`reward`, `cameras`, ...) are passed on.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, task: str, render_mode: str | None = None, **options: Any):
        self._env = make_task(task, 1, **options)
        self.render_mode = render_mode
        self.observation_space: spaces.Space[Any] = _observation_space(self._env.observation_spec)
        self.action_space = spaces.Box(-1.0, 1.0, (self._env.action_spec.size,), np.float32)

    def reset(
        self, *, seed: int | np.integer | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        seed = None if seed is None else index(seed)  # Gymnasium's own generators take no integers of NumPy
        super().reset(seed=seed)
        # The first episode after seeding is the seed's own, so that it is the same episode as in the vector form.
        episode = int(self.np_random.integers(2**48)) if seed is None else seed
        return _first(self._env.reset([episode])), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        import torch

        step = self._env.step(torch.as_tensor(np.asarray(action, np.float32))[None])
        info = {"is_success": bool(step.success[0])}
        return _first(step.obs), float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0]), info

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._env.render(0) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._env.close()


class GymTaskVector(gymnasium.vector.VectorEnv[dict[str, np.ndarray], np.ndarray, np.ndarray]):
    """N environments of a task behind Gymnasium's vector interface (`gymnasium.make_vec`), autoreset NEXT_STEP.

    `reset(options={"reset_mask": (N,) bool})` resets some of them.

    Each environment has a generator of its own. A list of seeds seeds them one by one, an integer is the list of seed,
    seed + 1 ...; `None` goes on with the generator of that environment. The first episode of a seed is the seed's own
    and the later ones, automatic resets included, are drawn from its generator, so that environment i meets the same
    episodes as a single environment with its seed.

        reset(seed=[3, 8])   environment 0: episode 3, then draws of generator 3    environment 1: 8, then of 8
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP,
    }

    def __init__(self, task: str, num_envs: int = 1, render_mode: str | None = None, **options: Any):
        self._env = make_task(task, num_envs, **options)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space: spaces.Space[Any] = _observation_space(self._env.observation_spec)
        self.single_action_space = spaces.Box(-1.0, 1.0, (self._env.action_spec.size,), np.float32)
        self.observation_space: spaces.Space[Any] = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._ended = np.zeros(num_envs, bool)
        self._generators = dict(enumerate(np.random.default_rng().spawn(num_envs)))

    def reset(
        self,
        *,
        seed: int | np.integer | Sequence[int | None] | np.ndarray | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        import torch

        if isinstance(seed, (Sequence, np.ndarray)):
            seeds = list(seed)
        else:
            seeds = [None if seed is None else index(seed) + i for i in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise TaskError(f"reset needs one seed for each of the {self.num_envs} environments, received {len(seeds)}")
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        given = {i: None if own is None else index(own) for i, own in enumerate(seeds) if mask[i]}
        episodes = [self._next_episode(i) if own is None else own for i, own in given.items()]
        obs = self._env.reset(episodes, torch.from_numpy(mask.copy()))
        self._generators |= {i: np.random.default_rng(own) for i, own in given.items() if own is not None}
        self._ended[mask] = False
        return _all(obs), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        import torch

        restart = torch.from_numpy(self._ended.copy())
        step = self._env.step(torch.as_tensor(np.asarray(actions, np.float32)), ~restart)
        obs, reward = step.obs, torch.where(restart, 0.0, step.reward)
        if restart.any():
            obs = self._env.reset([self._next_episode(i) for i in np.flatnonzero(self._ended).tolist()], restart)
        terminated, truncated = (step.terminated & ~restart).numpy(), (step.truncated & ~restart).numpy()
        self._ended = terminated | truncated
        info = {"is_success": (step.success & ~restart).numpy(), "_is_success": ~restart.numpy()}
        return _all(obs), reward.double().numpy(), terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        if self.render_mode != "rgb_array":
            return None
        return tuple(self._env.render(i) for i in range(self.num_envs))

    def _next_episode(self, i: int) -> int:
        return int(self._generators[i].integers(2**48))

    def close_extras(self, **kwargs: Any) -> None:
        self._env.close()


def _observation_space(spec: Any) -> spaces.Dict:
    def box(array: Any) -> spaces.Box:
        if array.is_image:
            return spaces.Box(0, 255, array.shape, np.uint8)
        return spaces.Box(-_BOUND, _BOUND, array.shape, np.float32)

    return spaces.Dict({key: box(array) for key, array in spec.items()})


def _first(obs: Any) -> dict[str, np.ndarray]:
    return {key: value[0].cpu().numpy().copy() for key, value in obs.items()}


def _all(obs: Any) -> dict[str, np.ndarray]:
    return {key: value.cpu().numpy().copy() for key, value in obs.items()}
