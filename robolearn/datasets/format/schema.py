"""Schema 1 of a dataset file: every name and dtype in one place. A strict superset of robomimic's layout.

`docs/datasets.md` holds `table()`, and a test holds both against what the writer writes. Strings are fixed-length
UTF-8, so that they lie inside HDF5's checksummed object headers and not in its unprotected global heap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.errors import DatasetError, RobolearnError
from robolearn.specs import ActionSpec, ArraySpec, EpisodeInfo, Event, ObservationSpec, check_keys

SCHEMA = "robolearn"
SCHEMA_VERSION = 1
LIBVER = ("v110", "v110")
"""HDF5 1.10 and later read these files; older formats have neither virtual datasets nor checksummed metadata."""

RECORDING = "recording"
"""Root attribute of the small index file that stands for the dataset while a recording is going on."""

JOURNAL = "journal"
"""Root attribute of a committed shard: the journal it was recorded with, which a crash may have left beside it."""

DEMO_PREFIX, LIVE_PREFIX = "demo_", "live_"
"""Names of episodes, and of the files of those in progress."""
FRAME_BYTES = 4096
"""Arrays of at least this many bytes per step are stored as compressed frames, like images."""


@dataclass(frozen=True)
class Entry:
    """One line of the documented table."""

    path: str
    kind: str
    """HDF5 attribute or dataset, with shape (glossary letters) and dtype."""
    optional: bool
    meaning: str


@dataclass(frozen=True)
class StepArray:
    """One per-step dataset of an episode; dimensions are `T` steps, `A` action size, `S` state size."""

    dims: str
    dtype: str
    optional: bool
    meaning: str


STEP_ARRAYS: dict[str, StepArray] = {
    "actions": StepArray("T,A", "float32", False, "executed action, in [-1, 1]"),
    "rewards": StepArray("T", "float32", False, "reward of the state reached"),
    "dones": StepArray("T", "uint8", False, "terminated or truncated, for robomimic"),
    "terminated": StepArray("T", "bool", False, "the task ended here"),
    "truncated": StepArray("T", "bool", False, "a time limit or an interruption ended the episode here"),
    "timestamps": StepArray("T", "float64", False, "measured seconds since the episode began"),
    "states": StepArray("T,S", "float64", True, "full physics state before the action"),
    "action_modes": StepArray(
        "T", "int8", False, "-1 demonstration, 0 policy, 1 intervention, 2 expert, 3 disturbance"
    ),
    "policy_actions": StepArray("T,A", "float32", False, "what the policy proposed; NaN where it was not asked"),
    "expert_actions": StepArray("T,A", "float32", False, "the label; NaN where there is none"),
    "gate": StepArray("T", "float32", True, "the gate's score; NaN where no gate ran"),
}

EPISODE_ATTRS: dict[str, tuple[str, str]] = {
    "num_samples": ("int64", "T, the number of steps"),
    "success": ("bool", "the episode counts as solved"),
    "seed": ("int64", "the seed it was reset with"),
    "source": ("str", "demo, dagger or rl"),
    "round": ("int64", "DAgger or RL round"),
    "operator": ("str", "who demonstrated or intervened"),
    "device": ("str", "the device it was operated with"),
    "started_at": ("str", "ISO 8601 with time zone"),
    "model": ("str", "name of the model under models/, or empty"),
    "policy": ("str", "fingerprint of the weights of the policy that acted, or empty"),
    "notes": ("str", "free text of the operator"),
    "late_steps": ("int64", "control steps that began more than half a period late, where a clock paced them"),
    "clipped_steps": ("int64", "steps at which more was asked for than the action limits allow"),
    "clipped_share": ("float64", "part of the size of what was asked for at these steps that was cut off"),
    "interrupted": ("bool", "recovered from a recording that was cut off: its last step is the last complete one"),
}

POSSIBLE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "source": (lambda value: value in ("demo", "dagger", "rl"), "demo, dagger or rl"),
    "late_steps": (lambda value: value >= 0, "a count"),
    "clipped_steps": (lambda value: value >= 0, "a count"),
    "clipped_share": (lambda value: 0.0 <= value <= 1.0, "a share, from 0 to 1"),
}
"""Of episodes' attributes that cannot be everything of their kind: what they can be, and in words."""

DATA_ATTRS: dict[str, tuple[str, str]] = {
    "total": ("int64", "steps of all episodes"),
    "env_args": ("str", "JSON: env_name, type, env_kwargs"),
    "task": ("str", "the task's id"),
    "control_hz": ("float64", "nominal control rate"),
    "action_spec": ("str", "JSON: low, high, names (physical limits)"),
    "observation_spec": ("str", "JSON: shape and dtype per key, in order"),
}

MAX_REASON_BYTES = 4096


def event_dtype(reason_bytes: int = 1) -> np.dtype:
    """Return the record of `events`: the step it happened before, its time, its kind and its reason."""
    return np.dtype([("step", "<i8"), ("time_s", "<f8"), ("kind", "S8"), ("reason", f"S{max(1, reason_bytes)}")])


def stored_as_frames(spec: ArraySpec) -> bool:
    """Tell whether an observation key is stored one compressed chunk per step (images and other large arrays)."""
    return spec.is_image or spec.size * np.dtype(spec.dtype).itemsize >= FRAME_BYTES


def entries() -> list[Entry]:
    """Return everything that a file may hold, in the order of the documented table."""
    lines = [
        Entry("/", 'attr `schema` str = "robolearn"', False, "marks the layout"),
        Entry("/", f"attr `schema_version` int64 = {SCHEMA_VERSION}", False, "of this table"),
        Entry("/", f"attr `{RECORDING}` bool", True, "only while a recording is going on or was cut off"),
    ]
    lines += [Entry("data", f"attr `{name}` {kind}", False, text) for name, (kind, text) in DATA_ATTRS.items()]
    lines += [Entry("data/demo_i", f"attr `{n}` {kind}", False, text) for n, (kind, text) in EPISODE_ATTRS.items()]
    for name, array in STEP_ARRAYS.items():
        lines.append(Entry(f"data/demo_i/{name}", f"({array.dims}) {array.dtype}", array.optional, array.meaning))
    return [
        *lines,
        Entry("data/demo_i/events", "(E) step int64, time_s float64, kind S8, reason S", True, "what happened when"),
        Entry("data/demo_i/obs/key", "(T,...) as in observation_spec", False, "observation before the action"),
        Entry("data/demo_i/final_obs/key", "(1,...)", False, "the true observation after the last action"),
        Entry("data/demo_i/next_obs/key", "(T,...) virtual", False, "obs[1:] then final_obs, without a copy"),
        Entry("mask/name", "(E) S", True, "robomimic filter keys: names of demos"),
        Entry("models/hash", "(bytes) uint8", True, "the MJCF that episodes name in `model`"),
    ]


def table() -> str:
    """Return the schema as a Markdown table."""
    rows = ["| where | what | optional | meaning |", "|---|---|---|---|"]
    rows += [f"| `{e.path}` | {e.kind} | {'yes' if e.optional else ''} | {e.meaning} |" for e in entries()]
    return "\n".join(rows)


@dataclass(frozen=True, kw_only=True)
class Header:
    """Facts that hold for every episode of a file: the attributes of `data`."""

    task: str
    env_args: Mapping[str, Any]
    control_hz: float
    action_spec: ActionSpec
    observation_spec: ObservationSpec

    def __post_init__(self) -> None:
        missing = {"env_name", "type", "env_kwargs"} - set(self.env_args)
        if missing:
            raise DatasetError(f"env_args must have env_name, type and env_kwargs; {sorted(missing)} are missing")
        if not (np.isfinite(self.control_hz) and self.control_hz > 0):
            raise DatasetError(f"control_hz must be a positive rate, received {self.control_hz}")
        check_keys(tuple(self.observation_spec))
        for key, spec in self.observation_spec.items():
            if np.dtype(spec.dtype).kind not in "biuf" or min(spec.shape, default=1) < 1:
                raise DatasetError(f"observation {key} must hold numbers, received {spec}")

    def to_attrs(self) -> dict[str, Any]:
        return {
            "task": text(self.task),
            "env_args": text(to_json(self.env_args, "env_args")),
            "control_hz": np.float64(self.control_hz),
            "action_spec": text(to_json(self.action_spec.to_dict(), "action_spec")),
            "observation_spec": text(to_json(self.observation_spec.to_dict(), "observation_spec")),
        }

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any]) -> Header:
        """Read the decoded attributes of `data`. Raises DatasetError naming the missing or damaged one."""
        for name in DATA_ATTRS:
            if name not in attrs:
                raise DatasetError(f"the attribute data.{name} is missing")
        try:
            return cls(
                task=str(attrs["task"]),
                env_args=json.loads(attrs["env_args"]),
                control_hz=float(attrs["control_hz"]),
                action_spec=ActionSpec.from_dict(json.loads(attrs["action_spec"])),
                observation_spec=ObservationSpec.from_dict(json.loads(attrs["observation_spec"])),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, RobolearnError) as error:
            raise DatasetError(f"the attributes of data are damaged: {error}") from None

    def difference(self, other: Header) -> str | None:
        """Return why episodes of the two cannot lie in one dataset; None where they can."""
        for name in ("task", "control_hz", "action_spec", "observation_spec"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name} differs: {mine} and {theirs}"
        return None


def to_own(header: Header) -> dict[str, Any]:
    """Return a header as plain JSON values, for layouts that have no place for it."""
    attrs = header.to_attrs()
    return {name: value.decode() if isinstance(value, bytes) else float(value) for name, value in attrs.items()}


def from_own(own: Mapping[str, Any]) -> Header:
    """Undo `to_own`. Raises DatasetError where something is missing or damaged."""
    return Header.from_attrs(dict(own) | {"total": 0})


def to_json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{what} must be plain JSON values: {error}") from None


def wrong_value(name: str, value: Any) -> str:
    """Return what an episode's attribute of the right kind must be and is not; empty where all is well."""
    if name not in POSSIBLE or POSSIBLE[name][0](value):
        return ""
    return f"must be {POSSIBLE[name][1]}"


def text(value: str) -> np.bytes_:
    """Return a string as it lies in the file: fixed-length UTF-8."""
    if "\0" in value:
        raise DatasetError(f"strings in a dataset cannot hold NUL characters, received {value!r}")
    return np.bytes_(value.encode("utf-8"))


def info_to_attrs(info: EpisodeInfo, steps: int) -> dict[str, Any]:
    try:
        seed, round_ = np.int64(info.seed), np.int64(info.round)
    except OverflowError:
        raise DatasetError(f"seed and round must fit 64 bits, received {info.seed} and {info.round}") from None
    return {
        "num_samples": np.int64(steps),
        "success": np.bool_(info.success),
        "seed": seed,
        "source": text(info.source),
        "round": round_,
        "operator": text(info.operator),
        "device": text(info.device),
        "started_at": text(info.started_at),
        "model": text(info.model),
        "policy": text(info.policy),
        "notes": text(info.notes),
        "late_steps": np.int64(info.late_steps),
        "clipped_steps": np.int64(info.clipped_steps),
        "clipped_share": np.float64(info.clipped_share),
        "interrupted": np.bool_(info.interrupted),
    }


def events_to_array(events: tuple[Event, ...] | list[Event]) -> np.ndarray:
    """Return (E,) records. Raises DatasetError where a reason is too long."""
    reasons = [bytes(text(event.reason)) for event in events]
    longest = max(map(len, reasons), default=1)
    if longest > MAX_REASON_BYTES:
        raise DatasetError(f"an event's reason may have {MAX_REASON_BYTES} bytes, received {longest}")
    rows = [(e.step, e.time_s, e.kind.encode(), reason) for e, reason in zip(events, reasons)]
    return np.array(rows, event_dtype(longest))


def events_from_array(array: np.ndarray) -> tuple[Event, ...]:
    return tuple(
        Event(
            step=int(row["step"]),
            time_s=float(row["time_s"]),
            kind=bytes(row["kind"]).decode("ascii"),  # pyright: ignore[reportArgumentType]
            reason=bytes(row["reason"]).decode("utf-8"),
        )
        for row in array
    )


def demo_name(number: int) -> str:
    return f"{DEMO_PREFIX}{number}"


def demo_number(name: str) -> int | None:
    """Return the number in `demo_<i>`; None for any other name."""
    digits = name.removeprefix(DEMO_PREFIX)
    good = name.startswith(DEMO_PREFIX) and digits.isascii() and digits.isdigit() and len(digits) < 19
    return int(digits) if good else None
