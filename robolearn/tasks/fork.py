"""Fork: reach a goal behind a wall, by the left or by the right. Mode averaging made visible.

Demonstrators take either side at random. A policy that averages them drives into the wall and stays there.
"""

from __future__ import annotations

import torch

from robolearn.sim.base import Start
from robolearn.tasks.base import ASSETS, Sensors
from robolearn.tasks.draw import Draw
from robolearn.tasks.expert import ScriptedExpert, limit
from robolearn.tasks.planar import PlanarTask

_HALF_WIDTH_M = 0.10
_TOLERANCE_M = 0.02


class Fork(PlanarTask):
    """Success: the puck within 20 mm of the goal. Progress: 1 - tanh(3 distance)."""

    name = "Fork"
    summary = "reach a goal behind a wall, by the left or by the right: mode averaging made visible"
    mjcf = ASSETS / "fork.xml"
    max_steps = 120

    def start(self, draw: Draw) -> Start:
        puck = torch.cat((draw.uniform(0.10, 0.20), draw.uniform(-0.12, 0.12)), dim=-1)
        wall = torch.cat((draw.uniform(0.34, 0.42), draw.uniform(-0.08, 0.08)), dim=-1)
        goal = torch.cat((draw.uniform(0.54, 0.62), wall[:, 1:] + draw.uniform(-0.05, 0.05)), dim=-1)
        heights = torch.tensor([0.025, 0.001], dtype=puck.dtype, device=puck.device)
        planar = torch.stack((wall, goal), dim=1)
        mocap = torch.cat((planar, heights.expand(len(puck), 2)[..., None]), dim=-1)
        return Start(qpos=puck, ctrl=puck, mocap_pos=mocap)

    def observe(self, sensors: Sensors) -> dict[str, torch.Tensor]:
        puck = sensors.all(("pusher_x", "pusher_y"))
        wall, goal = sensors["wall_pos"][:, :2], sensors["goal_pos"][:, :2]
        return {
            "proprio": self.proprioception(sensors),
            "object": torch.cat((wall, wall - puck), dim=-1),
            "goal": torch.cat((goal, goal - puck), dim=-1),
        }

    def solved(self, sensors: Sensors) -> torch.Tensor:
        return self._distance(sensors) < _TOLERANCE_M

    def progress(self, sensors: Sensors) -> torch.Tensor:
        return 1.0 - torch.tanh(3.0 * self._distance(sensors))

    def expert(self, num_envs: int) -> ForkExpert:
        return ForkExpert(num_envs, 2, self.device)

    def _distance(self, sensors: Sensors) -> torch.Tensor:
        puck = sensors.all(("pusher_x", "pusher_y"))
        return torch.linalg.vector_norm(sensors["goal_pos"][:, :2] - puck, dim=-1)


class ForkExpert(ScriptedExpert):
    """Past a corner of the wall on the side drawn for the episode (or the side the puck is on already), then on."""

    def style(self, draw: Draw) -> None:
        self.side = torch.where(draw.unit(1)[:, 0] < 0.5, -1.0, 1.0)
        self._margin = draw.uniform(0.045, 0.08)[:, 0].float()
        self._pace = draw.uniform(0.5, 1.0).float()

    def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        puck, wall, goal = obs["proprio"][:, :2], obs["object"][:, :2], obs["goal"][:, :2]
        beyond = puck[:, 0] - wall[:, 0]
        sideways = puck[:, 1] - wall[:, 1]
        committed = (beyond > -0.05) & (sideways.abs() > 0.08)
        side = torch.where(committed, torch.sign(sideways), self.side.float())
        corner = torch.stack((wall[:, 0], wall[:, 1] + side * (_HALF_WIDTH_M + self._margin)), dim=-1)
        # Ahead of the wall aim at its near corner first, so that the straight line clears it.
        corner[:, 0] += torch.where(beyond < -0.06, -0.045, 0.05)
        past = beyond > 0.04
        target = torch.where(past[:, None], goal, corner)
        return limit(20.0 * (target - puck), self._pace)
