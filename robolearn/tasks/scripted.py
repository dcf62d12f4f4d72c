"""Scripted experts: batched functions of the observation, with the variety of a person.

An expert's plan is geometric (where the tool should go from here), not a schedule, so it can be asked at states it
did not bring about. Per episode it draws a style from the episode's seed: speed, height and bow of the approach,
pauses, tremor and drift of the hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from robolearn.tasks.draw import Draw, noise
from robolearn.tasks.rotations import wrap

_STYLE, _TREMOR = 101, 102  # streams of randomness that nothing else uses


class ScriptedExpert(ABC):
    """See `robolearn.envs.interface.Expert`. Subclasses say what an episode draws (`style`) and what to do (`plan`)."""

    tremor: tuple[float, float] = (0.02, 0.10)
    """Range of the standard deviation of white action noise, drawn per episode."""
    drift: tuple[float, float] = (0.0, 0.10)
    """Range of the amplitude of slow, smooth action noise, drawn per episode."""

    def __init__(self, num_envs: int, action_size: int, device: torch.device):
        self.num_envs, self.action_size, self.device = num_envs, action_size, device
        self._seeds = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.step = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._restyle()

    def reset(self, seeds: Sequence[int], mask: torch.Tensor | None = None) -> None:
        chosen = torch.ones_like(self._seeds, dtype=torch.bool) if mask is None else mask
        self._seeds[chosen] = torch.as_tensor(list(seeds), dtype=torch.int64, device=self.device)
        self.step[chosen] = 0
        self._restyle()
        self.forget(chosen)

    def act(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        actions = self.plan(obs) + self._hand_noise()
        self.step += 1
        return torch.clamp(actions, -1.0, 1.0).float()

    @abstractmethod
    def style(self, draw: Draw) -> None:
        """Draw what makes this episode's way of doing it; called for all episodes, deterministic in their seeds."""

    @abstractmethod
    def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return (N, A) actions before the hand's noise; values beyond [-1, 1] are clipped."""

    def forget(self, mask: torch.Tensor) -> None:  # noqa: B027 (most experts remember nothing)
        """Clear what the expert remembers of the masked episodes."""

    def noise_scale(self) -> torch.Tensor | float:
        """Return (N, A) or a number by which the hand's noise is multiplied at this step."""
        return 1.0

    def _restyle(self) -> None:
        draw = Draw(self._seeds, _STYLE)
        self._tremor = draw.uniform(*self.tremor)
        self._drift = draw.uniform(*self.drift)
        self._frequency = draw.uniform(0.03, 0.25, self.action_size)
        self._phase = draw.uniform(0.0, 6.2832, self.action_size)
        self.style(draw)

    def _hand_noise(self) -> torch.Tensor:
        tremor = self._tremor * noise(self._seeds, self.step, self.action_size, _TREMOR)
        drift = self._drift * torch.sin(self._frequency * self.step[:, None] + self._phase)
        return (tremor + drift) * self.noise_scale()


@dataclass(frozen=True)
class Tool:
    """The arm's proprioception by name; see `ArmTask.proprioception`."""

    position: torch.Tensor
    """(N, 3) metres."""
    yaw: torch.Tensor
    """(N,) radians."""
    opening: torch.Tensor
    """(N,) metres of travel of one finger."""
    holding: torch.Tensor
    """(N,) bool: both fingertips feel something."""

    @classmethod
    def read(cls, obs: dict[str, torch.Tensor]) -> Tool:
        p = obs["proprio"]
        return cls(p[:, :3], torch.atan2(p[:, 4], p[:, 3]), p[:, 5], (p[:, 6:8] > 0.05).all(dim=-1))


class ArmExpert(ScriptedExpert):
    """Moves the tool to a goal pose at a pace and with a bow drawn per episode."""

    pace: tuple[float, float] = (0.55, 1.0)

    def __init__(self, num_envs: int, action_size: int, device: torch.device):
        super().__init__(num_envs, action_size, device)
        self.waited = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """(N,) steps that an episode has been ready to close the gripper."""

    def style(self, draw: Draw) -> None:
        self._pace = draw.uniform(*self.pace)
        self._bow = draw.uniform(-0.35, 0.35)[:, 0].float()
        self.hover = draw.uniform(0.06, 0.13)[:, 0].float()
        self.patience = draw.integer(6)

    def forget(self, mask: torch.Tensor) -> None:
        self.waited[mask] = 0

    def move(self, tool: Tool, goal: torch.Tensor, yaw: torch.Tensor, close: torch.Tensor) -> torch.Tensor:
        """Return (N, 5) actions towards `goal` (N, 3), `yaw` (N,), with the gripper closed where `close` (N,) bool."""
        offset = goal - tool.position
        distance = torch.linalg.vector_norm(offset[:, :2], dim=-1)
        # A bow: far from the goal the hand aims beside it, by a share of the distance that vanishes on arrival.
        side = torch.stack((-offset[:, 1], offset[:, 0], torch.zeros_like(distance)), dim=-1)
        bow = self._bow * torch.clamp(4.0 * (distance - 0.03), 0.0, 1.0)
        speed = limit(25.0 * (offset + bow[:, None] * side), self._pace)
        turn = torch.clamp(4.0 * wrap(yaw - tool.yaw), -1.0, 1.0)
        grip = torch.where(close, 1.0, -1.0)
        return torch.cat((speed, turn[:, None], grip[:, None]), dim=-1)

    def wait(self, ready: torch.Tensor) -> torch.Tensor:
        """Return (N,) bool: true once `ready` has been true for as many steps in a row as this episode is patient."""
        self.waited = torch.where(ready, self.waited + 1, 0)
        return self.waited > self.patience


def limit(vector: torch.Tensor, length: torch.Tensor | float) -> torch.Tensor:
    """Shorten (N, D) vectors to at most `length` ((N, 1) or a number)."""
    norm = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return vector * torch.clamp(length / (norm + 1e-9), max=1.0)


def funnel(distance: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
    """Return (N,) height above the goal at which to be at this horizontal distance: zero near, `height` from afar."""
    return torch.minimum(6.0 * torch.clamp(distance - 0.006, min=0.0), height)


def nearest_symmetric(yaw: torch.Tensor, current: torch.Tensor, period: float) -> torch.Tensor:
    """Return (N,) the equivalent of `yaw` (modulo `period`) closest to `current`."""
    return current + wrap(yaw - current, period)
