"""Batched environments in a few lines of torch, whose values can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from robolearn.configuration.parts.algorithms import DQNConfig, PPOConfig, SACConfig, TD3Config
from robolearn.configuration.parts.policy import ActionValuesHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.rl import RLConfig
from robolearn.envs.interface import Observation, Step
from robolearn.policies.build import build_policy
from robolearn.policies.policy import Policy
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec
from tests.envs.toy import POINT_REACH


def small_run(
    algorithm: PPOConfig | SACConfig | TD3Config | DQNConfig,
    output: Path,
    env_steps: int = 160,
    *,
    task: str = POINT_REACH,
    num_envs: int = 2,
) -> RLConfig:
    """A run of seconds that evaluates and logs on its way and saves at its end."""
    return RLConfig(
        task=TaskConfig(id=task, worker_kind="sync"),
        algorithm=algorithm,
        output=str(output),
        env_steps=env_steps,
        num_envs=num_envs,
        eval_episodes=2,
        evaluate_every=64,
        log_every=32,
        checkpoint_every=0,
        tensorboard=False,
    )


def value_policy(size: int, actions: int, *, hidden: int) -> Policy:
    """A fresh policy of action values that sees `size` numbers, with one hidden layer."""
    config = PolicyConfig(backbone=MLPConfig(hidden_sizes=(hidden,)), head=ActionValuesHeadConfig())
    return build_policy(config, ObservationSpec({"state": ArraySpec(shape=(size,))}), ActionSpec.choices(actions))


class BatchedToy:
    """Base: state (N, S) float64 is a function of the seed and the actions alone."""

    state_size = 3
    control_hz = 10.0
    env_args: ClassVar[dict[str, Any]] = {"env_name": "toy", "type": 3, "env_kwargs": {}}

    def __init__(self, num_envs: int = 2, max_steps: int = 10) -> None:
        self.num_envs, self.max_steps = num_envs, max_steps
        self.device = torch.device("cpu")
        self.observation_spec = ObservationSpec({"state": ArraySpec(shape=(self.state_size,))})
        self.action_spec = ActionSpec(low=(-1.0,), high=(1.0,))
        self.state = torch.zeros(num_envs, self.state_size, dtype=torch.float64)
        self.age = torch.zeros(num_envs, dtype=torch.int64)
        self.seen_actions: list[torch.Tensor] = []

    def reset(self, seeds: Sequence[int] | None = None, mask: torch.Tensor | None = None) -> Observation:
        rows = range(self.num_envs) if mask is None else mask.nonzero()[:, 0].tolist()
        for i, seed in zip(rows, seeds if seeds is not None else range(len(rows)), strict=True):
            self.state[i], self.age[i] = self.begin(seed), 0
        return self.observe()

    def step(self, actions: torch.Tensor, mask: torch.Tensor | None = None) -> Step:
        assert actions.abs().max() <= 1.0
        assert actions.shape == (self.num_envs, self.action_spec.size)
        self.seen_actions.append(actions)
        mask = torch.ones(self.num_envs, dtype=torch.bool) if mask is None else mask
        self.age += mask
        self.state = torch.where(mask[:, None], self.move(self.state, actions.double()), self.state)
        reward, terminated, success = self.judge(self.state, actions)
        reward = torch.where(mask, reward, torch.nan)  # rows of resting environments are meaningless: poison them
        return Step(self.observe(), reward.float(), terminated, self.age >= self.max_steps, success)

    def observe(self) -> Observation:
        return {"state": self.state.float()}

    def begin(self, seed: int) -> torch.Tensor:
        raise NotImplementedError

    def move(self, state: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def judge(self, state: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raise NotImplementedError

    def scores(self) -> torch.Tensor | None:
        return None

    def get_states(self) -> np.ndarray | None:
        return None

    def set_states(self, states: np.ndarray, mask: torch.Tensor | None = None) -> Observation:
        raise NotImplementedError

    def render(self, index: int = 0) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None: ...


class Ledger(BatchedToy):
    """Observation (seed, step, sum of actions); reward = step; terminates after seed % 7 + 1 steps if that is even."""

    def begin(self, seed: int) -> torch.Tensor:
        return torch.tensor([float(seed), 0.0, 0.0], dtype=torch.float64)

    def move(self, state: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return state + torch.cat([torch.zeros_like(actions), torch.ones_like(actions), actions], 1)

    def judge(self, state: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        length = state[:, 0] % 7 + 1
        ended = (length % 2 == 0) & (state[:, 1] >= length)
        return state[:, 1], ended, ended


class Constant(BatchedToy):
    """Reward one for ever; only the time limit ends episodes: V = 1 / (1 - gamma) everywhere."""

    def begin(self, seed: int) -> torch.Tensor:
        return torch.zeros(3, dtype=torch.float64)

    def move(self, state: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return state

    def judge(self, state: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        never = torch.zeros(self.num_envs, dtype=torch.bool)
        return torch.ones(self.num_envs), never, never


class Mortal(Constant):
    """Reward one, and every episode terminates after one step: V = 1."""

    def judge(self, state: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        reward, never, success = super().judge(state, actions)
        return reward, ~never, success


class Steer(BatchedToy):
    """A point on a line moves by 0.2 a; solved within 0.1 of zero. Observation (x, x^2, 1)."""

    def begin(self, seed: int) -> torch.Tensor:
        x = np.random.default_rng(seed).uniform(-1.0, 1.0)
        return torch.tensor([x, x * x, 1.0], dtype=torch.float64)

    def move(self, state: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        x = (state[:, :1] + 0.2 * actions).clamp(-2.0, 2.0)
        return torch.cat([x, x * x, torch.ones_like(x)], 1)

    def judge(self, state: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        solved = state[:, 0].abs() < 0.1
        return solved.float() - state[:, 0].abs().float(), torch.zeros_like(solved), solved
