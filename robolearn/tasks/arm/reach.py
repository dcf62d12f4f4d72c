"""Reach: bring the tool to a point in space. The sanity check; trains in seconds."""

from __future__ import annotations

import torch

from robolearn.sim.simulation import Start
from robolearn.tasks.arm.arm_task import ArmTask
from robolearn.tasks.arrays import Array, closeness, joined, length, tensor
from robolearn.tasks.draw import Draw
from robolearn.tasks.scripted import ArmExpert, Tool
from robolearn.tasks.task import ASSETS, Sensors

_TOLERANCE_M = 0.015


class Reach(ArmTask):
    """Success: the tool within 15 mm of the target. Progress: 1 - tanh(5 distance)."""

    name = "Reach"
    summary = "bring the tool to a point in space: the sanity check"
    mjcf = ASSETS / "reach.xml"
    max_steps = 100
    axes = ("x", "y", "z")

    def start(self, draw: Draw) -> Start:
        target = torch.cat((draw.uniform(0.34, 0.60), draw.uniform(-0.25, 0.25), draw.uniform(0.05, 0.35)), dim=-1)
        return self.arm_start(draw, opening=0.0, mocap_pos=target[:, None])

    def observe(self, sensors: Sensors) -> dict[str, torch.Tensor]:
        target = sensors.array("target_pos")
        goal = tensor(joined(target, target - sensors.array("tcp_pos")))
        return {"proprio": self.proprioception(sensors), "goal": goal}

    def solved(self, sensors: Sensors) -> torch.Tensor:
        return tensor(self._distance(sensors) < _TOLERANCE_M)

    def progress(self, sensors: Sensors) -> torch.Tensor:
        return tensor(closeness(self._distance(sensors)))

    def expert(self, num_envs: int) -> ReachExpert:
        return ReachExpert(num_envs, self.action_spec.size, self.device)

    def _distance(self, sensors: Sensors) -> Array:
        """Return (N,) metres."""
        return length(sensors.array("target_pos") - sensors.array("tcp_pos"))[:, 0]


class ReachExpert(ArmExpert):
    """Straight there, with a bow."""

    def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        tool = Tool.read(obs)
        return self.move(tool, obs["goal"][:, :3], tool.yaw, torch.zeros_like(tool.holding))[:, :3]
