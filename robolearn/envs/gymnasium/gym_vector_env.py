"""Any Gymnasium environment as a `VectorEnv`: seeded episodes, true final observations, actions in [-1, 1]."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.host import Command
from robolearn.envs.gymnasium.workers import LocalWorkers, fault_error, make_workers
from robolearn.envs.interface import Observation, Step
from robolearn.errors import TaskError
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec


class GymVectorEnv:
    """N instances of one Gymnasium environment, in worker processes, threads or this process (`task.worker_kind`).

    Implements `robolearn.envs.interface.VectorEnv`. `get_states` works where the environment runs on MuJoCo; goals and
    scenes drawn at reset are no part of a state, so `set_states` continues an episode begun by `reset` with its seed.
    """

    def __init__(self, task: TaskConfig, num_envs: int = 1, *, device: torch.device | str = "cpu") -> None:
        if num_envs < 1:
            raise TaskError(f"num_envs must be at least 1, received {num_envs}")
        self.task = task
        self._device = torch.device(device)
        self._workers = make_workers(task, num_envs)
        self._rows, self._facts = self._workers.rows, self._workers.facts
        observation = self._facts["observation"].items()
        self._observation_spec = ObservationSpec({k: ArraySpec(shape=tuple(s), dtype=d) for k, (s, d) in observation})
        self._action_spec = None if self._facts["action"] is None else ActionSpec.from_dict(self._facts["action"])
        self._started = np.zeros(num_envs, bool)
        self._closed = False

    @property
    def num_envs(self) -> int:
        return len(self._rows.mask)

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def observation_spec(self) -> ObservationSpec:
        return self._observation_spec

    @property
    def action_spec(self) -> ActionSpec:
        if self._action_spec is None:
            raise TaskError(
                f"{self.task.id} has {self.discrete_actions} discrete actions; only DQN takes these, everything else "
                "needs a task with continuous actions"
            )
        return self._action_spec

    @property
    def discrete_actions(self) -> int | None:
        """Number of discrete actions, of which `step` then takes (N,) integers; None where actions are continuous."""
        return self._facts["discrete_actions"]

    @property
    def model_xml(self) -> None:
        """Packages keep their models to themselves."""
        return None

    @property
    def control_hz(self) -> float:
        return self._facts["control_hz"]

    @property
    def max_steps(self) -> int:
        return self._facts["max_steps"]

    @property
    def env_args(self) -> dict[str, Any]:
        return replace(self.task, rename={}).env_args()

    @property
    def seeds(self) -> np.ndarray:
        """(N,) int64: the seed of each environment's present episode."""
        return self._rows.seeds.copy()

    def reset(self, seeds: Sequence[int] | None = None, mask: torch.Tensor | None = None) -> Observation:
        active = self._active(mask)
        count = int(active.sum())
        if seeds is None:
            seeds = [secrets.randbelow(2**31) for _ in range(count)]
        if len(seeds) != count:
            raise TaskError(f"reset needs one seed for each of the {count} environments, received {len(seeds)}")
        if count and not 0 <= min(seeds) <= max(seeds) < 2**32:
            raise TaskError(f"seeds must lie in [0, 2^32), received {min(seeds)} to {max(seeds)}")
        self._rows.seeds[active] = np.asarray(seeds, np.int64)
        self._run("reset", active)
        self._started |= active
        return self._observation(active)

    def step(self, actions: torch.Tensor, mask: torch.Tensor | None = None) -> Step:
        active = self._active(mask)
        if not self._started[active].all():
            raise TaskError(f"environment {int((active & ~self._started).argmax())} was stepped before its first reset")
        rows = self._rows
        np.copyto(rows.actions, self._physical(actions, active), where=active[:, None])
        self._run("step", active)
        finite = np.isfinite(rows.reward)
        if not finite.all() and not finite[active].all():
            index = int((active & ~finite).argmax())
            raise TaskError(f"environment {index} of {self.task.id} returned the reward {rows.reward[index]}")
        return Step(
            self._observation(active),
            self._tensor(rows.reward),
            self._tensor(rows.terminated),
            self._tensor(rows.truncated),
            self._tensor(rows.success),
        )

    def scores(self) -> torch.Tensor | None:
        return None if self.task.score_key is None else self._tensor(self._rows.score)

    def get_states(self) -> np.ndarray | None:
        if self._facts["state_size"] is None:
            return None
        self._active(None)
        if not self._rows.track_states[0]:  # from the first call on, every step delivers them along with the rest
            self._rows.track_states[0] = True
            self._run("get_states", self._started)
        return self._rows.states.copy()

    def set_states(self, states: np.ndarray, mask: torch.Tensor | None = None) -> Observation:
        active = self._active(mask)
        if self._facts["state_size"] is None:
            raise TaskError(f"{self.task.id} has no physics states to restore; replay its actions instead")
        wanted = (int(active.sum()), self._facts["state_size"])
        if np.shape(states) != wanted:
            raise TaskError(f"set_states needs states of shape {wanted}, received {np.shape(states)}")
        self._rows.states[active] = states
        self._run("set_states", active)
        return self._observation(active)

    def render(self, index: int = 0) -> np.ndarray:
        self._active(None)
        if not 0 <= index < self.num_envs:
            raise TaskError(f"there are environments 0 to {self.num_envs - 1}, received {index}")
        return self._workers.render(index)

    def world(self, index: int = 0) -> tuple[Any, Any] | None:
        """MuJoCo's model and data of an environment that runs in this process (`worker_kind` sync)."""
        found = self._workers.unwrapped(index) if isinstance(self._workers, LocalWorkers) else None
        model, data = getattr(found, "model", None), getattr(found, "data", None)
        return None if model is None or data is None else (model, data)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._workers.close()

    def __enter__(self) -> GymVectorEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _active(self, mask: torch.Tensor | None) -> np.ndarray:
        """Return the checked mask, (N,) bool on the CPU; the rows may be written from here on."""
        if self._closed:
            raise TaskError(f"{self.task.id} was closed; make it again")
        self._workers.settle()
        if mask is None:
            return np.ones(self.num_envs, bool)
        active = np.asarray(mask.detach().cpu() if isinstance(mask, torch.Tensor) else mask)
        if active.shape != (self.num_envs,) or active.dtype != bool:
            raise TaskError(
                f"mask must be ({self.num_envs},) of bool, received {tuple(active.shape)} of {active.dtype}"
            )
        return active

    def _physical(self, actions: torch.Tensor, active: np.ndarray) -> np.ndarray:
        """Map (N, A) actions in [-1, 1], or (N,) discrete ones, to what the environments take, (N, A)."""
        given = np.asarray(actions.detach().cpu() if isinstance(actions, torch.Tensor) else actions)
        if self._action_spec is None:
            n = self._facts["discrete_actions"]
            if given.shape != (self.num_envs,) or given.dtype.kind not in "iu":
                raise TaskError(f"actions must be ({self.num_envs},) integers, received {given.shape} {given.dtype}")
            if wrong := [i for i in np.flatnonzero(active) if not 0 <= given[i] < n]:
                raise TaskError(f"environment {wrong[0]} received action {given[wrong[0]]}; there are 0 to {n - 1}")
            return given[:, None]
        wanted = (self.num_envs, self._action_spec.size)
        if given.shape != wanted:
            raise TaskError(f"actions must have shape {wanted} (one row per environment), received {given.shape}")
        if not np.isfinite(given).all():
            finite = np.asarray(np.isfinite(given).all(axis=1))
            if not finite[active].all():
                index = int((active & ~finite).argmax())
                raise TaskError(f"environment {index} received the action {given[index].tolist()}, which is not finite")
            given = np.where(finite[:, None], given, 0.0)
        return self._action_spec.to_physical(given.astype(np.float32, copy=False))

    def _run(self, command: Command, active: np.ndarray) -> None:
        self._rows.mask[:] = active
        faults = self._workers.run(command)
        if faults:
            self._started[[fault["index"] for fault in faults]] = False
            raise fault_error(self.task, faults[0])

    def _observation(self, active: np.ndarray) -> Observation:
        for key, value in self._rows.obs.items():
            if value.dtype == np.float32 and not np.isfinite(value).all():
                finite = np.asarray(np.isfinite(value).reshape(self.num_envs, -1).all(axis=1))
                if not finite[active].all():
                    index = int((active & ~finite).argmax())
                    raise TaskError(f"environment {index} of {self.task.id} returned a {key!r} that is not finite")
        return {key: self._tensor(value) for key, value in self._rows.obs.items()}

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array.copy())
        return tensor if self._device.type == "cpu" else tensor.to(self._device)
