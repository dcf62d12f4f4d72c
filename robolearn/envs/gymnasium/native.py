"""Gymnasium's MuJoCo tasks stepped as one batch: our simulation under Gymnasium's rules, equal to the last bit.

One environment of Gymnasium's own serves all: it gives the model and the spaces, draws how every episode begins and
makes the pictures. Only the steps, where the time goes, are taken here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.host import Command, Rows
from robolearn.envs.gymnasium.mujoco_rules import RULES, Outcome, Worlds, why_not_native
from robolearn.envs.gymnasium.single import SingleEnv
from robolearn.envs.rules import EpisodeRules
from robolearn.errors import TaskError
from robolearn.sim.cpu import CpuSimulation
from robolearn.sim.simulation import UnstableError

_COUNTERS = 2
"""Last numbers of a state, after the physics: steps and return so far."""


class NativeWorkers:
    """N worlds of one `CpuSimulation`; takes the place of `robolearn.envs.gymnasium.workers.Workers`."""

    def __init__(self, task: TaskConfig, num_envs: int) -> None:
        """Raises TaskError, naming the tasks that have one, where `task` has no native form."""
        if why := why_not_native(task):
            raise TaskError(f"worker_kind native: {why}; worker_kind auto takes worker processes where it must")
        assert task.gym_id is not None
        self._rule = RULES[task.gym_id]
        self._original = SingleEnv(task)
        self.facts = self._original.describe()
        self._rules = EpisodeRules(task=task, max_steps=self.facts["max_steps"])
        layout = Rows.layout(num_envs, self.facts)
        self.rows = Rows.over(layout, bytearray(Rows.size(layout)))
        (self._obs,) = self.rows.obs.values()
        self._low, self._high = (np.float32(self.facts["action"][limit]) for limit in ("low", "high"))
        unwrapped = self._original.unwrapped
        self._substeps, self._dt = unwrapped.frame_skip, unwrapped.dt
        self._sim = CpuSimulation(unwrapped.model, num_envs, threads=task.workers, fields=self._rule.fields)
        self._ctrl = self._sim.ctrl.numpy()
        self._worlds = Worlds(
            qpos=self._sim.qpos.numpy(),
            qvel=self._sim.qvel.numpy(),
            fields={name: value.numpy() for name, value in self._sim.fields.items()},
            bodies={unwrapped.model.body(i).name: i for i in range(unwrapped.model.nbody)},
        )
        self._elapsed, self._returns = np.zeros(num_envs, np.int64), np.zeros(num_envs)
        self._started, self._done = np.zeros(num_envs, bool), np.ones(num_envs, bool)

    def settle(self) -> None:
        """Do nothing: nobody works on the rows beyond a call."""

    def run(self, command: Command) -> list[dict[str, Any]]:
        """Carry out a command for the environments in `rows.mask`; returns the faults, as worker processes do."""
        mask, faults = self.rows.mask.copy(), []
        if command == "step":
            faults = self._step(mask)
        elif command == "reset":
            self._reset(mask)
        elif command == "set_states":
            faults = self._set_states(mask)
        if self.rows.track_states[0]:
            self.rows.states[mask] = self._states()[mask]
        return faults

    def render(self, index: int) -> np.ndarray:
        if not self._started[index]:
            raise TaskError("render needs a reset first")
        row = {key: np.empty(value.shape[1:], value.dtype) for key, value in self.rows.obs.items()}
        self._original.reset(0, row)
        self._original.set_state(self._states()[index], row)
        return self._original.render()

    def close(self) -> None:
        self._sim.close()
        self._original.close()

    def _reset(self, mask: np.ndarray) -> None:
        physics = self._sim.get_state().numpy()
        for i in np.flatnonzero(mask):
            self._original.reset(int(self.rows.seeds[i]), {key: value[i] for key, value in self.rows.obs.items()})
            physics[i] = self._original.get_state()[:-_COUNTERS]
        self._sim.set_state(torch.from_numpy(physics), torch.from_numpy(mask))
        self._elapsed[mask], self._returns[mask] = 0, 0.0
        self._started |= mask
        self._begin(mask)

    def _set_states(self, mask: np.ndarray) -> list[dict[str, Any]]:
        if not self._started[mask].all():
            index = int((mask & ~self._started).argmax())
            return [_fault(index, "set_states", "set_states needs a reset with the episode's seed first")]
        states = self.rows.states
        self._sim.set_state(torch.from_numpy(states[:, :-_COUNTERS].copy()), torch.from_numpy(mask))
        self._elapsed[mask], self._returns[mask] = states[mask, -2], states[mask, -1]
        self._obs[mask] = self._rule.observe(self._worlds)[mask]
        self._begin(mask)
        return []

    def _begin(self, mask: np.ndarray) -> None:
        rows = self.rows
        self._done &= ~mask
        rows.reward[mask] = 0.0
        for flags in (rows.terminated, rows.truncated, rows.success):
            flags[mask] = False

    def _step(self, mask: np.ndarray) -> list[dict[str, Any]]:
        active = mask & ~self._done
        np.copyto(self.rows.reward, 0.0, where=mask & self._done)  # ended and not reset: else the row stays as it was
        actions = np.clip(self.rows.actions, self._low, self._high)
        before = self._rule.position(self._worlds).copy()
        np.copyto(self._ctrl, actions, where=active[:, None])
        faults = self._advance(active)
        velocity = (self._rule.position(self._worlds) - before) / self._dt
        healthy = self._rule.healthy(self._worlds)
        reward = self._rule.reward(Outcome(self._worlds, actions, velocity, healthy))
        np.copyto(self._obs, self._rule.observe(self._worlds), where=active[:, None], casting="same_kind")
        np.copyto(self.rows.reward, reward, where=active, casting="same_kind")
        np.add(self._returns, reward, out=self._returns, where=active)
        self._elapsed += active
        self._end(active, healthy, reward)
        return faults

    def _advance(self, active: np.ndarray) -> list[dict[str, Any]]:
        """Step the physics of the active worlds; those that diverge are made inactive and done."""
        try:
            self._sim.step(self._substeps, None if active.all() else torch.from_numpy(active), sensors=False)
        except UnstableError as error:
            active[list(error.indices)], self._done[list(error.indices)] = False, True
            return [_fault(index, "step", str(error)) for index in error.indices]
        return []

    def _end(self, active: np.ndarray, healthy: np.ndarray, reward: np.ndarray) -> None:
        """Set the flags of the active worlds."""
        rows = self.rows
        success = self._rules.reached(self._returns, reward)
        terminated, truncated = self._rules.ends(~healthy, False, success, self._elapsed)
        np.copyto(rows.success, success, where=active)
        np.copyto(rows.terminated, terminated, where=active)
        np.copyto(rows.truncated, truncated, where=active)
        self._done |= (terminated | truncated) & active

    def _states(self) -> np.ndarray:
        """Return (N, S), laid out as `SingleEnv.get_state`."""
        return np.column_stack((self._sim.get_state().numpy(), self._elapsed, self._returns))


def _fault(index: int, command: Command, error: str) -> dict[str, Any]:
    return {"index": index, "command": command, "error": error, "traceback": ""}
