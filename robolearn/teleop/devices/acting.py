"""Devices that act on what is seen: the scripted expert, a saved policy, and a recorded episode."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robolearn.contract import reconcile, reconcile_actions
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.adapted import interface_of
from robolearn.envs.experts import make_expert
from robolearn.envs.interface import VectorEnv
from robolearn.errors import DeviceError
from robolearn.policies.folder import load_policy
from robolearn.teleop.devices.device import Command, hold


class ActingDevice:
    """Reads as the action for what was seen last."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self._action: np.ndarray | None = None
        self._seen_at = -math.inf

    @classmethod
    def missing(cls) -> str | None:
        """Return what is not there, in words; None where all is."""
        return None

    def connect(self) -> None:
        """Nothing to plug in."""

    def close(self) -> None:
        self._action = None

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        self._action = None

    def see(self, obs: Mapping[str, Tensor]) -> None:
        """Take (1, ...) observations, once for each control step, before `read`."""
        self._action, self._seen_at = self.act(obs), time.monotonic()

    def act(self, obs: Mapping[str, Tensor]) -> np.ndarray | None:
        """Return the action (A,) in [-1, 1]; None to hold still."""
        raise NotImplementedError

    def read(self) -> Command:
        """Return the action for what was seen last; hold still before anything was."""
        if self._action is None:
            return hold(self._seen_at)
        return Command(
            twist=np.zeros(6), gripper=None, buttons=(), engaged=True, sampled_at=self._seen_at, action=self._action
        )


class ExpertDevice(ActingDevice):
    """The task's scripted expert, or another one by name."""

    summary: ClassVar = "the task's scripted expert"
    needs: ClassVar = "a task with an expert"

    def __init__(self, env: VectorEnv, expert: str = "auto") -> None:
        super().__init__(env)
        self._expert = make_expert(expert, env)

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._expert.reset([seed])

    def act(self, obs: Mapping[str, Tensor]) -> np.ndarray:
        return self._expert.act(dict(obs))[0].cpu().numpy()


class PolicyDevice(ActingDevice):
    """A saved policy."""

    summary: ClassVar = "a saved policy"
    needs: ClassVar = "a policy folder"

    def __init__(self, env: VectorEnv, folder: str | Path, deterministic: bool = True) -> None:
        super().__init__(env)
        policy = load_policy(folder)
        self._actions = reconcile(policy.interface(f"the policy {folder}"), interface_of(env))
        self._runner = PolicyRunner(policy, 1, deterministic=deterministic, inference_rows=1)

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._runner.reset([seed])

    def act(self, obs: Mapping[str, Tensor]) -> np.ndarray:
        return self._actions(self._runner.act(obs))[0].cpu().numpy()


class ReplayDevice(ActingDevice):
    """The actions of a recorded episode; holds still after its last one."""

    summary: ClassVar = "the actions of a recorded episode"
    needs: ClassVar = "a dataset file"

    def __init__(self, env: VectorEnv, file: str | Path, episode: int | None = None) -> None:
        """
        Args:
            episode: its number in the file; None takes the one that was recorded from the session's seed.
        """
        super().__init__(env)
        with Dataset(file) as dataset:
            if episode is not None and not 0 <= episode < len(dataset):
                raise DeviceError(f"{file} holds the episodes 0 to {len(dataset) - 1}, received {episode}")
            self._by_seed = {info.seed: index for index, info in enumerate(dataset.info)}
            self._actions = reconcile_actions(dataset.interface(), interface_of(env))
        self._file, self._episode = file, episode
        self._rows: list[np.ndarray] = []

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds whose episodes the file holds."""
        return tuple(self._by_seed)

    def reset(self, seed: int) -> None:
        super().reset(seed)
        index = self._by_seed.get(seed) if self._episode is None else self._episode
        if index is None:
            raise DeviceError(f"{self._file} holds no episode of seed {seed}, but of {sorted(self._by_seed)[:20]}")
        with Dataset(self._file) as dataset:
            self._rows = list(dataset.arrays(index, ("actions",))["actions"][::-1])

    def act(self, obs: Mapping[str, Tensor]) -> np.ndarray | None:
        return self._actions(torch.from_numpy(self._rows.pop())).numpy() if self._rows else None
