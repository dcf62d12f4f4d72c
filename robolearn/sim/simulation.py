"""The `Simulation` interface: N copies of one MuJoCo model, stepped together, seen as torch tensors.

Both back ends agree on the layout of a state row, MuJoCo's own `mjSTATE_INTEGRATION`: a row written by one can be
restored by the other, and by any tool that knows `mj_setState`.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
import torch

from robolearn.errors import TaskError

STATE_SPEC = int(mujoco.mjtState.mjSTATE_INTEGRATION)
"""Everything that the next step depends on, the solver's warm start included, so that replay is exact."""

DERIVING_FIELDS = frozenset(
    {
        *("body_mass", "body_inertia", "body_ipos", "body_iquat", "body_pos", "body_quat", "dof_armature"),
        *("qpos0", "qpos_spring", "jnt_pos", "jnt_axis", "site_pos", "site_quat", "actuator_gear", "wrap_prm"),
        *("tendon_armature", "eq_data"),
    }
)
"""Fields of MjModel from which others derive (masses of subtrees, inverse weights, lengths of tendons at rest): after
their change these constants must be computed anew (`mj_setConst`)."""

_STATE_PARTS = ("TIME", "QPOS", "QVEL", "ACT", "HISTORY", "WARMSTART", "CTRL", "QFRC_APPLIED", "XFRC_APPLIED")
_STATE_PARTS += ("EQ_ACTIVE", "MOCAP_POS", "MOCAP_QUAT", "USERDATA", "PLUGIN")


class UnstableError(TaskError):
    """Physics diverged in some worlds; they were put back to their last good state, the others went on.

    Attributes:
        indices: the environments concerned.
        path: an .npz file with `states` (n, S), `ctrl` (n, nu), `indices` (n,) and `step`, for replay.
    """

    def __init__(self, message: str, indices: Sequence[int], path: Path):
        super().__init__(message)
        self.indices = tuple(indices)
        self.path = path


def state_layout(model: mujoco.MjModel) -> dict[str, slice]:
    """Return the slice of each part (`qpos`, `ctrl`, `mocap_pos` ...) in a state row of this model."""
    layout, start = {}, 0
    for name in _STATE_PARTS:
        bit = getattr(mujoco.mjtState, f"mjSTATE_{name}", None)
        if bit is not None:
            stop = start + mujoco.mj_stateSize(model, int(bit))
            layout[name.lower()] = slice(start, stop)
            start = stop
    assert start == mujoco.mj_stateSize(model, STATE_SPEC), "MuJoCo has a state component that we do not know"
    return layout


def sensor_slices(model: mujoco.MjModel) -> dict[str, slice]:
    """Return where each sensor's numbers lie in a row of `sensordata`, by name."""
    starts, sizes = model.sensor_adr.tolist(), model.sensor_dim.tolist()
    return {model.sensor(i).name: slice(start, start + size) for i, (start, size) in enumerate(zip(starts, sizes))}


def crash_folder() -> Path:
    """Return the folder for the last good states of diverged worlds; $ROBOLEARN_CRASH_DIR moves it."""
    return Path(os.environ.get("ROBOLEARN_CRASH_DIR") or Path(tempfile.gettempdir()) / "robolearn-unstable")


@dataclass(frozen=True, kw_only=True)
class Start:
    """The state in which a world begins. Rows belong to the N worlds; those outside the mask are not looked at."""

    qpos: torch.Tensor
    """(N, nq)."""
    ctrl: torch.Tensor | None = None
    """(N, nu); zeros where None."""
    mocap_pos: torch.Tensor | None = None
    """(N, nmocap, 3) metres, world frame; the model's own where None."""
    mocap_quat: torch.Tensor | None = None
    """(N, nmocap, 4), w first; the model's own where None."""


class Simulation(ABC):
    """N worlds of one model. All tensors live on `device`; their dtype is the back end's (float64 C, float32 Warp)."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, device: torch.device):
        if num_envs < 1:
            raise TaskError(f"a simulation needs at least one environment, received num_envs={num_envs}")
        self.model = model
        self.num_envs = num_envs
        self.device = device
        self.layout = state_layout(model)
        self.sensor_slices = sensor_slices(model)

    qpos: torch.Tensor
    """(N, nq), read only."""
    qvel: torch.Tensor
    """(N, nv), read only."""
    act: torch.Tensor
    """(N, na), read only."""
    time: torch.Tensor
    """(N,) seconds, read only."""
    ctrl: torch.Tensor
    """(N, nu), written in place by the caller."""
    mocap_pos: torch.Tensor
    """(N, nmocap, 3), written in place by the caller."""
    mocap_quat: torch.Tensor
    """(N, nmocap, 4), written in place by the caller."""
    sensordata: torch.Tensor
    """(N, nsensordata), of the current state."""

    @abstractmethod
    def step(self, substeps: int, mask: torch.Tensor | None = None, *, sensors: bool = True) -> None:
        """Advance the masked worlds (all where None) by `substeps` time steps under `ctrl`.

        Args:
            substeps: physics steps, at least one.
            mask: (N,) bool.
            sensors: evaluate the sensors at the state reached; otherwise they are those of the last substep's start.

        Raises UnstableError for worlds that diverged, after all worlds have been stepped.
        """

    @abstractmethod
    def reset(self, start: Start, mask: torch.Tensor | None = None) -> None:
        """Put the masked worlds (all where None) at `start`, at rest, at time zero, and evaluate the sensors."""

    @abstractmethod
    def get_state(self) -> torch.Tensor:
        """Return (N, S) float64 copy of the full states, laid out as `mjSTATE_INTEGRATION`."""

    @abstractmethod
    def set_state(self, state: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        """Restore (N, S) states in the masked worlds and evaluate the sensors."""

    @abstractmethod
    def set_model(self, values: Mapping[str, torch.Tensor], mask: torch.Tensor | None = None) -> None:
        """Give worlds models of their own: `values` maps a field of MjModel to (N, *field shape).

        Constants that derive from these fields are computed anew, as `mj_setConst` does.
        """

    @abstractmethod
    def world(self, index: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Return one world as C MuJoCo sees it, for rendering. Not to be changed by the caller."""

    def close(self) -> None:  # noqa: B027 (nothing to free is a fine answer)
        """Free threads and device memory."""

    def sensor(self, name: str) -> torch.Tensor:
        """Return (N, dim) view of one sensor."""
        return self.sensordata[:, self.sensor_slices[name]]

    def _check_substeps(self, substeps: int) -> None:
        if substeps < 1:
            raise TaskError(f"substeps must be at least 1, received {substeps}")

    def _unstable(self, indices: Sequence[int], steps: Sequence[int], why: str, states: np.ndarray) -> UnstableError:
        """Save the last good states and say what happened where. `states`: (n, S), one row per index."""
        folder = crash_folder()
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"env{indices[0]}-step{steps[0]}-", suffix=".npz", dir=folder)
        with os.fdopen(handle, "wb") as file:
            ctrl = self.ctrl[list(indices)].cpu().numpy()
            np.savez(file, states=states, ctrl=ctrl, indices=np.asarray(indices), steps=np.asarray(steps))
        more = f" (and {len(indices) - 1} more: {list(indices[1:9])})" if len(indices) > 1 else ""
        return UnstableError(
            f"physics became unstable in environment {indices[0]}{more} at step {steps[0]}: {why}. "
            f"The last good state and controls are in {name}; that environment stands at them now, the others went on. "
            "Reset it, or look for forces, gains or a time step that are too large",
            indices,
            Path(name),
        )


def rows(value: torch.Tensor, num_envs: int, what: str) -> torch.Tensor:
    """Check that `value` has one row per world."""
    if value.shape[0] != num_envs:
        raise TaskError(f"{what} must have {num_envs} rows, one per environment; received {tuple(value.shape)}")
    return value


def check_mask(mask: torch.Tensor | None, num_envs: int) -> None:
    """Raise TaskError unless `mask` is None or (N,) bool."""
    if mask is not None and (mask.shape != (num_envs,) or mask.dtype != torch.bool):
        raise TaskError(f"mask must be ({num_envs},) bool, received {tuple(mask.shape)} {mask.dtype}")
