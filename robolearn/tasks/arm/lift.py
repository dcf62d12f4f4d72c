"""Lift: grasp a cube lying anywhere, at any heading, and lift it."""

from __future__ import annotations

import math

import torch

from robolearn.sim.simulation import Start
from robolearn.tasks.arm.arm_task import ArmTask, on_table
from robolearn.tasks.arrays import Array, closeness, length, tensor
from robolearn.tasks.draw import Draw
from robolearn.tasks.scripted import ArmExpert, Tool, funnel, nearest_symmetric
from robolearn.tasks.task import ASSETS, Sensors

HALF_CUBE_M = 0.02
_LIFTED_M = 0.10


class Lift(ArmTask):
    """Success: the cube 10 cm above the table. Progress: half for reaching the cube, half for its height."""

    name = "Lift"
    summary = "grasp and lift a cube at a random pose"
    mjcf = ASSETS / "lift.xml"
    max_steps = 200
    random_friction = ("cube", "pad_left", "pad_right", "table")
    random_mass = ("cube",)

    def start(self, draw: Draw) -> Start:
        return self.arm_start(draw, on_table(draw, (0.34, 0.60), (-0.24, 0.24), HALF_CUBE_M, math.pi))

    def observe(self, sensors: Sensors) -> dict[str, torch.Tensor]:
        return {"proprio": self.proprioception(sensors), "object": tensor(self.cube_observation(sensors, "cube"))}

    def solved(self, sensors: Sensors) -> torch.Tensor:
        return tensor(sensors.array("cube_pos")[:, 2] > HALF_CUBE_M + _LIFTED_M)

    def progress(self, sensors: Sensors) -> torch.Tensor:
        height = ((sensors.array("cube_pos")[:, 2] - HALF_CUBE_M) / _LIFTED_M).clip(0.0, 1.0)
        return tensor(0.5 * reaching(sensors, "cube") + 0.5 * height)

    def expert(self, num_envs: int) -> LiftExpert:
        return LiftExpert(num_envs, self.action_spec.size, self.device)


class LiftExpert(ArmExpert):
    """Down a funnel onto the cube, close, up."""

    slip = 0.012
    """Vertical distance, in metres, that what is held may have from the tool."""

    def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        tool, cube = Tool.read(obs), obs["object"][:, :3]
        goal, yaw, close, held = self.grasp(tool, cube, body_yaw(obs["object"]))
        goal[:, 2] = torch.where(held, tool.position[:, 2] + 0.1, goal[:, 2])
        return self.move(tool, goal, yaw, close)

    def grasp(
        self, tool: Tool, cube: torch.Tensor, cube_yaw: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return how to take a cube: goal (N, 3), yaw (N,), close (N,) bool, and whether it is held (N,) bool."""
        yaw = nearest_symmetric(cube_yaw, tool.yaw, math.pi / 2)
        offset = cube - tool.position
        beside = torch.linalg.vector_norm(offset[:, :2], dim=-1)
        turned = (yaw - tool.yaw).abs()
        near = (beside < 0.012) & (offset[:, 2].abs() < 0.012) & (turned < 0.15)
        around = (beside < 0.02) & (offset[:, 2].abs() < self.slip)
        held = around & tool.holding
        closing = around & (tool.opening < 0.037)
        close = self.wait(near) | closing | held
        goal = cube.clone()
        goal[:, 2] += funnel(beside + 0.1 * torch.clamp(turned - 0.1, min=0.0), self.hover)
        return goal, yaw, close, held


def body_yaw(observation: torch.Tensor) -> torch.Tensor:
    """Return (N,) heading in radians, from the observation of a body."""
    return torch.atan2(observation[:, 4], observation[:, 3])


def reaching(sensors: Sensors, name: str) -> Array:
    """Return (N,) in [0, 1], a light array: closeness of the tool to a body."""
    return closeness(length(sensors.array(f"{name}_pos") - sensors.array("tcp_pos"))[:, 0])
