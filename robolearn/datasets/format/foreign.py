"""Files of robomimic's layout that other tools wrote, in the dialects of robomimic, robosuite, MimicGen, LIBERO, Isaac
Lab and whoever follows them.

What such a file does not say is assumed, never made up in silence: every assumption is a line of `Assumptions`, and the
options of `Reading` tell otherwise. What the first episode has, all must have. docs/foreign.md holds the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.parts.task import GYM_TYPE
from robolearn.datasets.format import checked as safe
from robolearn.datasets.format.assumptions import Assumptions
from robolearn.datasets.format.leaves import Leaf, descend, describe, observation_leaf, walk
from robolearn.datasets.format.schema import EPISODE_ATTRS, Header, from_own, wrong_value
from robolearn.errors import DatasetError, RobolearnError
from robolearn.specs import ActionMode, ActionSpec, ArraySpec, EpisodeInfo, ObservationSpec, join_key

UNKNOWN_SEED = -1
OWN_ATTR = "robolearn"
"""Attribute of `data` in which our own export keeps what robomimic has no place for; robomimic does not look at it."""
EPISODE_FACTS = tuple(name for name in EPISODE_ATTRS if name not in ("num_samples", "success", "seed", "model"))
"""Facts of an episode that robomimic does not know, and that our own export keeps as attributes."""
SUCCESS_NAMES = ("success", "is_success")
FLAGS = ("rewards", "dones", "terminated", "truncated")
INSTRUCTIONS = ("language_instruction", "instruction", "lang", "language", "language_raw")
"""Attributes and arrays that hold what was to be done, in words."""
MAX_ACTIONS = 10_000


class ForeignLayout:
    """Read one file of other tools: its header, and each episode's arrays as our schema has them.

    Args:
        data: the group of episodes; its first usable one tells names and shapes.
    """

    def __init__(self, data: h5py.Group, first: h5py.Group, path: Path, reading: Reading) -> None:
        self.path, self.reading = path, reading
        self.assumptions = Assumptions()
        attrs = _attrs(data)
        self.own = _own(attrs)
        self._has = frozenset(safe.names(first))
        self.actions = self._action_leaves(first)
        self.leaves = self._observations(first)
        self.instruction = self._instruction(attrs)
        self.header = self._header(attrs, first)
        self._states = self._state_leaves(first)
        self._note_missing(first)

    # What holds for the file

    def _header(self, attrs: Mapping[str, Any], first: h5py.Group) -> Header:
        env_args = self._env_args(attrs)
        size = sum(int(np.prod(leaf.raw, dtype=int)) for leaf in self.actions)
        if not 0 < size < MAX_ACTIONS:
            raise DatasetError(f"{safe.Place(first)}/actions must have shape (T, A), found A = {size}")
        spec = ObservationSpec({key: leaf.spec for key, leaf in self.leaves.items()})
        if self.own is not None:
            return replace(self.own, observation_spec=spec)
        return Header(
            task=str(env_args.get("env_name", "")),
            env_args=env_args,
            control_hz=self._control_hz(env_args),
            action_spec=ActionSpec(low=(-1.0,) * size, high=(1.0,) * size, names=self._action_names(size)),
            observation_spec=spec,
        )

    def _env_args(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        if self.own is not None:
            return dict(self.own.env_args)
        if "env_args" not in attrs:
            found = str(safe.decoded(attrs.get("env", "")) or self.path.stem)
            self.assumptions.note(
                "env_args", f"the file names no environment; it is called {found!r} (--task, where one is needed)"
            )
            return {"env_name": found, "type": GYM_TYPE, "env_kwargs": {}}
        try:
            env_args = json.loads(attrs["env_args"])
            given = {"type": env_args.get("type", env_args.get("env_type", GYM_TYPE)), "env_kwargs": {}} | env_args
            given.setdefault("env_name", self.path.stem)
            if not isinstance(given["env_kwargs"], dict):
                raise TypeError(f"env_kwargs is {given['env_kwargs']!r}")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(f"{self.path}: the attribute env_args is no JSON object: {error}") from None
        return given

    def _control_hz(self, env_args: Mapping[str, Any]) -> float:
        rate = _rate(env_args)
        asked = self.reading.control_hz
        if rate is not None and asked is not None and not np.isclose(rate, asked):
            raise safe.AskedInVain(
                f"{self.path} says that its control rate is {rate:g} Hz; drop --control_hz {asked:g}"
            )
        if rate is None and asked is None:
            said = _said_rate(env_args)
            none = "" if said is None else f"; {said!r} is none"
            raise safe.AskedInVain(
                f"{self.path} does not say its control rate (env_kwargs.control_freq, or sim_args of Isaac Lab{none}); "
                "give it as control_hz, for example --control_hz 20"
            )
        if rate is None:
            self.assumptions.note("control_hz", f"{asked:g} Hz as given; the file does not say it (--control_hz)")
        return float(rate or asked or 0.0)

    # Actions

    def _action_leaves(self, first: h5py.Group) -> list[Leaf]:
        names = self.reading.actions or ("actions",)
        leaves = []
        for name in names:
            if name.split("/")[0] not in self._has:
                raise DatasetError(
                    f"{safe.Place(first)}/{name} is missing; the episode has {_listed(first)}. Name the arrays that "
                    "are the action: --actions NAME"
                )
            data = descend(first, name)
            if data.dtype.kind not in "biuf" or data.ndim not in (1, 2):
                raise DatasetError(f"{safe.Place(data)} must have shape (T, A), found {describe(data)}")
            raw = tuple(data.shape[1:])
            spec = observation_leaf(data, name, len(data), Reading())
            assert isinstance(spec, Leaf) or 0 in raw
            if not isinstance(spec, Leaf):
                raise DatasetError(f"{safe.Place(data)} must have shape (T, A), found {data.shape}")
            leaves.append(replace(spec, convert=(lambda rows: rows.reshape(len(rows), -1)), kind="biuf", raw=raw))
            if data.dtype.kind in "biu":
                self.assumptions.note("actions", f"{name} holds {data.dtype}: whole numbers are taken as they are")
        if self.reading.actions:
            self.assumptions.note("actions", f"{' and '.join(names)}, joined in this order (--actions)")
        return leaves

    def _action_names(self, size: int) -> tuple[str, ...]:
        if len(self.actions) == 1:
            return tuple(f"action_{i}" for i in range(size))
        widths = [(leaf.path.replace("/", "_"), int(np.prod(leaf.raw, dtype=int))) for leaf in self.actions]
        return tuple(f"{name}_{i}" for name, width in widths for i in range(width))

    def raw_actions(self, group: h5py.Group, steps: int) -> np.ndarray:
        """Return (steps, A) actions as they lie in the file: physical, or in [-1, 1] where our own export wrote it."""
        parts = [leaf.load(group, steps).reshape(steps, -1) for leaf in self.actions]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    # Observations

    def _observations(self, first: h5py.Group) -> dict[str, Leaf]:
        steps = self.steps(first)
        if "obs" not in self._has:
            return self._states_only(first, steps)
        leaves: dict[str, Leaf] = {}
        for path, data in walk(safe.group(first, "obs")):
            key = join_key(path)
            found = observation_leaf(data, f"obs/{key}", steps, self.reading)
            if isinstance(found, str):
                self.assumptions.note("not taken", f"obs/{key} {found}")
                continue
            leaves[key] = found
            if found.note:
                self.assumptions.note("pictures", f"obs/{key}: {found.note}")
        if not leaves:
            raise DatasetError(
                f"{safe.Place(first)}/obs is empty; robomimic's dataset_states_to_obs.py extracts observations"
            )
        return leaves

    def _states_only(self, first: h5py.Group, steps: int) -> dict[str, Leaf]:
        """Read raw recordings of robosuite, which hold simulator states and no observations."""
        found = None
        if "states" in self._has and isinstance(safe.open_child(first, "states"), h5py.Dataset):
            found = observation_leaf(safe.dataset(first, "states"), "states", steps, self.reading)
        if not isinstance(found, Leaf):
            raise DatasetError(f"{safe.Place(first)}/obs is missing; the episode has {_listed(first)}")
        self.assumptions.note(
            "observations",
            "the file holds none; the simulator's states are taken instead, as 'states' (robomimic's "
            "dataset_states_to_obs.py extracts observations)",
        )
        return {"states": found}

    # States, flags, information

    def _state_leaves(self, first: h5py.Group) -> list[Leaf]:
        if "states" not in self._has:
            return []
        child = safe.open_child(first, "states")
        if isinstance(child, h5py.Dataset):
            return []
        steps, leaves = self.steps(first), []
        for path, data in walk(child):
            name = join_key(("states", *path))
            if data.shape and len(data) == steps and data.dtype.kind in "biuf" and 0 not in data.shape[1:]:
                leaf = Leaf(path=name, spec=_row_spec(data), raw=data.shape[1:], kind="biuf")
                leaves.append(leaf)
            else:
                self.assumptions.note("not taken", f"{name} {describe(data)}")
        if leaves:
            order = ", ".join(leaf.path.removeprefix("states/") for leaf in leaves)
            self.assumptions.note("states", f"groups are joined to rows in the order {order}")
        return leaves

    def states(self, group: h5py.Group, steps: int) -> np.ndarray | None:
        """Return (steps, S) float64 states; None where the file has none."""
        if self._states:
            return np.concatenate(
                [leaf.load(group, steps).reshape(steps, -1).astype(np.float64) for leaf in self._states], axis=1
            )
        if "states" not in self._has:
            return None
        data = safe.dataset(group, "states")
        rows = safe.load(data, (steps, None)[: data.ndim], "float64")
        return rows.reshape(steps, -1)

    def flags(self, group: h5py.Group, steps: int, success: bool, control_hz: float) -> dict[str, np.ndarray]:
        """Return (steps,) rewards, terminated, truncated and timestamps, as they are there or as they are assumed."""
        last = np.arange(steps) == steps - 1
        found = {name: self._column(group, name, steps) for name in FLAGS if name in self._has}
        rewards = found.get("rewards")
        ended = found.get("dones")
        terminated = found.get("terminated", (last & success) if ended is None else (ended != 0) & last)
        terminated = np.asarray(terminated) != 0
        truncated = np.asarray(found.get("truncated", last & ~terminated)) != 0
        return {
            "rewards": (last & success).astype(np.float32) if rewards is None else rewards.astype(np.float32),
            "terminated": terminated,
            "truncated": truncated,
            "timestamps": np.arange(steps) / control_hz,
        }

    def _column(self, group: h5py.Group, name: str, steps: int) -> np.ndarray:
        """Return (steps,) one value per step, also where each is an array of one."""
        data = safe.dataset(group, name)
        flat = data.ndim == 2 and data.shape[1] == 1
        return safe.load(data, (steps, 1) if flat else (steps,)).reshape(steps)

    def array(self, group: h5py.Group, name: str, steps: int) -> np.ndarray:
        """Return a per-step array by its name in our schema; other tools record demonstrations, without labels.

        Raises DatasetError where the file has none.
        """
        if name == "action_modes":
            return np.full(steps, int(ActionMode.DEMONSTRATION), np.int8)
        if name in ("policy_actions", "expert_actions"):
            return np.full((steps, self.header.action_spec.size), np.nan, np.float32)
        if name in ("rewards", "terminated", "truncated", "timestamps"):
            info = self.info(group) if name not in self._has else None
            return self.flags(group, steps, bool(info and info.success), self.header.control_hz)[name]
        if name == "dones" and "dones" in self._has:
            return self._column(group, name, steps)
        if name == "states" and (states := self.states(group, steps)) is not None:
            return states
        raise safe.AskedInVain(f"{safe.Place(group)}/{name} is missing")

    def has(self, name: str) -> bool:
        """Return whether the episodes lie in the file with this array."""
        return name in self._has

    def taken(self, keys: Iterable[str]) -> set[str]:
        """Return the paths below an episode's group that are read, where these observations are."""
        seen = {self.leaves[key].path for key in keys}
        following = {path.replace("obs/", "next_obs/", 1) for path in seen if path.startswith("obs/")}
        states = {leaf.path for leaf in self._states} or {"states"}
        actions = {leaf.path for leaf in self.actions}
        return {*seen, *following, *states, *actions, *FLAGS, *SUCCESS_NAMES, *INSTRUCTIONS}

    def steps(self, group: h5py.Group) -> int:
        """Return T of an episode: what it says, else the rows of its actions."""
        with safe.reading(safe.Place(group)):
            if "num_samples" in group.attrs:
                steps = safe.decoded(group.attrs["num_samples"])
                if isinstance(steps, (int, float)) and steps == int(steps) and steps >= 1:
                    return int(steps)
                raise DatasetError(
                    f"{safe.Place(group)}: the attribute num_samples must be a positive integer, found {steps!r}"
                )
        self.assumptions.note("num_samples", "the episodes do not say their length; it is that of their actions")
        shape = self.actions[0] if hasattr(self, "actions") else None
        data = descend(group, shape.path if shape else "actions")
        if not data.shape or not data.shape[0]:
            raise DatasetError(f"{safe.Place(group)} has no steps")
        return int(data.shape[0])

    def info(self, group: h5py.Group) -> EpisodeInfo:
        found = _attrs(group)
        success = self._success(group, found)
        seed = safe.decoded(found.get("seed", UNKNOWN_SEED))
        own: dict[str, Any] = {}
        if self.own is not None:
            known = {name: _PYTHON[EPISODE_ATTRS[name][0]] for name in EPISODE_FACTS if name != "notes"}
            own = {name: found[name] for name, kind in known.items() if type(found.get(name)) is kind}
            own = {name: value for name, value in own.items() if not wrong_value(name, value)}
        notes = found.get("notes") if self.own is not None else self._instruction(found, group) or self.instruction
        return EpisodeInfo(
            success=success,
            seed=int(seed) if isinstance(seed, (int, float)) and np.isfinite(seed) else UNKNOWN_SEED,
            notes=str(notes or ""),
            **own,
        )

    def _success(self, group: h5py.Group, found: Mapping[str, Any]) -> bool:
        place, assumed = safe.Place(group), self.reading.success
        for name in SUCCESS_NAMES:
            value = found.get(name)
            if value is None and name in group and isinstance(group.get(name), h5py.Dataset):
                data = safe.dataset(group, name)
                value = safe.load(data, (None,) * data.ndim, kinds="biufSO") if data.dtype.kind in "biuf" else "text"
                value = bool(np.any(value)) if isinstance(value, np.ndarray) and value.size else value
            if value is None:
                continue
            value = safe.decoded(value)
            if isinstance(value, (bool, int)) or (isinstance(value, float) and np.isfinite(value)):
                return bool(value)
            if assumed is not None:
                return assumed
            raise DatasetError(
                f"{place}: {name} must be true, false or a number, found {str(value)[:60]!r}; say for all episodes "
                "whether they succeeded: --success true or --success false"
            )
        if assumed is not None:
            return assumed
        if "rewards" in self._has:
            rewards = self._column(group, "rewards", self.steps(group))
            return bool(np.isin(rewards, (0.0, 1.0)).all() and (rewards == 1.0).any())
        return False

    def _instruction(self, attrs: Mapping[str, Any], group: h5py.Group | None = None) -> str:
        """Return what was to be done in words, where the attributes (or an array of the episode) say it."""
        for name in INSTRUCTIONS:
            if isinstance(attrs.get(name), str):
                return str(attrs[name])
            if group is not None and name in self._has and isinstance(group.get(name), h5py.Dataset):
                data = safe.dataset(group, name)
                if data.dtype.kind in "SO":
                    return " ".join(safe.texts(data))
        for name in ("problem_info", "ep_meta"):  # LIBERO's and robosuite's
            try:
                found = json.loads(attrs.get(name, "{}"))
                said = [found[key] for key in INSTRUCTIONS if isinstance(found.get(key), str)]
            except (TypeError, ValueError, AttributeError, RecursionError):
                continue
            if said:
                return said[0]
        return ""

    def _note_missing(self, first: h5py.Group) -> None:
        """Note what the file leaves unsaid, each with the option that says it."""
        note, how = self.assumptions.note, self.reading
        if self.own is None:
            self._note_actions()
        if "rewards" not in self._has:
            note("rewards", "the file has none; 1 at the last step of a success, else 0")
        if "dones" not in self._has and "terminated" not in self._has:
            note("ends", "the file has none; the last step of a success terminates, of any other it truncates")
        elif "terminated" not in self._has:
            note("ends", "a last step with dones set terminated, any other was truncated")
        if "next_obs" not in self._has:
            note("next_obs", "the file has none; converting leaves out the last step, whose outcome nobody recorded")
        note("timestamps", f"step / control rate ({self.header.control_hz:g} Hz); the file has none")
        attrs = _attrs(first)
        if not any(name in attrs or name in self._has for name in SUCCESS_NAMES):
            if how.success is not None:
                note("success", f"{_yes(how.success)} for all episodes, as given (--success)")
            elif "rewards" in self._has:
                note("success", "read from rewards of 0 and 1, any 1; with other rewards false (--success true)")
            else:
                note("success", "the file does not say; false (--success true)")
        if "seed" not in attrs:
            note("seed", f"the file has none; {UNKNOWN_SEED}")
        if self._instruction(attrs, first) or self.instruction:
            note("instruction", "kept in the notes of the episodes")

    def _note_actions(self) -> None:
        bounds = self.reading.bounds(self.header.action_spec.size)
        if bounds is None and not self.reading.limits:
            self.assumptions.note(
                "limits", "actions from -1 to 1, robomimic's convention; the file has none (--limits)"
            )


_PYTHON = {"int64": int, "float64": float, "bool": bool, "str": str}


def _attrs(obj: h5py.HLObject) -> dict[str, Any]:
    """Return the attributes as plain Python, also those that lie in arrays of one."""
    found = safe.attrs(obj)
    with safe.reading(f"{safe.Place(obj)} attributes"):
        return {name: safe.decoded(value) for name, value in found.items()}


def _row_spec(data: h5py.Dataset) -> ArraySpec:
    return ArraySpec(shape=data.shape[1:], dtype=data.dtype.name)


def _yes(value: bool) -> str:
    return "true" if value else "false"


def _listed(group: h5py.Group) -> str:
    return ", ".join(safe.names(group)) or "nothing"


def _own(attrs: Mapping[str, Any]) -> Header | None:
    """Return what our own export wrote beside robomimic's attributes; None where it is not there."""
    if not isinstance(attrs.get(OWN_ATTR), str):
        return None
    try:
        return from_own(json.loads(attrs[OWN_ATTR]))
    except (ValueError, TypeError, AttributeError, RecursionError, RobolearnError) as error:
        raise DatasetError(f"the attribute data.{OWN_ATTR} is damaged: {error}") from None


def _rate(env_args: Mapping[str, Any]) -> float | None:
    """Return the control rate in env_args: robosuite's control_freq, or Isaac Lab's time step and decimation."""
    rate = _said_rate(env_args)
    simulator = env_args.get("sim_args")
    if rate is None and isinstance(simulator, Mapping):
        try:
            period = float(simulator["dt"]) * float(simulator.get("decimation", 1))
            rate = 1.0 / period if period > 0 else None
        except (KeyError, TypeError, ValueError):
            rate = None
    good = isinstance(rate, (int, float)) and not isinstance(rate, bool) and np.isfinite(rate) and rate > 0
    return float(rate) if good and rate is not None else None


def _said_rate(env_args: Mapping[str, Any]) -> Any:
    """Return robosuite's control_freq, whatever it is; None where there is none."""
    return dict(env_args.get("env_kwargs") or {}).get("control_freq", env_args.get("control_freq"))


def final_row(group: h5py.Group, leaf: Leaf, steps: int) -> np.ndarray:
    """Return (...) the observation after the last action: the last row of next_obs.

    Raises DatasetError where there is none; holes cannot be told from zeros, so views are refused like elsewhere.
    """
    if "next_obs" not in group:
        raise safe.AskedInVain(
            f"{safe.Place(group)}/next_obs is missing, and with it the observation after the last action; "
            "`robolearn dataset convert` can drop the last step instead"
        )
    path = leaf.path.removeprefix("obs/")
    return replace(leaf, path=f"next_obs/{path}").row(group, steps, steps - 1)
