"""Gymnasium spaces as robolearn specs: observations as named arrays, actions with the limits that scale them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from robolearn.configuration.parts.task import TaskConfig
from robolearn.errors import TaskError
from robolearn.picture_layout import Layout, Picture, is_depth, picture_of
from robolearn.specs import KEY_SEPARATOR, UNBOUNDED, ActionSpec, ArraySpec, join_key

Convert = Callable[[Any], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ObservationLeaf:
    """One key of the flattened observation and how to read it out of what the environment returns."""

    key: str
    spec: ArraySpec
    path: tuple[Any, ...]
    convert: Convert
    """Of one observation, or of a batch of them: leading dimensions stay."""

    def write(self, obs: Any, row: np.ndarray) -> None:
        """Write this key of one observation into `row`, of the spec's shape."""
        row[...] = np.reshape(self.convert(self._part(obs)), self.spec.shape)

    def read(self, obs: Any, rows: int) -> np.ndarray:
        """Return this key of a batch of observations, (rows, *shape)."""
        return np.reshape(self.convert(self._part(obs)), (rows, *self.spec.shape))

    def _part(self, obs: Any) -> Any:
        for part in self.path:
            obs = obs[part]
        return obs


@dataclass(frozen=True, kw_only=True)
class ActionLayout:
    """The mapping of a row of A physical values to the environment's action."""

    spec: ActionSpec | None
    """None where actions are discrete."""
    discrete: int | None
    """Number of discrete actions, else None."""
    to_env: Callable[[np.ndarray], Any]
    """(..., A) float32 physical values, or (..., 1) int64 -> what `env.step` takes, of one environment or of many."""


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """What spaces do not say of their pictures; see `robolearn.picture_layout`."""

    layout: Layout = "auto"
    depth_range: tuple[float, float] | None = None


def picture_options(task: TaskConfig) -> PictureOptions:
    """Return what a task says of the pictures in its spaces."""
    span = (task.depth_range[0], task.depth_range[1]) if task.depth_range else None
    return PictureOptions(layout=task.picture_layout, depth_range=span)


def observation_leaves(
    space: spaces.Space, keep: tuple[str, ...] = (), pictures: PictureOptions | None = None
) -> list[ObservationLeaf]:
    """Return the keys of an observation space, nested ones joined by "/".

    Vectors become (n,) float32; pictures uint8 (H, W, C), depth that no range scales float32 (H, W, 1). A bare Box is
    called "state", or "image" where it is one. `keep` selects and orders the keys.

    Raises TaskError where two keys fall together, or one that is kept is not there.
    """
    leaves: dict[str, ObservationLeaf] = {}
    for leaf in _leaves(space, (), pictures or PictureOptions()):
        if leaf.key in leaves:
            raise TaskError(
                f"observations {leaves[leaf.key].path} and {leaf.path} would both be called {leaf.key!r}, for nested "
                f"names are joined by {KEY_SEPARATOR!r}; rename one of them in the environment"
            )
        leaves[leaf.key] = leaf
    if missing := [key for key in keep if key not in leaves]:
        raise TaskError(f"obs_keys {missing} are not observed; this environment observes {list(leaves)}")
    return [leaves[key] for key in keep or leaves]


def action_layout(space: spaces.Space, limit: float | None = None) -> ActionLayout:
    """Return the action space as a spec with finite limits; `limit` stands in for bounds that are infinite, or so large
    that they mean it (`UNBOUNDED`).

    A dimension that can only be one value stays in the action, with limits one below and above it, and is that value
    whatever is asked for: files and policies keep their number of actions.
    """
    if isinstance(space, spaces.Discrete):
        start = int(space.start)

        def discrete(rows: np.ndarray) -> Any:
            return int(rows[0]) + start if rows.ndim == 1 else rows[:, 0] + start

        return ActionLayout(spec=None, discrete=int(space.n), to_env=discrete)
    if not isinstance(space, spaces.Box) or space.dtype is None or space.dtype.kind != "f":
        raise TaskError(
            f"actions must be a Box of floats or Discrete, received {space}; "
            "wrap the environment in gymnasium.wrappers.TransformAction to turn its actions into one of these"
        )
    if not np.prod(space.shape):
        raise TaskError(f"actions are {space}, which has no dimension: there is nothing to control or to learn")
    low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
    open_low, open_high = ~(low > -UNBOUNDED), ~(high < UNBOUNDED)
    if limit is not None:
        low, high = np.where(open_low, -limit, low), np.where(open_high, limit, high)
    elif unbounded := np.flatnonzero(open_low | open_high).tolist():
        raise TaskError(
            f"actions are scaled from [-1, 1] to the limits of the action space, but dimensions {unbounded} of {space} "
            "have none; set --task.action_limit (for example 1.0), or wrap the environment in "
            "gymnasium.wrappers.RescaleAction or TransformAction with a finite Box"
        )
    if limit is not None and (empty := np.flatnonzero(low > high)).size:
        i = int(empty[0])
        bound, value = ("high", high[i]) if open_low[i] else ("low", low[i])
        raise TaskError(
            f"action_limit {limit:g} stands in for the missing bounds of {space}, but dimension {i} has {bound} "
            f"{value:g}, which leaves it nothing; set --task.action_limit above {abs(value):g}"
        )
    constant = low == high
    low, high = np.where(constant, low - 1.0, low), np.where(constant, high + 1.0, high)
    spec = ActionSpec(low=tuple(low.tolist()), high=tuple(high.tolist()))
    shape, dtype = space.shape, space.dtype
    low, high = space.low, space.high  # float32 arithmetic may step outside by one ulp, which some environments refuse

    def continuous(rows: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(rows.reshape((*rows.shape[:-1], *shape)).astype(dtype), low, high))

    return ActionLayout(spec=spec, discrete=None, to_env=continuous)


def describe_spaces(leaves: Sequence[ObservationLeaf], action: ActionLayout) -> dict[str, Any]:
    """Return what a vector environment must know of its spaces, as JSON-serialisable values."""
    return {
        "observation": {leaf.key: [list(leaf.spec.shape), leaf.spec.dtype] for leaf in leaves},
        "action": None if action.spec is None else action.spec.to_dict(),
        "discrete_actions": action.discrete,
    }


def _leaves(space: spaces.Space, path: tuple[Any, ...], pictures: PictureOptions) -> Iterator[ObservationLeaf]:
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        items: Any = space.spaces.items() if isinstance(space.spaces, Mapping) else enumerate(space.spaces)
        for name, part in items:
            yield from _leaves(part, (*path, name), pictures)
        return
    name = join_key(path)
    spec, convert = _convert(space, name or "the observation", pictures)
    key = name or ("image" if spec.is_image or is_depth(spec) else "state")
    yield ObservationLeaf(key=key, spec=spec, path=path, convert=convert)


def _convert(space: spaces.Space, name: str, pictures: PictureOptions) -> tuple[ArraySpec, Convert]:
    if isinstance(space, spaces.Box):
        picture = _picture(space, pictures)
        if picture is None:
            return _vector(space), np.asarray
        spec = ArraySpec(shape=picture.spec.shape) if picture.is_depth else picture.spec
        return spec, lambda value: picture.convert(np.asarray(value))
    if isinstance(space, spaces.Discrete):
        one_hot = np.eye(int(space.n), dtype=np.float32)
        return ArraySpec(shape=(len(one_hot),)), lambda value: one_hot[np.asarray(value, np.int64) - int(space.start)]
    if isinstance(space, spaces.MultiBinary):
        return _vector(space), np.asarray
    if isinstance(space, spaces.MultiDiscrete):
        tables = [np.eye(n, dtype=np.float32) for n in space.nvec.reshape(-1)]
        start, dimensions = space.start, space.nvec.ndim

        def one_hots(value: Any) -> np.ndarray:
            index = np.asarray(value, np.int64) - start
            index = index.reshape(*index.shape[: index.ndim - dimensions], len(tables))
            return np.concatenate([table[index[..., i]] for i, table in enumerate(tables)], axis=-1)

        return ArraySpec(shape=(int(space.nvec.sum()),)), one_hots
    raise TaskError(
        f"{name} is a {type(space).__name__} space, which cannot become a fixed-size array; "
        "select other keys with --task.obs_keys or wrap the environment in gymnasium.wrappers.TransformObservation"
    )


def _vector(space: spaces.Space) -> ArraySpec:
    assert space.shape is not None
    return ArraySpec(shape=(int(np.prod(space.shape, dtype=np.int64)),))


def _picture(space: spaces.Box, options: PictureOptions) -> Picture | None:
    """Return how observations of a space become pictures, by its shape, type and bounds; None where they are none."""
    assert space.dtype is not None
    low, high = float(np.min(space.low, initial=0.0)), float(np.max(space.high, initial=0.0))
    # Floats up to 255 are colours; up to another bound they may be metres, and are not to be rounded.
    whole = space.dtype.kind != "f" or high == 255.0
    return picture_of(
        space.shape, space.dtype, (low, high), layout=options.layout, depth_range=options.depth_range, whole=whole
    )
