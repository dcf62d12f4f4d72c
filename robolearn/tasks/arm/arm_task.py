"""The common part of the arm tasks: home pose, end-effector control by damped least squares, proprioception."""

from __future__ import annotations

import math
from functools import cached_property

import torch

from robolearn.sim.simulation import Start
from robolearn.specs import ActionSpec
from robolearn.tasks.arm.kinematics import Chain
from robolearn.tasks.arrays import Array, constant, joined, light, namespace, shortened, tensor
from robolearn.tasks.draw import Draw
from robolearn.tasks.rotations import (
    cube_axes,
    cube_turns,
    quat_axes,
    quat_yaw,
    turn_down,
    turn_down_parts,
    wrap,
    yaw_to_quat,
)
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
    def _limits(self) -> tuple[Array, Array]:
        """Lower and upper joint limits, (6,) each."""
        low, high = zip(*(self.model.joint(j).range for j in JOINTS))
        return constant(low, self.device), constant(high, self.device)

    @cached_property
    def _workspace(self) -> tuple[Array, Array]:
        low, high = _WORKSPACE
        return constant(low, self.device), constant(high, self.device)

    def control(self, sensors: Sensors, ctrl: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        commands, moves = light(ctrl), light(actions)
        target = self._joint_step if self.control_mode == "joint" else self._tool_step
        joints = target(sensors, commands[:, :6], moves).clip(*self._limits)
        if "grip" not in self.axes:
            return tensor(joined(joints, commands[:, 6:8]))
        finger = 0.5 * (1.0 - moves[:, -1:]) * FINGER_OPEN
        return tensor(joined(joints, finger, finger))

    def _joint_step(self, sensors: Sensors, q_command: Array, actions: Array) -> Array:
        measured = sensors.arrays[:, self.places(*JOINTS)]
        wanted = q_command + _MAX_JOINT_STEP * actions[:, :6]
        return measured + (wanted - measured).clip(-2.5 * _MAX_JOINT_STEP, 2.5 * _MAX_JOINT_STEP)

    def _tool_step(self, sensors: Sensors, q_command: Array, actions: Array) -> Array:
        position, rotation, jacobian = self._chain.forward(q_command)
        measured, step = sensors.array("tcp_pos"), actions @ self._steps  # (N, 4)
        wanted = (measured + shortened(position + step[:, :3] - measured, _MAX_LEAD_M)).clip(*self._workspace)
        yaw = self._wanted_yaw(sensors, rotation, step[:, 3])
        turn = turn_down(yaw, rotation, self._turn_parts)
        error = joined(wanted - position, turn)
        return q_command + self._chain.solve(jacobian, error, _DAMPING).clip(-0.2, 0.2)

    @cached_property
    def _steps(self) -> Array:
        """(A, 4): from actions to steps in x, y, z and yaw."""
        most = {"x": _MAX_STEP_M, "y": _MAX_STEP_M, "z": _MAX_STEP_M, "yaw": _MAX_STEP_RAD}
        return constant([[most[axis] * (axis == name) for axis in most] for name in self.axes], self.device)

    @cached_property
    def _turn_parts(self) -> Array:
        return constant(turn_down_parts(), self.device)

    def _wanted_yaw(self, sensors: Sensors, rotation: Array, delta: Array) -> Array:
        commanded = namespace(rotation).arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
        measured = tool_yaw(sensors)
        return measured + wrap(commanded + delta - measured).clip(-_MAX_LEAD_RAD, _MAX_LEAD_RAD)

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
        xp, yaw = namespace(sensors.arrays), tool_yaw(sensors)
        places, units = self._proprioception
        values = sensors.arrays[:, places] * units
        values[:, 3], values[:, 4] = xp.cos(yaw), xp.sin(yaw)
        values[:, 5] += 0.5 * sensors.array("finger_right")[:, 0]
        return tensor(values)

    def cube_observation(self, sensors: Sensors, name: str) -> Array:
        """Return what `body_observation` does of a cube whose faces look alike: of the axes that could be meant, those
        nearest to the tool's heading (otherwise every way to grasp it had to be learnt four times)."""
        axes = cube_axes(sensors.array(f"{name}_quat"), tool_yaw(sensors), self._cube_turns)
        return _placed(sensors, name, axes)

    @cached_property
    def _cube_turns(self) -> Array:
        return constant(cube_turns(), self.device)

    @cached_property
    def _proprioception(self) -> tuple[Array, Array]:
        """Places and units of the 26 numbers, with any sensor where the yaw goes."""
        names = ("tcp_pos", "j1", "j1", "finger_left", "touch_left", "touch_right", *JOINTS, *VELOCITIES, *TORQUES)
        units = [1.0] * 5 + [0.5] + [0.1] * 2 + [1.0] * 12 + [0.1] * 6
        return light(torch.tensor(self.places(*names), device=self.device)), constant(units, self.device)


def tool_yaw(sensors: Sensors) -> Array:
    """Return (N,) measured heading of the tool's x axis, radians."""
    return quat_yaw(sensors.array("tcp_quat"))


def body_observation(sensors: Sensors, name: str) -> Array:
    """Return (N, 12), a light array: position 3, x and y axes 6 (world frame), position relative to the tool 3."""
    return _placed(sensors, name, quat_axes(sensors.array(f"{name}_quat"))[:, :6])


def _placed(sensors: Sensors, name: str, axes: Array) -> Array:
    position = sensors.array(f"{name}_pos")
    return joined(position, axes, position - sensors.array("tcp_pos"))


def on_table(draw: Draw, x: tuple[float, float], y: tuple[float, float], z: float, yaw: float) -> torch.Tensor:
    """Return (N, 7) random poses of a free body standing on the table: position, quaternion; |yaw| at most `yaw`."""
    position = torch.cat((draw.uniform(*x), draw.uniform(*y), torch.full_like(draw.uniform(0, 1), z)), dim=-1)
    return torch.cat((position, yaw_to_quat(draw.uniform(-yaw, yaw)[:, 0])), dim=-1)
