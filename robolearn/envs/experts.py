"""Experts by name: those of third parties, entry points, `module:callable`, or the one that a task brings along."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.configuration.parts.task import environment_name
from robolearn.envs.adapted import AdaptedEnv, AdaptedExpert
from robolearn.envs.interface import Actor, Observation, VectorEnv
from robolearn.envs.providers import lookup
from robolearn.envs.providers.provider import ScriptedExpert
from robolearn.errors import TaskError

ENTRY_POINTS = "robolearn.experts"
"""Group of the entry points under which other packages register theirs."""


def make_expert(name: str, env: VectorEnv) -> Actor:
    """Return the expert called `name` for the task that `env` runs.

    Args:
        name: "auto" (the task's own: that of the environments' provider, or `env.expert()`), the name of a provider's
            expert (`robolearn.envs.providers`), an entry point of the group `robolearn.experts` (a factory
            `(env) -> Actor`), or "module:callable". The callable takes one observation (a dict of arrays, or the bare
            array where there is only the key "state") and returns one physical action; a class is instantiated once
            per environment, and its `reset()`, where it has one, is called per episode.

    Experts know the task as it is: where its keys are renamed or its actions are in other limits, they see and act as
    without. What they ask for beyond the limits is left as it is; whoever executes it clips it.

    Raises TaskError where there is no such expert, or none for this task.
    """
    if isinstance(env, AdaptedEnv):
        return AdaptedExpert(make_expert(name, env.inner), env)
    if name == "auto":
        return _own_expert(env)
    if ":" in name:
        found = _import(name)
        return CallableExpert(env, found if isinstance(found, type) else lambda: found)
    if name in lookup.EXPERTS:
        return _scripted(lookup.EXPERTS[name], env)
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in points:
        return points[name].load()(env)
    known = sorted({*points, *lookup.EXPERTS})
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"known: auto, {', '.join(known)}"
    raise TaskError(f"unknown expert {name!r}; {hint} (or give module:callable)")


class CallableExpert:
    """A function of one observation per environment, made by `make`, as an Actor."""

    def __init__(self, env: VectorEnv, make: Callable[[], Any]) -> None:
        self._env = env
        made = [make() for _ in range(env.num_envs)]
        if wrong := next((f for f in made if not callable(f)), None):
            raise TaskError(f"an expert must be callable with an observation, received a {type(wrong).__name__}")
        self._functions = made
        self._flat = list(env.observation_spec) == ["state"]

    def reset(self, seeds: Sequence[int], mask: torch.Tensor | None = None) -> None:
        for index, function in enumerate(self._functions):
            if (mask is None or mask[index]) and hasattr(function, "reset"):
                function.reset()

    def act(self, obs: Observation) -> torch.Tensor:
        arrays = {key: value.detach().cpu().numpy() for key, value in obs.items()}
        size = self._env.action_spec.size
        actions = np.empty((self._env.num_envs, size), np.float32)
        for index, function in enumerate(self._functions):
            row = {key: value[index] for key, value in arrays.items()}
            try:
                action = np.asarray(function(row["state"] if self._flat else row), np.float32)
            except Exception as error:  # whatever other people's code raises
                seen = "the array of 'state'" if self._flat else f"a dictionary of {', '.join(map(repr, row))}"
                raise TaskError(
                    f"the expert failed in environment {index}, {type(error).__name__}: {error}; it is called with "
                    f"{seen} and must return {size} numbers"
                ) from error
            if action.shape != (size,) or not np.isfinite(action).all():
                raise TaskError(
                    f"the expert must return {size} finite numbers, received {action.tolist()} for environment {index}"
                )
            actions[index] = action
        return torch.from_numpy(self._env.action_spec.to_unit(actions, clip=False)).to(self._env.device)


class NoisyExpert:
    """An expert whose executed actions carry Gaussian noise, while `label` keeps what it meant.

    The noise of an episode depends only on (`seed`, the episode's seed, the step), so recordings repeat exactly however
    many environments there are. `std` is in units of the [-1, 1] action.
    """

    label: torch.Tensor
    """(N, A): the clean action of the last `act`, also where it is beyond [-1, 1]."""

    def __init__(self, expert: Actor, std: float, seed: int = 0) -> None:
        if not (np.isfinite(std) and std >= 0.0):
            raise TaskError(f"the action noise must be a standard deviation of at least 0, received {std}")
        self._expert, self._std, self._seed = expert, std, seed
        self._streams: dict[int, np.random.Generator] = {}

    def reset(self, seeds: Sequence[int], mask: torch.Tensor | None = None) -> None:
        self._expert.reset(seeds, mask)
        indices = range(len(seeds)) if mask is None else mask.nonzero().flatten().tolist()
        for index, episode in zip(indices, seeds, strict=True):
            self._streams[index] = np.random.default_rng([self._seed, episode])

    def act(self, obs: Observation) -> torch.Tensor:
        self.label = self._expert.act(obs)
        N, A = self.label.shape
        noise = np.zeros((N, A), np.float32)
        for index, stream in self._streams.items():
            noise[index] = stream.standard_normal(A)
        meant = self.label.clamp(-1.0, 1.0)
        return (meant + self._std * torch.from_numpy(noise).to(self.label)).clamp(-1.0, 1.0)


def _own_expert(env: VectorEnv) -> Actor:
    name = environment_name(env.env_args)
    if (scripted := lookup.expert_of(name)) is not None:
        return _scripted(scripted, env)
    own = getattr(env, "expert", None)
    if own is None:
        raise TaskError(
            f"{name} brings no expert of its own; name one with --expert "
            f"(an entry point of the group {ENTRY_POINTS}, or module:callable)"
        )
    return own()


def _scripted(expert: ScriptedExpert, env: VectorEnv) -> Actor:
    return CallableExpert(env, expert.prepare(env))


def _import(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        here = [Path.cwd() / f"{error.name}.py", Path.cwd() / str(error.name)]
        if error.name != module_name.partition(".")[0] or not any(path.exists() for path in here):
            raise TaskError(f"the expert {name!r} cannot be imported: {error}") from None
        sys.path.insert(0, str(Path.cwd()))  # a script's own folder, as `python -m` would have it
        module = importlib.import_module(module_name)
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        close = difflib.get_close_matches(attribute, known, n=1)
        raise TaskError(
            f"{module_name} has no callable {attribute!r}" + (f"; did you mean {close[0]!r}?" if close else "")
        )
    return found
