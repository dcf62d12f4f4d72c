"""MuJoCo Warp: all worlds in one launch, on a GPU as CUDA graphs, or (slowly, for tests) on Warp's CPU device.

The torch tensors are views of Warp's arrays: nothing is copied between host and device, or at all, while stepping.
Physics is float32, and on a GPU not reproducible bit for bit (atomics).
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import mujoco
import numpy as np
import torch

from robolearn.errors import TaskError
from robolearn.sim.simulation import DERIVING_FIELDS, STATE_SPEC, Simulation, Start, check_mask, rows

_FLOAT_PARTS = {
    "time": "time",
    "qpos": "qpos",
    "qvel": "qvel",
    "act": "act",
    "warmstart": "qacc_warmstart",
    "ctrl": "ctrl",
    "qfrc_applied": "qfrc_applied",
    "xfrc_applied": "xfrc_applied",
    "mocap_pos": "mocap_pos",
    "mocap_quat": "mocap_quat",
}
"""Parts of a state row that Warp's Data holds, by our name and by its."""

_RENDER_FIELDS = frozenset({"geom_rgba", "mat_rgba", "light_pos", "light_dir", "light_diffuse", "cam_pos", "cam_quat"})
"""Fields that only pictures depend on; pictures are drawn by C MuJoCo, so Warp need not know them."""


_DERIVED_FIELDS = (
    *("body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_invweight0", "actuator_acc0"),
    *("tendon_length0", "tendon_lengthspring", "eq_data"),
    *("cam_pos0", "cam_poscom0", "cam_mat0", "light_pos0", "light_poscom0", "light_dir0"),
)
"""Fields of Warp's Model that its `set_const` computes; the mean inertia lies in `stat`."""

_NO_ROOM = 1 | 2 | 4 | 8
"""Bits of MuJoCo Warp's `OverflowType`: constraint rows, their non-zeros, broad and narrow phase."""


class WarpSimulation(Simulation):
    """See `Simulation`. Divergence is looked for on the device; the host asks for it once in `check_every` steps."""

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        *,
        device: str | torch.device = "cuda",
        contacts: int | None = None,
        constraints: int | None = None,
    ):
        """Args:
        device: "cuda", "cuda:1" or "cpu".
        contacts: most contacts per world; None leaves MuJoCo Warp to estimate it.
        constraints: most constraint rows per world; None as above.
        """
        super().__init__(model, num_envs, checked_device(device))
        self._wp, self._mjw = _import_warp()
        self._on_gpu = self.device.type == "cuda"
        self.check_every = 50 if self._on_gpu else 1
        with self._scope():
            self._model = self._mjw.put_model(model)
            start = mujoco.MjData(model)
            mujoco.mj_forward(model, start)
            self._data = self._mjw.put_data(model, start, nworld=num_envs, nconmax=contacts, njmax=constraints)
        self._views = {ours: self._torch(getattr(self._data, theirs)) for ours, theirs in _FLOAT_PARTS.items()}
        self._defaults = {k: v.clone() for k, v in self._views.items()}
        self._defaults["warmstart"].zero_()
        self.time, self.qpos, self.qvel, self.act = (self._views[k] for k in ("time", "qpos", "qvel", "act"))
        self.ctrl, self.mocap_pos, self.mocap_quat = (self._views[k] for k in ("ctrl", "mocap_pos", "mocap_quat"))
        self.sensordata = self._torch(self._data.sensordata)
        self._graphs: dict[Any, Any] = {}
        self._host_values: dict[str, torch.Tensor] = {}
        self._host_worlds: dict[int, mujoco.MjModel] = {}
        self._reference: Any = None  # Warp's Data in which constants are computed; made when first needed
        self._steps = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self._bad = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        overflow = getattr(self._data, "overflow", None)  # older versions of MuJoCo Warp only print a warning
        self._overflow = None if overflow is None else self._torch(overflow)
        self._crowded = torch.zeros_like(self._bad)
        self._since_check = 0
        self._launch("forward")

    def step(self, substeps: int, mask: torch.Tensor | None = None, *, sensors: bool = True) -> None:
        self._check_substeps(substeps)
        check_mask(mask, self.num_envs)
        before = {k: v.clone() for k, v in self._views.items()}
        self._launch("step", substeps)
        bad = ~(torch.isfinite(self.qpos).all(-1) & torch.isfinite(self.qvel).all(-1))
        if self._overflow is not None:
            crowded = (self._overflow & _NO_ROOM) != 0
            self._crowded |= crowded
            bad |= crowded
            self._overflow.zero_()
        self._bad |= bad if mask is None else bad & mask
        still = bad if mask is None else bad | ~mask
        for name, view in self._views.items():
            view.copy_(torch.where(_column(still, view), before[name], view))
        if sensors:
            self._launch("forward")
        self._steps += 1 if mask is None else mask.long()
        self._since_check += 1
        if self._since_check >= self.check_every:
            self.check()

    def check(self) -> None:
        """Ask the device whether worlds diverged since the last check; raises UnstableError for those."""
        self._since_check = 0
        bad = self._bad.nonzero().flatten().tolist()
        if bad:
            crowded = bool(self._crowded[bad[0]])
            why = "more contacts or constraints than there is room for" if crowded else "a state that is not finite"
            self._bad.zero_()
            self._crowded.zero_()
            states = self.get_state()[bad].cpu().numpy()
            raise self._unstable(bad, self._steps[bad].tolist(), why, states)

    def reset(self, start: Start, mask: torch.Tensor | None = None) -> None:
        given = {
            "qpos": start.qpos,
            "ctrl": torch.zeros_like(self.ctrl) if start.ctrl is None else start.ctrl,
            "mocap_pos": start.mocap_pos,
            "mocap_quat": start.mocap_quat,
        }
        values = dict(self._defaults)
        values |= {k: rows(v, self.num_envs, f"start.{k}") for k, v in given.items() if v is not None}
        for name in ("time", "qvel", "act"):
            values[name] = torch.zeros_like(self._views[name])
        self._write(values, mask)
        everyone = torch.ones_like(self._bad) if mask is None else mask
        self._bad &= ~everyone
        self._crowded &= ~everyone
        self._steps.masked_fill_(everyone, 0)
        self._launch("forward")

    def get_state(self) -> torch.Tensor:
        size = mujoco.mj_stateSize(self.model, STATE_SPEC)
        state = torch.zeros(self.num_envs, size, dtype=torch.float64, device=self.device)
        for name, view in self._views.items():
            state[:, self.layout[name]] = view.reshape(self.num_envs, -1).double()
        state[:, self.layout["eq_active"]] = self._torch(self._data.eq_active).double()
        return state

    def set_state(self, state: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        rows(state, self.num_envs, "state")
        size = mujoco.mj_stateSize(self.model, STATE_SPEC)
        if state.shape[1] != size:
            raise TaskError(f"a state of this model has {size} numbers, received {state.shape[1]}")
        state = state.to(self.device)
        self._write({k: state[:, self.layout[k]].reshape(v.shape) for k, v in self._views.items()}, mask)
        self._launch("forward")

    def set_model(self, values: Mapping[str, torch.Tensor], mask: torch.Tensor | None = None) -> None:
        for name, value in values.items():
            rows(value, self.num_envs, name)
            old = self._host_values.get(name)
            if old is None:
                default = torch.as_tensor(np.asarray(getattr(self.model, name)), device=self.device)
                old = default.expand(value.shape).to(value.dtype).clone()
                self._host_values[name] = old
            old.copy_(value if mask is None else torch.where(_column(mask, value), value.to(self.device), old))
            if name not in _RENDER_FIELDS:
                self._write_field(name, old)
        if DERIVING_FIELDS & values.keys():
            self._derive_constants(mask)
        self._host_worlds.clear()

    def world(self, index: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        import copy

        model = self._host_worlds.get(index)
        if model is None:
            model = self._host_worlds[index] = copy.copy(self.model) if self._host_values else self.model
            for name, values in self._host_values.items():
                getattr(model, name)[:] = values[index].cpu().numpy()
            if DERIVING_FIELDS & self._host_values.keys():
                mujoco.mj_setConst(model, mujoco.MjData(model))
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, self.get_state()[index].cpu().numpy(), STATE_SPEC)
        mujoco.mj_forward(model, data)
        return model, data

    def _write(self, values: Mapping[str, torch.Tensor], mask: torch.Tensor | None) -> None:
        check_mask(mask, self.num_envs)
        for name, value in values.items():
            view = self._views[name]
            value = value.to(view.device, view.dtype)
            view.copy_(value if mask is None else torch.where(_column(mask, view), value, view))

    def _write_field(self, name: str, values: torch.Tensor) -> None:
        if getattr(self._model, name, None) is None:
            raise TaskError(f"MuJoCo Warp's model has no field {name!r} to set per environment")
        view = self._own_rows(self._model, name)
        view.copy_(values.reshape(view.shape))

    def _derive_constants(self, mask: torch.Tensor | None) -> None:
        """Compute the constants of the masked worlds anew, in a Data of their own: the state stays as it is."""
        # Older versions of MuJoCo Warp have one acceleration of each actuator for all worlds.
        names = [name for name in _DERIVED_FIELDS if getattr(self._model, name).ndim > 1]
        views = [self._own_rows(self._model, name) for name in names]
        views.append(self._own_rows(self._model.stat, "meaninertia"))
        before = [view.clone() for view in views]
        with self._scope():
            if self._reference is None:
                self._reference = self._mjw.make_data(self.model, nworld=self.num_envs, nconmax=1, njmax=1)
            mocap = [i for i in range(self.model.nbody) if self.model.body_mocapid[i] >= 0]
            for target, source in (("mocap_pos", "body_pos"), ("mocap_quat", "body_quat")):
                self._torch(getattr(self._reference, target)).copy_(self._torch(getattr(self._model, source))[:, mocap])
            if self._on_gpu:
                torch.cuda.synchronize(self.device)  # Warp's stream is not torch's
            self._mjw.set_const(self._model, self._reference)
            self._wp.synchronize_device()
        if mask is not None:
            for view, old in zip(views, before):
                view.copy_(torch.where(_column(mask, view), view, old))

    def _own_rows(self, owner: Any, name: str) -> torch.Tensor:
        """Return a field with a row for each world, (N, ...); captured graphs hold the shared array, so they go."""
        shared = getattr(owner, name)
        if shared.shape[0] != self.num_envs:
            with self._scope():
                fresh = self._wp.empty((self.num_envs, *shared.shape[1:]), dtype=shared.dtype)
            setattr(owner, name, fresh)
            self._graphs.clear()
            self._torch(fresh).copy_(self._torch(shared))
        return self._torch(getattr(owner, name))

    def _launch(self, name: str, repeats: int = 1) -> None:
        function = getattr(self._mjw, name)
        if not self._on_gpu:
            with self._scope():
                for _ in range(repeats):
                    function(self._model, self._data)
            return
        key = (name, repeats)
        if key not in self._graphs:
            self._graphs[key] = self._captured(function, repeats)
        # On torch's own stream, so that neither has to wait for the other.
        stream = self._wp.stream_from_torch(torch.cuda.current_stream(self.device))
        self._wp.capture_launch(self._graphs[key], stream=stream)

    def _captured(self, function: Callable[[Any, Any], None], repeats: int) -> Any:
        """Return a CUDA graph of `repeats` calls, captured on Warp's stream: CUDA cannot capture the default one."""
        saved = {name: view.clone() for name, view in self._views.items()}
        torch.cuda.synchronize(self.device)
        with self._scope():
            function(self._model, self._data)  # compiles the kernels, which a capture must not do
            self._wp.synchronize_device()
            with self._wp.ScopedCapture() as capture:
                for _ in range(repeats):
                    function(self._model, self._data)
        for name, value in saved.items():
            self._views[name].copy_(value)
        return capture.graph

    def _scope(self) -> AbstractContextManager[Any]:
        return self._wp.ScopedDevice(str(self.device))

    def _torch(self, array: Any) -> torch.Tensor:
        return self._wp.to_torch(array)


def _column(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Map (N,) -> (N, 1, ...) with as many dimensions as `like`."""
    return mask.reshape(-1, *[1] * (like.dim() - 1))


def checked_device(device: str | torch.device) -> torch.device:
    try:
        checked = torch.device(device)
    except RuntimeError:
        raise TaskError(f"device must be 'cpu' or 'cuda' (with an index, 'cuda:1'), received {device!r}") from None
    if checked.type == "cuda" and not torch.cuda.is_available():
        raise TaskError(
            f"device {str(device)!r} was asked for, but torch {torch.__version__} finds no CUDA device here; "
            "use device='cpu' (MuJoCo Warp on the CPU, slow), backend='cpu' (fast), or install a CUDA build of torch"
        )
    if checked.type not in ("cpu", "cuda"):
        raise TaskError(f"MuJoCo Warp runs on 'cuda' or 'cpu', received {device!r}")
    if checked.type == "cuda" and checked.index is None:
        checked = torch.device("cuda", torch.cuda.current_device())
    return checked


def _import_warp() -> tuple[Any, Any]:
    try:
        import warp

        _silence(warp.config)  # before anything initialises it
        import mujoco_warp
    except ImportError as error:
        raise TaskError(f"backend 'warp' needs {error.name}; install it with: pip install 'robolearn[gpu]'") from None
    return warp, mujoco_warp


def _silence(config: Any) -> None:
    """Turn off the banner and the line for each kernel; the setting's name differs between Warp's versions."""
    if hasattr(config, "log_level"):
        config.log_level = 30  # warnings and errors
    else:
        config.quiet = True
