"""The common part of the arm tasks: home pose, end-effector control by damped least squares, proprioception."""

from __future__ import annotations

import math
from functools import cached_property

import torch

from robolearn.sim.simulation import Start
from robolearn.specs import ActionSpec
from robolearn.tasks.arm.kinematics import Chain
from robolearn.tasks.draw import Draw
from robolearn.tasks.rotations import quat_to_matrix, rotation_error, yaw_to_quat
from robolearn.tasks.task import Sensors, Task

JOINTS = tuple(f"j{i}" for i in range(1, 7))
VELOCITIES = tuple(f"dj{i}" for i in range(1, 7))
TORQUES = tuple(f"torque{i}" for i in range(1, 7))
HOME = (0.0, 0.514, 1.898, 0.0, 0.729, 0.0)
"""Gripper pointing down, 0.2 m above the table and 0.45 m in front of the base."""
FINGER_OPEN = 0.04
"""Travel of one finger, metres."""

_WORKSPACE = ((0.28, -0.32, 0.008), (0.66, 0.32, 0.42))
_MAX_STEP_M, _MAX_STEP_RAD, _MAX_JOINT_STEP = 0.015, 0.12, 0.06
_MAX_LEAD_M, _MAX_LEAD_RAD = 0.03, 0.35
_DAMPING = 0.03
_HOME_SPREAD_RAD = 0.08


class ArmTask(Task):
    """Actions move a commanded pose of the tool (pointing down) and set the fingers' target.

    The commanded pose is the forward kinematics of the joint targets themselves (`ctrl`): nothing is integrated
    outside the physics state. The command may lead the measured tool by a few centimetres only, which bounds the
    force on a contact.
    """

    warp_contacts = 48
    warp_constraints = 192
    axes: tuple[str, ...] = ("x", "y", "z", "yaw", "grip")
    """Those of the five in the task's action, in this order; the others hold still, the gripper stays as started."""

    @property
    def action_spec(self) -> ActionSpec:
        if self.control_mode == "joint":
            names = (*(f"delta_{j}" for j in JOINTS), *(("grip",) if "grip" in self.axes else ()))
            high = tuple(1.0 if n == "grip" else _MAX_JOINT_STEP for n in names)
        else:
            limits = {"yaw": _MAX_STEP_RAD, "grip": 1.0}
            names = tuple(a if a == "grip" else f"delta_{a}" for a in self.axes)
            high = tuple(limits.get(a, _MAX_STEP_M) for a in self.axes)
        return ActionSpec(low=tuple(-h for h in high), high=high, names=names)

    @cached_property
    def _chain(self) -> Chain:
        return Chain(self.model, JOINTS, "tcp", self.device)

    @cached_property
    def _limits(self) -> torch.Tensor:
        """(2, 6): lower and upper joint limits."""
        ranges = [self.model.joint(j).range for j in JOINTS]
        return torch.tensor([list(map(float, r)) for r in ranges], device=self.device).T

    def control(self, sensors: Sensors, ctrl: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        q_command = ctrl[:, :6]
        target = self._joint_step if self.control_mode == "joint" else self._tool_step
        q_next = target(sensors, q_command, actions)
        fingers = ctrl[:, 6:8]
        if "grip" in self.axes:
            fingers = (0.5 * (1.0 - actions[:, -1:]) * FINGER_OPEN).expand(-1, 2)
        return torch.cat((torch.clamp(q_next, self._limits[0], self._limits[1]), fingers), dim=-1)

    def _joint_step(self, sensors: Sensors, q_command: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        measured = sensors.all(JOINTS)
        wanted = q_command + _MAX_JOINT_STEP * actions[:, :6]
        return measured + torch.clamp(wanted - measured, -2.5 * _MAX_JOINT_STEP, 2.5 * _MAX_JOINT_STEP)

    def _tool_step(self, sensors: Sensors, q_command: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        step = {axis: actions[:, i] for i, axis in enumerate(self.axes)}
        position, rotation, jacobian = self._chain.forward(q_command)
        measured = sensors["tcp_pos"]
        zero = torch.zeros_like(actions[:, 0])
        delta = _MAX_STEP_M * torch.stack([step.get(axis, zero) for axis in "xyz"], dim=-1)
        lead = position + delta - measured
        length = torch.linalg.vector_norm(lead, dim=-1, keepdim=True)
        wanted = measured + lead * torch.clamp(_MAX_LEAD_M / (length + 1e-9), max=1.0)
        low, high = (torch.tensor(corner, device=wanted.device) for corner in _WORKSPACE)
        wanted = torch.minimum(torch.maximum(wanted, low), high)
        yaw = self._wanted_yaw(sensors, rotation, _MAX_STEP_RAD * step.get("yaw", zero))
        error = torch.cat((wanted - position, rotation_error(tool_down(yaw), rotation)), dim=-1)
        return q_command + torch.clamp(self._chain.solve(jacobian, error, _DAMPING), -0.2, 0.2)

    def _wanted_yaw(self, sensors: Sensors, rotation: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        commanded, measured = matrix_yaw(rotation), tool_yaw(sensors)
        lead = torch.remainder(commanded + delta - measured + math.pi, 2 * math.pi) - math.pi
        return measured + torch.clamp(lead, -_MAX_LEAD_RAD, _MAX_LEAD_RAD)

    def home(self, draw: Draw, opening: float = FINGER_OPEN) -> tuple[torch.Tensor, torch.Tensor]:
        """Return arm joints (N, 6) near HOME and finger positions (N, 2)."""
        base = torch.tensor(HOME, dtype=torch.float64, device=self.device)
        arm = base + draw.uniform(-_HOME_SPREAD_RAD, _HOME_SPREAD_RAD, 6)
        # The tool must point down whatever the other joints are: the pitch joints' angles add up to half a turn.
        arm = torch.cat((arm[:, :3], torch.zeros_like(arm[:, :1]), math.pi - arm[:, 1:2] - arm[:, 2:3], arm[:, 5:]), -1)
        return arm, torch.full_like(arm[:, :2], opening)

    def arm_start(
        self, draw: Draw, *objects: torch.Tensor, opening: float = FINGER_OPEN, **mocap: torch.Tensor
    ) -> Start:
        """Return a start, the arm near home and `objects` ((N, 7) poses of free bodies, in MJCF order) where given."""
        arm, fingers = self.home(draw, opening)
        ctrl = torch.cat((arm, fingers), dim=-1)
        return Start(qpos=torch.cat((ctrl, *objects), dim=-1), ctrl=ctrl, **mocap)

    def proprioception(self, sensors: Sensors) -> torch.Tensor:
        """Return (N, 26): tool position 3, cos and sin of its yaw 2, finger travel 1, fingertip forces 2 (tens of
        newtons), joint angles 6, velocities 6, torques 6 (tens of newton metres: where the command leads)."""
        yaw = tool_yaw(sensors)[:, None]
        opening = 0.5 * (sensors["finger_left"] + sensors["finger_right"])
        touch = 0.1 * sensors.all(("touch_left", "touch_right"))
        joints = (sensors.all(JOINTS), sensors.all(VELOCITIES), 0.1 * sensors.all(TORQUES))
        return torch.cat((sensors["tcp_pos"], torch.cos(yaw), torch.sin(yaw), opening, touch, *joints), dim=-1)


def matrix_yaw(rotation: torch.Tensor) -> torch.Tensor:
    """Map (N, 3, 3) -> (N,): heading of the tool's x axis, radians."""
    return torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])


def tool_yaw(sensors: Sensors) -> torch.Tensor:
    """Return (N,) measured heading of the tool's x axis, radians."""
    return matrix_yaw(quat_to_matrix(sensors["tcp_quat"]))


def tool_down(yaw: torch.Tensor) -> torch.Tensor:
    """Map (N,) -> (N, 3, 3): the tool's z axis points straight down, its x axis along `yaw`."""
    c, s, zero, one = torch.cos(yaw), torch.sin(yaw), torch.zeros_like(yaw), torch.ones_like(yaw)
    return torch.stack((c, s, zero, s, -c, zero, zero, zero, -one), dim=-1).unflatten(-1, (3, 3))


def on_table(draw: Draw, x: tuple[float, float], y: tuple[float, float], z: float, yaw: float) -> torch.Tensor:
    """Return (N, 7) random poses of a free body standing on the table: position, quaternion; |yaw| at most `yaw`."""
    position = torch.cat((draw.uniform(*x), draw.uniform(*y), torch.full_like(draw.uniform(0, 1), z)), dim=-1)
    return torch.cat((position, yaw_to_quat(draw.uniform(-yaw, yaw)[:, 0])), dim=-1)
