"""PegInsert: pull a peg out of its stand and insert it into a hole with 0.8 mm of clearance."""

from __future__ import annotations

import math
from functools import cached_property

import torch

from robolearn.sim.simulation import Start
from robolearn.tasks.arm.arm_task import ArmTask, body_observation
from robolearn.tasks.arm.lift import LiftExpert, body_yaw, reaching
from robolearn.tasks.arrays import Array, closeness, constant, joined, length, tensor
from robolearn.tasks.draw import Draw
from robolearn.tasks.rotations import yaw_to_quat
from robolearn.tasks.scripted import Tool
from robolearn.tasks.task import ASSETS, Sensors

BLOCK_HEIGHT_M = 0.055
_STANDING_Z_M = BLOCK_HEIGHT_M + 0.0205
_DEPTH_M = 0.030
_SIDEWAYS_M = 0.004


class PegInsert(ArmTask):
    """Success: the peg's tip 30 mm deep in the hole. Progress: a fifth for reaching the peg, three fifths for the tip's
    way to the hole's mouth, a fifth for the depth."""

    name = "PegInsert"
    summary = "peg into a hole with 0.8 mm clearance on a radius of 8 mm: contact-rich, the headline task"
    mjcf = ASSETS / "peg_insert.xml"
    max_steps = 300
    random_friction = ("handle", "shaft", "tip", "pad_left", "pad_right")
    random_mass = ("peg",)

    def start(self, draw: Draw) -> Start:
        side = torch.where(draw.unit(1) < 0.5, -1.0, 1.0)
        peg_xy = torch.cat((draw.uniform(0.36, 0.58), side * draw.uniform(0.06, 0.22)), dim=-1)
        hole_xy = torch.cat((draw.uniform(0.36, 0.58), -side * draw.uniform(0.06, 0.22)), dim=-1)
        yaw = draw.uniform(-0.6, 0.6, 3)
        wobble = draw.uniform(-0.0015, 0.0015, 2)
        zero = torch.zeros_like(side)
        peg = torch.cat((peg_xy + wobble, zero + _STANDING_Z_M, yaw_to_quat(yaw[:, 0])), dim=-1)
        blocks = torch.stack((torch.cat((peg_xy, zero), -1), torch.cat((hole_xy, zero), -1)), dim=1)
        return self.arm_start(draw, peg, mocap_pos=blocks, mocap_quat=yaw_to_quat(yaw[:, 1:]))

    def observe(self, sensors: Sensors) -> dict[str, torch.Tensor]:
        goal, tip = self._mouth(sensors), sensors.array("tip_pos")
        return {
            "proprio": self.proprioception(sensors),
            "object": tensor(joined(body_observation(sensors, "peg"), tip)),
            "goal": tensor(joined(goal, goal - tip)),
        }

    def solved(self, sensors: Sensors) -> torch.Tensor:
        offset = sensors.array("tip_pos") - self._mouth(sensors)
        return tensor((offset[:, 2] < -_DEPTH_M) & (length(offset[:, :2])[:, 0] < _SIDEWAYS_M))

    def progress(self, sensors: Sensors) -> torch.Tensor:
        offset = sensors.array("tip_pos") - self._mouth(sensors)
        depth = (-offset[:, 2] / _DEPTH_M).clip(0.0, 1.0) * (length(offset[:, :2])[:, 0] < _SIDEWAYS_M)
        offset[:, 2] = offset[:, 2].clip(0.0)
        above = length(offset)[:, 0]
        return tensor(0.2 * reaching(sensors, "peg") + 0.6 * closeness(above) + 0.2 * depth)

    def expert(self, num_envs: int) -> PegExpert:
        return PegExpert(num_envs, self.action_spec.size, self.device)

    def _mouth(self, sensors: Sensors) -> Array:
        """Return (N, 3), a light array: the centre of the hole at the block's upper face."""
        return sensors.array("hole_pos") + self._block

    @cached_property
    def _block(self) -> Array:
        return constant([0.0, 0.0, BLOCK_HEIGHT_M], self.device)


class PegExpert(LiftExpert):
    """Take the peg by its handle, carry the tip above the hole, centre it, push down with small circling motions."""

    slip = 0.022

    def style(self, draw: Draw) -> None:
        super().style(draw)
        self._carry = draw.uniform(0.03, 0.06)[:, 0].float()
        self._circling = draw.uniform(0.5, 1.2)[:, 0].float()
        self._grip_height = draw.uniform(-0.004, 0.006)[:, 0].float()
        self._careful = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

    def noise_scale(self) -> torch.Tensor:
        """Return the hand is calmer over the hole."""
        return torch.where(self._careful, 0.3, 1.0)[:, None]

    def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        tool, peg = Tool.read(obs), obs["object"][:, :3]
        handle = peg.clone()
        handle[:, 2] += self._grip_height
        goal, yaw, close, held = self.grasp(tool, handle, body_yaw(obs["object"]))
        to_mouth = obs["goal"][:, 3:]
        sideways = torch.linalg.vector_norm(to_mouth[:, :2], dim=-1)
        height = -to_mouth[:, 2]
        inside = (height < -0.002) & (sideways < 0.004)
        # Above the block the tip keeps clear of it until it is centred; then it goes down all the way.
        clear = torch.where(sideways > 0.03, self._carry, torch.clamp(1.5 * (sideways - 0.0015), 0.004, 1.0))
        centred = sideways < 0.0022
        entering = torch.minimum(height - 0.008, clear)
        down = torch.where(inside, height - 0.02, torch.where(centred, entering, clear))
        lift = torch.clamp((height - 0.3 * self._carry) / (0.5 * self._carry), 0.0, 1.0)
        lift = torch.where(sideways < 0.03, 1.0, lift)
        across = lift[:, None] * to_mouth[:, :2]
        circle = 0.0008 * torch.stack((torch.cos(self._angle()), torch.sin(self._angle())), dim=-1)
        across = across + torch.where((centred & (height < 0.004))[:, None], circle, torch.zeros_like(circle))
        carried = tool.position + torch.cat((across, (down - height)[:, None]), dim=-1)
        goal = torch.where(held[:, None], carried, goal)
        self._careful = held & (sideways < 0.03)
        return self.move(tool, goal, torch.where(held, tool.yaw, yaw), close)

    def _angle(self) -> torch.Tensor:
        return self._circling * self.step.float() % (2.0 * math.pi)
