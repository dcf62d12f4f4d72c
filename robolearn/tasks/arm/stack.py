"""Stack: put one cube on another and let go. Precision, and a longer horizon than Lift."""

from __future__ import annotations

import math

import torch

from robolearn.sim.simulation import Start
from robolearn.tasks.arm.arm_task import ArmTask, on_table
from robolearn.tasks.arm.lift import HALF_CUBE_M, LiftExpert, body_yaw, reaching
from robolearn.tasks.arm.pick_place import carry_to
from robolearn.tasks.arrays import closeness, joined, length, tensor
from robolearn.tasks.draw import Draw
from robolearn.tasks.scripted import Tool
from robolearn.tasks.task import ASSETS, Sensors

_HALF_BASE_M = 0.022
_STACKED_M = HALF_CUBE_M + _HALF_BASE_M
_SIDEWAYS_M, _VERTICAL_M = 0.015, 0.006
_FULLY_OPEN_M = 0.025


class Stack(ArmTask):
    """Success: the red cube rests on the green one, centres within 15 mm, and the gripper has let go. Progress: a
    quarter for reaching the red cube, three quarters for its way to its place."""

    name = "Stack"
    summary = "put a cube on a cube: precision and a long horizon"
    mjcf = ASSETS / "stack.xml"
    max_steps = 250
    random_friction = ("cube", "base_cube", "pad_left", "pad_right", "table")
    random_mass = ("cube", "base_cube")

    def start(self, draw: Draw) -> Start:
        cube = on_table(draw, (0.34, 0.60), (0.05, 0.24), HALF_CUBE_M, math.pi)
        base = on_table(draw, (0.34, 0.60), (0.05, 0.24), _HALF_BASE_M, math.pi)
        side = torch.where(draw.unit(1)[:, 0] < 0.5, -1.0, 1.0)
        cube[:, 1] *= side
        base[:, 1] *= -side
        return self.arm_start(draw, cube, base)

    def observe(self, sensors: Sensors) -> dict[str, torch.Tensor]:
        base = self.cube_observation(sensors, "base")
        objects = (self.cube_observation(sensors, "cube"), base[:, :9], base[:, :3] - sensors.array("cube_pos"))
        return {"proprio": self.proprioception(sensors), "object": tensor(joined(*objects))}

    def solved(self, sensors: Sensors) -> torch.Tensor:
        offset = sensors.array("cube_pos") - sensors.array("base_pos")
        centred = length(offset[:, :2])[:, 0] < _SIDEWAYS_M
        resting = abs(offset[:, 2] - _STACKED_M) < _VERTICAL_M
        return tensor(centred & resting & (sensors.array("finger_left")[:, 0] > _FULLY_OPEN_M))

    def progress(self, sensors: Sensors) -> torch.Tensor:
        way = sensors.array("base_pos") - sensors.array("cube_pos")
        way[:, 2] += _STACKED_M
        return tensor(0.25 * reaching(sensors, "cube") + 0.75 * closeness(length(way)[:, 0]))

    def expert(self, num_envs: int) -> StackExpert:
        return StackExpert(num_envs, self.action_spec.size, self.device)


class StackExpert(LiftExpert):
    """Grasp, carry above the other cube, turn to match it, lower, let go."""

    def style(self, draw: Draw) -> None:
        super().style(draw)
        self._carry = draw.uniform(0.12, 0.18)[:, 0].float()
        self._gap = draw.uniform(0.001, 0.004)[:, 0].float()

    def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        tool, cube, base = Tool.read(obs), obs["object"][:, :3], obs["object"][:, 12:15]
        place = base.clone()
        place[:, 2] += _STACKED_M + self._gap
        goal, yaw, close, held = self.grasp(tool, cube, body_yaw(obs["object"]))
        offset = (cube - base)[:, :2]
        on_top = (torch.linalg.vector_norm(offset, dim=-1) < 0.010) & (cube[:, 2] - place[:, 2] < 0.004)
        on_top &= cube[:, 2] > base[:, 2] + 0.5 * _STACKED_M
        carry, _ = carry_to(cube, place, self._carry)
        goal = torch.where(held[:, None], tool.position + carry - cube, goal)
        yaw = torch.where(held, body_yaw(obs["object"][:, 12:]), yaw)
        released = on_top & (tool.opening > _FULLY_OPEN_M)
        goal[:, 2] = torch.where(released, tool.position[:, 2] + 0.05, goal[:, 2])
        goal[:, :2] = torch.where(on_top[:, None], tool.position[:, :2], goal[:, :2])
        return self.move(tool, goal, yaw, close & ~on_top)
