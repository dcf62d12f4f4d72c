"""C MuJoCo on CPU threads: one MjData per world, stepped by a persistent pool, seen as torch views.

Why not `mujoco.rollout`: it keeps no MjData per world (rendering, warm start and sensors at the state reached would
all be lost), and is no faster. A worker runs `map(mj_step, ...)` over a chunk of worlds, so that almost no Python is
executed while the interpreter lock is held; that is what threads pay for (measured: 25% of the rate).
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import copy
import operator
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any

import mujoco
import numpy as np
import torch

from robolearn.errors import TaskError
from robolearn.sim.pool import WorkerPool, default_threads
from robolearn.sim.simulation import DERIVING_FIELDS, STATE_SPEC, Simulation, Start, check_mask, rows

_WORTH_A_THREAD = 100e-6
"""Seconds of physics that every thread must have to itself: half of twice as much is done before a second is there."""
_POST_CONSTRAINT_FIELDS = frozenset({"cacc", "cfrc_int", "cfrc_ext"})
"""Fields that MuJoCo computes only where somebody wants them (`mj_rnePostConstraint`)."""


class CpuSimulation(Simulation):
    """See `Simulation`. Tensors are float64 views of contiguous numpy blocks; no copy is made to read them."""

    def __init__(
        self, model: mujoco.MjModel, num_envs: int, *, threads: int | None = None, fields: Sequence[str] = ()
    ) -> None:
        """
        Args:
            threads: None takes one for each core.
            fields: fields of MjData to deliver in `self.fields`, (N, ...) each, as the last substep left them: without
                evaluated sensors, `xpos` is that of the last substep's start.
        """
        super().__init__(model, num_envs, torch.device("cpu"))
        self._models = [model] * num_envs
        self._datas = [mujoco.MjData(model) for _ in range(num_envs)]
        size = mujoco.mj_stateSize(model, STATE_SPEC)
        self._state = np.zeros((num_envs, size))
        self._before = np.zeros((num_envs, size))
        self._ctrl = np.zeros((num_envs, model.nu))
        self._mocap_pos = np.zeros((num_envs, model.nmocap, 3))
        self._mocap_quat = np.zeros((num_envs, model.nmocap, 4))
        self._sensors = np.zeros((num_envs, model.nsensordata))
        warnings = self._datas[0].warning.number
        self._warnings = np.zeros((num_envs, *warnings.shape), warnings.dtype)
        self._seen_warnings = self._warnings.copy()
        self._steps = np.zeros(num_envs, np.int64)
        state = torch.from_numpy(self._state)
        self._evolving = self._state[:, : self.layout["ctrl"].start]
        self.time = state[:, 0]
        self.qpos, self.qvel, self.act = (state[:, self.layout[k]] for k in ("qpos", "qvel", "act"))
        self.ctrl, self.sensordata = torch.from_numpy(self._ctrl), torch.from_numpy(self._sensors)
        self.mocap_pos, self.mocap_quat = torch.from_numpy(self._mocap_pos), torch.from_numpy(self._mocap_quat)
        inputs = {"ctrl": self._ctrl, "mocap_pos": self._mocap_pos, "mocap_quat": self._mocap_quat}
        self._inputs = [
            (list(block), [getattr(d, name) for d in self._datas]) for name, block in inputs.items() if block.size
        ]
        outputs = {"sensordata": self._sensors}
        self._post_constraint = not _POST_CONSTRAINT_FIELDS.isdisjoint(fields)
        outputs |= {name: np.zeros((num_envs, *np.shape(getattr(self._datas[0], name)))) for name in fields}
        self.fields = {name: torch.from_numpy(outputs[name]) for name in fields}
        self._outputs = [
            (block, [getattr(d, name)[None] for d in self._datas]) for name, block in outputs.items() if block.size
        ]
        self._outputs.append((self._warnings, [d.warning.number[None] for d in self._datas]))
        self._rows = list(self._state)
        self._pool = WorkerPool(min(threads or default_threads(), num_envs))
        # Small chunks balance the threads, large ones hold the interpreter lock less often.
        self._chunk = max(1, min(16, num_envs // (2 * self._pool.size)))
        self._seconds = 0.0  # of processor time for a world's substep, lately
        self._everything = list(range(num_envs))
        self._all_worlds = self._worlds(self._everything)
        self._read(self._everything)
        for worlds in self._all_worlds:
            worlds.publish_inputs()
        self._seen_poses, self._evaluated = self._poses(), False  # whether sensors are of the present state, everywhere

    def step(self, substeps: int, mask: torch.Tensor | None = None, *, sensors: bool = True) -> None:
        self._check_substeps(substeps)
        indices = self._indices(mask)
        np.copyto(self._before, self._state)

        self._look_for_moved_bodies()
        # The first substep's first half, all that depends on positions and velocities, may stand computed already.
        half_done = self._evaluated and self.model.opt.integrator != mujoco.mjtIntegrator.mjINT_RK4

        def advance(worlds: _Worlds) -> None:
            start = time.thread_time()
            worlds.write_inputs()
            if half_done:
                _each(mujoco.mj_step2, worlds.models, worlds.datas)
            if substeps > half_done:
                _each(mujoco.mj_step, worlds.models, worlds.datas, repeat(substeps - half_done))
            if sensors:
                _each(mujoco.mj_forward, worlds.models, worlds.datas)
            if self._post_constraint:
                _each(mujoco.mj_rnePostConstraint, worlds.models, worlds.datas)
            seconds = (time.thread_time() - start) / (len(worlds.indices) * substeps)
            self._seconds += 0.1 * (seconds - self._seconds)

        work = self._seconds * len(indices) * substeps
        all_or_some = self._all_worlds if mask is None else self._worlds(indices)
        self._pool.run(advance, all_or_some, threads=max(1, int(work / _WORTH_A_THREAD)))
        self._evaluated = sensors and (mask is None or self._evaluated)
        self._read(indices)
        self._steps[slice(None) if mask is None else indices] += 1
        self._check_stability(indices, substeps)

    def reset(self, start: Start, mask: torch.Tensor | None = None) -> None:
        indices = self._indices(mask)
        qpos = rows(start.qpos, self.num_envs, "start.qpos").double().numpy()
        given = {
            "ctrl": start.ctrl,
            "mocap_pos": start.mocap_pos,
            "mocap_quat": start.mocap_quat,
        }
        blocks = {k: rows(v, self.num_envs, f"start.{k}").double().numpy() for k, v in given.items() if v is not None}

        def restart(worlds: _Worlds) -> None:
            for i, model, data in zip(worlds.indices, worlds.models, worlds.datas):
                mujoco.mj_resetData(model, data)
                data.qpos[:] = qpos[i]
                for name, block in blocks.items():
                    getattr(data, name)[:] = block[i]
                mujoco.mj_forward(model, data)
                data.qacc_warmstart[:] = 0.0
            worlds.publish_inputs()

        self._look_for_moved_bodies()
        self._pool.run(restart, self._worlds(indices))
        self._evaluated_now(indices)
        self._read(indices)
        self._seen_warnings[indices] = 0
        self._steps[indices] = 0

    def get_state(self) -> torch.Tensor:
        state = self._state.copy()
        state[:, self.layout["ctrl"]] = self._ctrl
        return torch.from_numpy(state)

    def set_state(self, state: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        values = rows(state, self.num_envs, "state").double().numpy()
        if values.shape[1] != self._state.shape[1]:
            raise TaskError(f"a state of this model has {self._state.shape[1]} numbers, received {values.shape[1]}")
        indices = self._indices(mask)
        self._restore(indices, values)

    def set_model(self, values: Mapping[str, torch.Tensor], mask: torch.Tensor | None = None) -> None:
        arrays = {name: rows(v, self.num_envs, name).cpu().numpy() for name, v in values.items()}
        for i in self._indices(mask):
            if self._models[i] is self.model:
                self._models[i] = copy.copy(self.model)
            for name, array in arrays.items():
                getattr(self._models[i], name)[:] = array[i]
            if DERIVING_FIELDS & arrays.keys():
                mujoco.mj_setConst(self._models[i], mujoco.MjData(self._models[i]))
        self._all_worlds = self._worlds(self._everything)
        self._evaluated = False

    def world(self, index: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        return self._models[index], self._datas[index]

    def close(self) -> None:
        self._pool.close()

    def _restore(self, indices: Sequence[int], states: np.ndarray) -> None:
        warm = self.layout["warmstart"]

        def restore(worlds: _Worlds) -> None:
            for i, model, data in zip(worlds.indices, worlds.models, worlds.datas):
                row = np.ascontiguousarray(states[i])
                mujoco.mj_resetData(model, data)  # what is no part of a state does not survive it
                mujoco.mj_setState(model, data, row, STATE_SPEC)
                mujoco.mj_forward(model, data)
                # mj_forward overwrites the warm start in some versions of MuJoCo; replay needs the stored one.
                data.qacc_warmstart[:] = row[warm]
            worlds.publish_inputs()

        self._look_for_moved_bodies()
        self._pool.run(restore, self._worlds(indices))
        self._evaluated_now(indices)
        self._read(indices)
        self._seen_warnings[indices] = self._warnings[indices]

    def _read(self, indices: Sequence[int]) -> None:
        """Bring state rows and outputs of these worlds up to date. By the calling thread alone, since copies this
        small cost less than the interpreter lock's way from one thread to another."""
        everything = len(indices) == self.num_envs

        def column(values: list[Any]) -> list[Any]:
            return values if everything else [values[i] for i in indices]

        _each(mujoco.mj_getState, column(self._models), column(self._datas), column(self._rows), repeat(STATE_SPEC))
        for block, own in self._outputs:
            if everything:
                np.concatenate(own, out=block)
            elif indices:
                block[indices] = np.concatenate(column(own))

    def _check_stability(self, indices: Sequence[int], substeps: int) -> None:
        """A world that diverges is reset by MuJoCo itself, so its clock and its warning counters tell."""
        bad = self._state[:, 0] - self._before[:, 0] < (substeps - 0.5) * self.model.opt.timestep
        if np.count_nonzero(self._warnings):
            bad |= (self._warnings > self._seen_warnings).any(axis=1)
            np.copyto(self._seen_warnings, self._warnings)
        if not np.isfinite(self._evolving).all():
            bad |= ~np.isfinite(self._evolving).all(axis=1)
        if not bad.any():
            return
        bad = np.array([i for i in indices if bad[i]], int)
        if not len(bad):
            return
        counts = self._warnings[bad[0]]
        names = [name for name, k in mujoco.mjtWarning.__members__.items() if int(k) < len(counts) and counts[int(k)]]
        why = f"MuJoCo warns {', '.join(names)}" if names else "a state that is not finite"
        error = self._unstable([int(i) for i in bad], self._steps[bad].tolist(), why, self._before[bad])
        self._restore(bad.tolist(), self._before)
        raise error

    def _look_for_moved_bodies(self) -> None:
        """Note that where the caller has moved mocap bodies, what was evaluated is of another scene."""
        poses = self._poses()
        if poses != self._seen_poses:
            self._seen_poses, self._evaluated = poses, False

    def _poses(self) -> bytes:
        return self._mocap_pos.tobytes() + self._mocap_quat.tobytes()

    def _evaluated_now(self, indices: Sequence[int]) -> None:
        self._seen_poses = self._poses()
        self._evaluated |= len(indices) == self.num_envs

    def _indices(self, mask: torch.Tensor | None) -> list[int]:
        if mask is None:
            return self._everything
        check_mask(mask, self.num_envs)
        return mask.nonzero().flatten().tolist()

    def _worlds(self, indices: Sequence[int]) -> list[_Worlds]:
        chunks = (indices[i : i + self._chunk] for i in range(0, len(indices), self._chunk))
        return [_Worlds(self, chunk) for chunk in chunks]


class _Worlds:
    """A chunk of worlds with everything a worker needs in parallel lists, so that loops over it run in C."""

    def __init__(self, sim: CpuSimulation, indices: Sequence[int]):
        self.indices = indices
        self.models = [sim._models[i] for i in indices]
        self.datas = [sim._datas[i] for i in indices]
        self._inputs = [([block[i] for i in indices], [own[i] for i in indices]) for block, own in sim._inputs]

    def write_inputs(self) -> None:
        for blocks, own in self._inputs:
            _each(operator.setitem, own, repeat(...), blocks)

    def publish_inputs(self) -> None:
        """Show what MjData holds as the current inputs, after a reset."""
        for blocks, own in self._inputs:
            _each(operator.setitem, blocks, repeat(...), own)


def _each(function: Callable[..., Any], *columns: Iterable[Any]) -> None:
    """Call `function` on every row in C; a world that MuJoCo refuses to step does not stop those after it."""
    iterators = [iter(column) for column in columns]
    while True:
        try:
            deque(map(function, *iterators), maxlen=0)
            return
        except mujoco.FatalError:
            continue  # that world's clock stands still, which _check_stability reports
