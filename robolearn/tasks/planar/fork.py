"""Fork: reach a goal behind a wall, by the left or by the right. Mode averaging made visible.

Demonstrators take either side at random, and late. A policy that averages them drives straight into the wall.
"""

from __future__ import annotations

from functools import cached_property

import torch

from robolearn.sim.simulation import Start
from robolearn.tasks.arrays import Array, constant, joined, length, namespace, tensor
from robolearn.tasks.draw import Draw
from robolearn.tasks.planar.planar_task import PlanarTask
from robolearn.tasks.scripted import ScriptedExpert, limit
from robolearn.tasks.task import ASSETS, Sensors

_WALL_M, _PUCK_M = (0.02, 0.03), 0.018
"""Half sizes of the wall, and the puck's radius."""
_TOLERANCE_M = 0.02


class Fork(PlanarTask):
    """Success: the puck within 20 mm of the goal. Touching the wall ends the episode. Progress: 1 - tanh(3 distance).

    Wall and goal stand still, so that a hundred demonstrations crowd before the wall: were every scene another, a
    regressor could learn by heart which side went with which.
    """

    name = "Fork"
    summary = "reach a goal behind a wall, by the left or by the right: mode averaging made visible"
    mjcf = ASSETS / "fork.xml"
    max_steps = 120

    def start(self, draw: Draw) -> Start:
        puck = torch.cat((draw.uniform(0.05, 0.12), draw.uniform(-0.18, 0.18)), dim=-1)
        return Start(qpos=puck, ctrl=puck)

    def observe(self, sensors: Sensors) -> dict[str, torch.Tensor]:
        puck = self._puck(sensors)
        wall, goal = sensors.array("wall_pos")[:, :2], sensors.array("goal_pos")[:, :2]
        return {
            "proprio": self.proprioception(sensors),
            "object": tensor(joined(wall, wall - puck)),
            "goal": tensor(joined(goal, goal - puck)),
        }

    def solved(self, sensors: Sensors) -> torch.Tensor:
        return tensor(self._distance(sensors) < _TOLERANCE_M)

    def failed(self, sensors: Sensors) -> torch.Tensor:
        beyond = abs(self._puck(sensors) - sensors.array("wall_pos")[:, :2]) - self._wall
        return tensor(length(beyond.clip(0.0, None))[:, 0] < _PUCK_M + 0.001)

    def progress(self, sensors: Sensors) -> torch.Tensor:
        distance = self._distance(sensors)
        return tensor(1.0 - namespace(distance).tanh(3.0 * distance))

    def expert(self, num_envs: int) -> ForkExpert:
        return ForkExpert(num_envs, 2, self.device)

    @cached_property
    def _wall(self) -> Array:
        return constant(_WALL_M, self.device)

    def _distance(self, sensors: Sensors) -> Array:
        """Return (N,) metres."""
        return length(sensors.array("goal_pos")[:, :2] - self._puck(sensors))[:, 0]


class ForkExpert(ScriptedExpert):
    """Up to the wall in a lane of its own, then round the wall on the side drawn for the episode (or already taken)."""

    def style(self, draw: Draw) -> None:
        self.side = torch.where(draw.unit(1)[:, 0] < 0.5, -1.0, 1.0)
        self._clear = _WALL_M[1] + _PUCK_M + draw.uniform(0.035, 0.05)[:, 0].float()
        self._turn = draw.uniform(0.12, 0.125)[:, 0].float()
        self._lane = draw.uniform(-0.035, 0.035)[:, 0].float()
        self._pace = draw.uniform(0.5, 1.0).float()

    def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        x, y = (-obs["object"][:, 2:]).unbind(-1)  # of the puck, from the middle of the wall
        side = torch.where((y.abs() > 0.06) & (x > -0.1), torch.sign(y), self.side.float())
        turned = x > -self._turn
        lane = torch.where(turned, side * self._clear, self._lane)
        # A puck that has turned must be in its lane before it is beside the wall.
        onwards = torch.where(turned, (-0.05 - x).clamp_min(0.0), 0.04)
        onwards = torch.where((lane - y).abs() < 0.01, 0.06, onwards)
        past = (x > 0.045)[:, None]
        return limit(20.0 * torch.where(past, obs["goal"][:, 2:], torch.stack((onwards, lane - y), -1)), self._pace)
