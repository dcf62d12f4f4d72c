"""The values that flow between the packages: observation and action specs, training batches and recorded episodes.

Symbols, used in names and docstrings everywhere: `B` batch, `N` parallel environments, `To` observation steps,
`Tp` predicted action steps, `Ta` executed action steps, `A` action size, `K` mixture components, `T` steps of an
episode. Actions of policies and files are in [-1, 1] per dimension; `ActionSpec` holds the physical limits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from robolearn.errors import DatasetError, TaskError

if TYPE_CHECKING:
    import torch


Observation: TypeAlias = "dict[str, torch.Tensor]"
"""(N, ...) per key, on the environment's device."""


KEY_SEPARATOR = "/"
"""Between the parts of a nested observation's name."""


UNBOUNDED = 0.5 * float(np.finfo(np.float32).max)
"""Bounds of actions from which on they are none: the largest float, as some environments write infinity, and all whose
range is no float32."""


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """Shape and dtype of one observation key, without batch or time dimensions."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def is_image(self) -> bool:
        """Images are uint8 arrays of shape (height, width, channels)."""
        return self.dtype == "uint8" and len(self.shape) == 3

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


def join_key(path: Sequence[object]) -> str:
    """Return the one name of a nested observation: `policy/eef_pos` for ("policy", "eef_pos"), in files (groups), in
    environments (Dict and Tuple spaces) and in policies."""
    return KEY_SEPARATOR.join(map(str, path))


def flat_keys(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the leaves of nested mappings by their joined names. Raises DatasetError where two fall together."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        found = flat_keys(value, (*path, name)) if isinstance(value, Mapping) else {join_key((*path, name)): value}
        both = sorted(set(flat) & set(found))
        if both:
            raise DatasetError(f"two observations are called {both[0]!r}, one of them nested; rename one")
        flat |= found
    return flat


def check_keys(keys: Sequence[str]) -> None:
    """Raise DatasetError unless these names can lie in one file: plain parts joined by "/", none a group of others."""
    for key in keys:
        parts = key.split(KEY_SEPARATOR)
        if "\0" in key or any(part in ("", ".", "..") for part in parts):
            raise DatasetError(f"observation keys must be plain names, joined by '/' where nested; received {key!r}")
        above = [join_key(parts[:n]) for n in range(1, len(parts))]
        if clash := [name for name in above if name in keys]:
            raise DatasetError(f"{clash[0]!r} is an observation, and {key!r} lies below it; rename one")


@dataclass(frozen=True)
class ObservationSpec(Mapping[str, ArraySpec]):
    """An ordered, immutable mapping from observation keys to array specs."""

    arrays: Mapping[str, ArraySpec]

    def __post_init__(self) -> None:
        if not self.arrays:
            raise TaskError("an observation needs at least one key, received none")
        object.__setattr__(self, "arrays", dict(self.arrays))

    def __getitem__(self, key: str) -> ArraySpec:
        return self.arrays[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def select(self, keys: Sequence[str]) -> ObservationSpec:
        """The sub-spec of `keys`, in their order. Raises TaskError where a key is missing."""
        missing = [key for key in keys if key not in self.arrays]
        if missing:
            raise TaskError(f"observation keys {missing} are not there; the observation has {list(self.arrays)}")
        return ObservationSpec({key: self.arrays[key] for key in keys})

    def to_dict(self) -> dict[str, Any]:
        return {key: {"shape": list(spec.shape), "dtype": spec.dtype} for key, spec in self.arrays.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ObservationSpec:
        return cls({k: ArraySpec(shape=tuple(v["shape"]), dtype=v["dtype"]) for k, v in data.items()})


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """Names and physical limits of an action. Policies and files hold actions scaled to [-1, 1]."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    names: tuple[str, ...] = ()
    discrete: bool = False
    """Whether the dimensions are alternatives, of which the one with the largest number is taken, and no quantities."""

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", tuple(f"action_{i}" for i in range(len(self.low))))
        if not len(self.low) == len(self.high) == len(self.names):
            raise TaskError(
                "low, high and names of an action must have one entry per dimension, "
                f"received {len(self.low)}, {len(self.high)} and {len(self.names)}"
            )
        finite = (np.abs((self.low, self.high)) < UNBOUNDED).all()
        if not (finite and np.less(self.low, self.high).all()):
            raise TaskError(f"action limits must be finite with low < high, received {self.low} and {self.high}")

    @property
    def size(self) -> int:
        """A, the number of action dimensions."""
        return len(self.low)

    @property
    def named(self) -> bool:
        """Return whether somebody named the dimensions; names that were filled in here say nothing."""
        return self.names != tuple(f"action_{i}" for i in range(self.size))

    def to_physical(self, actions: np.ndarray) -> np.ndarray:
        """(..., A) in [-1, 1] -> (..., A) in physical units; values outside are clipped first."""
        low, half = self._low_and_half_range
        return low + (np.clip(actions, -1.0, 1.0) + 1.0) * half

    def to_unit(self, actions: np.ndarray, *, clip: bool = True) -> np.ndarray:
        """(..., A) in physical units -> (..., A) in [-1, 1]; values outside are clipped, where asked for."""
        low, half = self._low_and_half_range
        unit = (actions - low) / half - 1.0
        return np.clip(unit, -1.0, 1.0) if clip else unit

    @functools.cached_property
    def _low_and_half_range(self) -> tuple[np.ndarray, np.ndarray]:
        """(A,) float32 each: every control step needs them."""
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        return low, 0.5 * (high - low)

    @classmethod
    def choices(cls, count: int) -> ActionSpec:
        """Return the spec of `count` discrete actions, each a preference in [-1, 1]."""
        names = tuple(f"choice_{i}" for i in range(count))
        return cls(low=(-1.0,) * count, high=(1.0,) * count, names=names, discrete=True)

    def to_dict(self) -> dict[str, Any]:
        limits = {"low": list(self.low), "high": list(self.high), "names": list(self.names)}
        return limits | ({"discrete": True} if self.discrete else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ActionSpec:
        discrete = data.get("discrete", False) is True
        return cls(low=tuple(data["low"]), high=tuple(data["high"]), names=tuple(data["names"]), discrete=discrete)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Training windows.

    Step 0 of the target is the current time t. With To=3 and Tp=4:

        obs       t-2  t-1  t                    (B, To, ...)
        actions   t-2  t-1  t   t+1  t+2  t+3    (B, To-1+Tp, A)

    Past the ends of an episode the first and the last row repeat, and `valid` is False there.
    """

    obs: dict[str, torch.Tensor]
    """(B, To, ...) per key, images uint8."""
    actions: torch.Tensor
    """(B, To-1+Tp, A) float32 in [-1, 1]."""
    valid: torch.Tensor
    """(B, To-1+Tp) bool, False on padding and on steps without a label."""
    weights: torch.Tensor
    """(B,) float32, mean one over the dataset."""
    episodes: torch.Tensor
    """(B,) int64, index of the episode each window comes from; for error messages."""
    steps: torch.Tensor
    """(B,) int64, t within the episode."""

    @property
    def obs_steps(self) -> int:
        return next(iter(self.obs.values())).shape[1]

    @property
    def targets(self) -> torch.Tensor:
        """(B, Tp, A): the actions from the current step on."""
        return self.actions[:, self.obs_steps - 1 :]

    @property
    def target_valid(self) -> torch.Tensor:
        """(B, Tp)."""
        return self.valid[:, self.obs_steps - 1 :]

    def __len__(self) -> int:
        return self.actions.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self) if f.name != "obs"}
        return Batch(obs={k: v.to(device, non_blocking=True) for k, v in self.obs.items()}, **moved)


class ActionMode(IntEnum):
    """The one who acted at a step (Sirius' convention, Liu et al. 2023, and two of ours)."""

    DEMONSTRATION = -1
    POLICY = 0
    INTERVENTION = 1
    """Somebody took over: the policy's way was corrected."""
    EXPERT = 2
    """The expert's turn by DAgger's mixture; nobody judged that the policy needed it. Ours, not Sirius'."""
    DISTURBANCE = 3
    """The demonstrator's hand was carried off; nobody meant it. Ours, too."""


EventKind = Literal["takeover", "release", "pause", "resume", "mark", "ask", "rewind"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened during an episode, at the step it happened before."""

    step: int
    time_s: float
    kind: EventKind
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class EpisodeInfo:
    """Facts about an episode as a whole (the attributes of its group in the file)."""

    success: bool
    seed: int
    source: Literal["demo", "dagger", "rl"] = "demo"
    round: int = 0
    operator: str = ""
    device: str = ""
    started_at: str = ""
    """ISO 8601 with time zone."""
    model: str = ""
    """Hash of the MJCF stored under `models/`, empty where there is none."""
    policy: str = ""
    """Which policy acted: a fingerprint of its weights, empty where none did."""
    notes: str = ""
    """Free text of the operator."""
    late_steps: int = 0
    """Control steps that began more than half a period after they were due, where a clock paced them."""
    clipped_steps: int = 0
    """Steps at which who demonstrated asked for more than the action limits allow."""
    clipped_share: float = 0.0
    """Part of the size of what was asked for at these steps that was cut off, from 0 to 1."""
    interrupted: bool = False
    """Recovered from a recording that was cut off: the last step is the last complete one."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One recorded episode; row t of every array belongs to the observation before action t.

    Checks its own shapes, dtypes and values on construction and raises DatasetError naming the culprit.
    """

    info: EpisodeInfo
    obs: dict[str, np.ndarray]
    """(T, ...) per key."""
    final_obs: dict[str, np.ndarray]
    """(...) per key: the true observation after the last action."""
    actions: np.ndarray
    """(T, A) float32, executed, in [-1, 1]."""
    rewards: np.ndarray
    """(T,) float32, of the state reached."""
    terminated: np.ndarray
    """(T,) bool."""
    truncated: np.ndarray
    """(T,) bool."""
    timestamps: np.ndarray
    """(T,) float64, measured seconds since the episode began, strictly increasing."""
    states: np.ndarray | None = None
    """(T, S) float64, full physics state before the action; None where the environment has none."""
    action_modes: np.ndarray | None = None
    """(T,) int8 of ActionMode; None reads as all demonstration."""
    policy_actions: np.ndarray | None = None
    """(T, A) float32, what the policy proposed; NaN where it was not asked."""
    expert_actions: np.ndarray | None = None
    """(T, A) float32, the label; NaN where there is none."""
    gate: np.ndarray | None = None
    """(T,) float32, the gate's score; None where no gate ran."""
    events: tuple[Event, ...] = field(default=())

    def __post_init__(self) -> None:
        actions = np.asarray(self.actions, np.float32)
        if actions.ndim != 2 or not len(actions):
            raise DatasetError(f"episode actions must have shape (T, A) with T >= 1, received {actions.shape}")
        T, A = actions.shape
        unset_actions = np.full((T, A), np.nan, np.float32)
        modes = np.full(T, ActionMode.DEMONSTRATION, np.int8)
        coerced: dict[str, Any] = {
            "actions": actions,
            "rewards": np.asarray(self.rewards, np.float32),
            "terminated": np.asarray(self.terminated, bool),
            "truncated": np.asarray(self.truncated, bool),
            "timestamps": np.asarray(self.timestamps, np.float64),
            "states": None if self.states is None else np.asarray(self.states, np.float64),
            "action_modes": modes if self.action_modes is None else np.asarray(self.action_modes, np.int8),
            "policy_actions": unset_actions
            if self.policy_actions is None
            else np.asarray(self.policy_actions, np.float32),
            "expert_actions": unset_actions
            if self.expert_actions is None
            else np.asarray(self.expert_actions, np.float32),
            "gate": None if self.gate is None else np.asarray(self.gate, np.float32),
        }
        for name, value in coerced.items():
            object.__setattr__(self, name, value)
        self._check_shapes(T, A)
        self._check_values()

    def __len__(self) -> int:
        return len(self.actions)

    def with_info(self, **changes: Any) -> Episode:
        return replace(self, info=replace(self.info, **changes))

    def _check_shapes(self, T: int, A: int) -> None:
        per_step = {"rewards", "terminated", "truncated", "timestamps", "action_modes", "gate"}
        wanted = dict.fromkeys(per_step, (T,)) | {"policy_actions": (T, A), "expert_actions": (T, A)}
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise DatasetError(f"episode {name} must have shape {shape}, received {value.shape}")
        if self.states is not None and (self.states.ndim != 2 or len(self.states) != T):
            raise DatasetError(f"episode states must have shape ({T}, S), received {self.states.shape}")
        if set(self.obs) != set(self.final_obs) or not self.obs:
            raise DatasetError(f"obs has keys {sorted(self.obs)}, final_obs {sorted(self.final_obs)}; they must agree")
        for key, value in self.obs.items():
            if len(value) != T or value.shape[1:] != self.final_obs[key].shape:
                raise DatasetError(
                    f"obs/{key} must have {T} rows of shape {self.final_obs[key].shape} "
                    f"(that of final_obs), received {value.shape}"
                )

    def _check_values(self) -> None:
        finite = {"actions": self.actions, "rewards": self.rewards, "timestamps": self.timestamps}
        finite |= {f"obs/{k}": v for k, v in self.obs.items() if v.dtype.kind == "f"}
        for name, value in finite.items():
            rows = ~np.isfinite(value.reshape(len(self), -1)).all(axis=1)
            if rows.any():
                raise DatasetError(f"episode {name} is not finite at step {int(rows.argmax())}")
        outside = np.abs(self.actions).max(axis=1) > 1.0 + 1e-6
        if outside.any():
            step = int(outside.argmax())
            raise DatasetError(f"actions must lie in [-1, 1], received {self.actions[step].tolist()} at step {step}")
        if len(self) > 1 and not (np.diff(self.timestamps) > 0).all():
            step = int((np.diff(self.timestamps) <= 0).argmax()) + 1
            raise DatasetError(f"timestamps must increase, but do not at step {step}")


class Actor(Protocol):
    """Something that knows what to do: a scripted expert, a planner, a trained policy with its memory.

    An expert's `act` must be a function of the current observation and the expert's own state only, so that DAgger may
    ask for labels at states the expert did not bring about.
    """

    def reset(self, seeds: Sequence[int], mask: torch.Tensor | None = None) -> None:
        """Forget the episodes of the masked environments (all where None); `seeds` has one per such environment."""
        ...

    def act(self, obs: Observation) -> torch.Tensor:
        """(N, ...) observations -> (N, A) actions in units of [-1, 1].

        What lies beyond is clipped where it is executed, and counted where it is recorded.
        """
        ...
