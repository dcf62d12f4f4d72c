"""PickPlace: put a cube into the bin that the observation names."""

from __future__ import annotations

import math

import torch

from robolearn.sim.simulation import Start
from robolearn.tasks.arm.arm_task import ArmTask, on_table
from robolearn.tasks.arm.lift import HALF_CUBE_M, LiftExpert, body_yaw, reaching
from robolearn.tasks.arrays import closeness, joined, length, tensor
from robolearn.tasks.draw import Draw
from robolearn.tasks.scripted import Tool
from robolearn.tasks.task import ASSETS, Sensors

BINS = ((0.35, 0.2), (0.47, 0.2), (0.59, 0.2))
"""Centres of the bins as in the MJCF, metres."""
_HALF_BIN_M = 0.04
_FULLY_OPEN_M = 0.025


class PickPlace(ArmTask):
    """Success: the cube lies in the goal's bin and the gripper has let go. Progress: a quarter for reaching the cube,
    three quarters for its way to the bin."""

    name = "PickPlace"
    summary = "put a cube into one of three bins; the goal is in the observation"
    mjcf = ASSETS / "pick_place.xml"
    max_steps = 250
    random_friction = ("cube", "pad_left", "pad_right", "table")
    random_mass = ("cube",)

    def start(self, draw: Draw) -> Start:
        cube = on_table(draw, (0.34, 0.60), (-0.26, 0.08), HALF_CUBE_M, math.pi)
        bins = torch.tensor([(x, y, 0.0) for x, y in BINS], dtype=cube.dtype, device=self.device)
        return self.arm_start(draw, cube, mocap_pos=bins[draw.integer(len(BINS))][:, None])

    def observe(self, sensors: Sensors) -> dict[str, torch.Tensor]:
        goal, cube = sensors.array("goal_pos"), sensors.array("cube_pos")
        return {
            "proprio": self.proprioception(sensors),
            "object": tensor(self.cube_observation(sensors, "cube")),
            "goal": tensor(joined(goal, goal - cube)),
        }

    def solved(self, sensors: Sensors) -> torch.Tensor:
        offset = sensors.array("cube_pos") - sensors.array("goal_pos")
        inside = (abs(offset[:, :2]) < _HALF_BIN_M).all(-1) & (offset[:, 2] < 2.0 * HALF_CUBE_M)
        return tensor(inside & (sensors.array("finger_left")[:, 0] > _FULLY_OPEN_M))

    def progress(self, sensors: Sensors) -> torch.Tensor:
        distance = length(sensors.array("goal_pos") - sensors.array("cube_pos"))[:, 0]
        return tensor(0.25 * reaching(sensors, "cube") + 0.75 * closeness(distance))

    def expert(self, num_envs: int) -> PickPlaceExpert:
        return PickPlaceExpert(num_envs, self.action_spec.size, self.device)


class PickPlaceExpert(LiftExpert):
    """Grasp, carry above the bin, lower, let go."""

    def style(self, draw: Draw) -> None:
        super().style(draw)
        self._carry = draw.uniform(0.11, 0.18)[:, 0].float()
        self._aim = torch.cat((draw.uniform(-0.02, 0.02, 2), draw.uniform(0.05, 0.08)), dim=-1).float()

    def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        tool, cube = Tool.read(obs), obs["object"][:, :3]
        drop = obs["goal"][:, :3] + self._aim
        goal, yaw, close, held = self.grasp(tool, cube, body_yaw(obs["object"]))
        carry, arrived = carry_to(cube, drop, self._carry)
        goal = torch.where(held[:, None], tool.position + carry - cube, goal)
        inside = (cube - obs["goal"][:, :3])[:, :2].abs().amax(dim=-1) < _HALF_BIN_M
        letting_go = inside & (arrived | ~held | (tool.opening > _FULLY_OPEN_M))
        goal[:, 2] = torch.where(letting_go & ~arrived, tool.position[:, 2] + 0.05, goal[:, 2])
        return self.move(tool, goal, yaw, close & ~letting_go)


def carry_to(body: torch.Tensor, goal: torch.Tensor, height: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the next goal (N, 3) of a held body on its way up, across and down, and whether it has arrived (N,) bool.

    Args:
        goal: (N, 3), where to let go.
        height: (N,) at which to cross.
    """
    across = torch.linalg.vector_norm((goal - body)[:, :2], dim=-1)
    above = torch.clamp(3.0 * (across - 0.01), min=0.0)
    z = torch.minimum(goal[:, 2] + above, torch.maximum(height, goal[:, 2]))
    # Cross only once high enough: the way across is scaled by how much of the height is reached.
    ready = torch.clamp((body[:, 2] - 0.5 * z) / (0.4 * z), 0.0, 1.0)
    target = torch.cat((body[:, :2] + ready[:, None] * (goal - body)[:, :2], z[:, None]), dim=-1)
    return target, (across < 0.015) & (body[:, 2] < goal[:, 2] + 0.015)
