"""PushT: push a T-shaped block onto its outline, many ways to do it.

Shape, score (the covered share of the outline over 0.95, at most 1) and threshold are those of the Diffusion Policy
benchmark (Chi et al. 2023), which took the task from Implicit Behavioral Cloning (Florence et al. 2021); the physics
here is MuJoCo's.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from robolearn.sim.simulation import Start
from robolearn.tasks.arrays import columns, joined, namespace, tensor
from robolearn.tasks.draw import Draw
from robolearn.tasks.planar.coverage import coverage
from robolearn.tasks.planar.planar_task import PlanarTask
from robolearn.tasks.planar.push_t_expert import PushTExpert
from robolearn.tasks.rotations import quat_yaw, wrap, yaw_to_quat
from robolearn.tasks.task import ASSETS, Sensors

_SOLVED = 0.95
_NEAR_M = 0.02
"""No T is solved whose centre of mass is farther from the goal's: at most 5% of either lie outside the other, so that
the centres differ by 5% of the distance between points of the two at most, which is twice 170 mm since they overlap."""
_GOAL = (0.36, 0.0, 0.0005)
_GOAL_YAW = math.pi / 4


class PushT(PlanarTask):
    """Success: 95% of the outline covered. Progress: coverage / 0.95."""

    name = "PushT"
    summary = "push a T onto its outline: planar pushing, many ways to do it"
    mjcf = ASSETS / "push_t.xml"
    max_steps = 600
    random_friction = ("bar", "stem", "table", "pusher")
    random_mass = ("tee",)

    def start(self, draw: Draw) -> Start:
        tee = torch.cat((draw.uniform(0.25, 0.46), draw.uniform(-0.18, 0.18)), dim=-1)
        yaw = draw.uniform(-math.pi, math.pi)
        bearing, distance = draw.uniform(-math.pi, math.pi), draw.uniform(0.13, 0.17)
        puck = tee + distance * torch.cat((torch.cos(bearing), torch.sin(bearing)), dim=-1)
        goal = torch.tensor(_GOAL, dtype=tee.dtype, device=tee.device).expand(len(tee), 1, 3)
        quat = yaw_to_quat(torch.full_like(yaw, _GOAL_YAW))
        qpos = torch.cat((puck, tee, torch.zeros_like(yaw), yaw), dim=-1)
        return Start(qpos=qpos, ctrl=puck, mocap_pos=goal, mocap_quat=quat)

    def observe(self, sensors: Sensors) -> dict[str, torch.Tensor]:
        tee, yaw = sensors.array("tee_pos")[:, :2], quat_yaw(sensors.array("tee_quat"))
        goal, goal_yaw = sensors.array("goal_pos")[:, :2], quat_yaw(sensors.array("goal_quat"))
        error, xp = wrap(goal_yaw - yaw), namespace(yaw)
        direction, turn = columns((xp.cos(yaw), xp.sin(yaw))), columns((xp.cos(error), xp.sin(error)))
        return {
            "proprio": self.proprioception(sensors),
            "object": tensor(joined(tee, direction, tee - self._puck(sensors))),
            "goal": tensor(joined(goal, goal - tee, turn)),
        }

    def score(self, sensors: Sensors) -> torch.Tensor:
        return torch.clamp(self.covered(sensors) / _SOLVED, max=1.0)

    def covered(self, sensors: Sensors) -> torch.Tensor:
        """Return the share of the outline that is covered, (N,) in [0, 1]."""
        tee, goal = (sensors[name][:, :2] for name in ("tee_pos", "goal_pos"))
        yaw, goal_yaw = (tensor(quat_yaw(sensors.array(name))) for name in ("tee_quat", "goal_quat"))
        return coverage(tee, yaw, goal, goal_yaw)

    def solved(self, sensors: Sensors) -> torch.Tensor:
        way = sensors.array("tee_pos")[:, :2] - sensors.array("goal_pos")[:, :2]
        near = (way * way).sum(-1) < _NEAR_M**2
        if isinstance(near, np.ndarray):  # a GPU would be waited for, and has hardly less to do
            if near.any():
                near[near] = self.covered(sensors.of_worlds(near)).numpy() >= _SOLVED
            return tensor(near)
        return near & (self.covered(sensors) >= _SOLVED)

    def progress(self, sensors: Sensors) -> torch.Tensor:
        return self.score(sensors)

    def expert(self, num_envs: int) -> PushTExpert:
        return PushTExpert(num_envs, 2, self.device)
