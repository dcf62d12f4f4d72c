"""An environment under other names and in other units: what lets a policy or a file of another road into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch

from robolearn.configuration.parts.task import environment_name
from robolearn.contract import ActionMap, Interface, reconcile
from robolearn.envs.interface import Actor, Observation, Step, VectorEnv, discrete_actions
from robolearn.errors import TaskError
from robolearn.specs import ActionSpec, ObservationSpec


def renamed(env: VectorEnv, names: Mapping[str, str]) -> VectorEnv:
    """Return `env` with observation keys under other names.

    Args:
        names: the environment's own key -> the name that it goes by.

    Raises TaskError where a key is not observed, or two would go by one name.
    """
    if not names:
        return env
    spec = env.observation_spec
    if missing := [key for key in names if key not in spec]:
        raise TaskError(
            f"rename {dict(names)}: {missing[0]!r} is not observed; this environment observes {', '.join(spec)}. "
            "The task's own name comes first: --task.rename '{own: other}'"
        )
    found = [names.get(key, key) for key in spec]
    if double := next((name for name in found if found.count(name) > 1), None):
        raise TaskError(f"rename {dict(names)}: two observations would be called {double!r}; rename the other, too")
    return AdaptedEnv(env, names=names)


def fitted(env: VectorEnv, needs: Interface) -> VectorEnv:
    """Return `env` as a policy or a file knows it: the same, or one that takes actions in units of the other limits, or
    preferences for discrete ones.

    Raises PolicyError where the two are not for each other; see `robolearn.contract.reconcile`.
    """
    actions = reconcile(needs, interface_of(env))
    if needs.action_spec.discrete:
        return ChoosingEnv(env, action_spec=needs.action_spec)
    return env if actions.is_identity else AdaptedEnv(env, action_spec=needs.action_spec, actions=actions)


def interface_of(env: VectorEnv) -> Interface:
    """Return what an environment offers and takes."""
    name, choices = f"the task {environment_name(env.env_args)}", discrete_actions(env)
    actions = env.action_spec if choices is None else ActionSpec.choices(choices)
    return Interface(name=name, observation_spec=env.observation_spec, action_spec=actions)


class AdaptedEnv(VectorEnv):
    """Another environment, its observation keys renamed and its actions mapped through physical units."""

    def __init__(
        self,
        env: VectorEnv,
        *,
        names: Mapping[str, str] | None = None,
        action_spec: ActionSpec | None = None,
        actions: ActionMap | None = None,
    ) -> None:
        """
        Args:
            names: own key -> other name.
            action_spec: limits that actions in [-1, 1] are meant in; None leaves those of `env`.
            actions: from these limits to those of `env`.
        """
        self.inner, self.names = env, dict(names or {})
        self._action_spec, self._actions = action_spec, actions

    @property
    def num_envs(self) -> int:
        return self.inner.num_envs

    @property
    def device(self) -> torch.device:
        return self.inner.device

    @property
    def observation_spec(self) -> ObservationSpec:
        return ObservationSpec({self.names.get(key, key): spec for key, spec in self.inner.observation_spec.items()})

    @property
    def action_spec(self) -> ActionSpec:
        return self.inner.action_spec if self._action_spec is None else self._action_spec

    @property
    def discrete_actions(self) -> int | None:
        """Number of discrete actions; None where actions are continuous."""
        return discrete_actions(self.inner)

    @property
    def control_hz(self) -> float:
        return self.inner.control_hz

    @property
    def max_steps(self) -> int:
        return self.inner.max_steps

    @property
    def env_args(self) -> dict[str, Any]:
        args = self.inner.env_args
        if not self.names:
            return args
        return args | {"robolearn": {**args.get("robolearn", {}), "rename": dict(self.names)}}

    @property
    def model_xml(self) -> str | None:
        return self.inner.model_xml

    def reset(self, seeds: Sequence[int] | None = None, mask: torch.Tensor | None = None) -> Observation:
        return self._renamed(self.inner.reset(seeds, mask))

    def step(self, actions: torch.Tensor, mask: torch.Tensor | None = None) -> Step:
        step = self.inner.step(actions if self._actions is None else self._actions(actions), mask)
        return replace(step, obs=self._renamed(step.obs))

    def scores(self) -> torch.Tensor | None:
        return self.inner.scores()

    def get_states(self) -> np.ndarray | None:
        return self.inner.get_states()

    def set_states(self, states: np.ndarray, mask: torch.Tensor | None = None) -> Observation:
        return self._renamed(self.inner.set_states(states, mask))

    def render(self, index: int = 0) -> np.ndarray:
        return self.inner.render(index)

    def world(self, index: int = 0) -> tuple[Any, Any] | None:
        return self.inner.world(index)

    def close(self) -> None:
        self.inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def own_names(self, obs: Observation) -> Observation:
        """Return an observation under the keys that the task itself gives them."""
        own = {self.names.get(key, key): key for key in self.inner.observation_spec}
        return {own[key]: value for key, value in obs.items()}

    def from_own_units(self, actions: torch.Tensor) -> torch.Tensor:
        """Map actions in the limits of the task to these limits, (..., A)."""
        return actions if self._actions is None else self._actions.inverse(actions)

    def _renamed(self, obs: Observation) -> Observation:
        return {self.names.get(key, key): value for key, value in obs.items()}


class ChoosingEnv(AdaptedEnv):
    """An environment of discrete actions that takes preferences, (N, A), and does what is preferred most."""

    @property
    def discrete_actions(self) -> None:
        """None: actions are numbers here."""
        return None

    def step(self, actions: torch.Tensor, mask: torch.Tensor | None = None) -> Step:
        return super().step(actions.argmax(-1), mask)


class AdaptedExpert:
    """An expert of the environment within, who sees and acts as the task does."""

    def __init__(self, expert: Actor, env: AdaptedEnv) -> None:
        self._expert, self._env = expert, env

    def reset(self, seeds: Sequence[int], mask: torch.Tensor | None = None) -> None:
        self._expert.reset(seeds, mask)

    def act(self, obs: Observation) -> torch.Tensor:
        return self._env.from_own_units(self._expert.act(self._env.own_names(obs)))
