"""From commands to actions: which axis of a twist drives which dimension is data, in `teleop/actions/*.yaml`."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np

from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.teleop import AXES, ActionMap
from robolearn.errors import DeviceError
from robolearn.specs import ActionSpec
from robolearn.teleop.devices.device import Command
from robolearn.teleop.devices.files import action_maps


class CommandMapper:
    """Turns commands into the actions of one environment."""

    def __init__(self, action_spec: ActionSpec, task: str | TaskConfig, *, needs_twist: bool = True) -> None:
        """
        Args:
            task: the task's name, with or without `gym:`, or its configuration.
            needs_twist: False for devices whose commands are actions already, which need no map.

        Raises DeviceError where no action map fits, with the action's names and how to write one.
        """
        self.action_spec = action_spec
        name = (task if isinstance(task, str) else task.id).removeprefix("gym:")
        found = _fitting(action_spec, name)
        if found is None and needs_twist:
            raise DeviceError(_how_to_map(action_spec, name))
        self._map = found
        A = action_spec.size
        self._drives = np.zeros((A, len(AXES)))
        """(A, 6): share of each axis in each action."""
        self._grips = np.zeros(A)
        """(A,): 1 or -1 where the gripper drives an action."""
        for row, action in enumerate(action_spec.names if found else ()):
            assert found is not None
            drive = found.actions[action]
            sign = -1.0 if drive.startswith("-") else 1.0
            if drive[1:] == "gripper":
                self._grips[row] = sign
            elif drive != "0":
                self._drives[row, AXES.index(drive[1:])] = sign * found.scale

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of a twist that move anything here, for showing them."""
        return tuple(axis for axis, used in zip(AXES, np.abs(self._drives).sum(axis=0)) if used)

    @property
    def has_gripper(self) -> bool:
        return bool(self._grips.any())

    def __call__(self, command: Command, gripper: float) -> np.ndarray:
        """Return the action (A,) float32 in [-1, 1] for a command whose twist is in the world's frame.

        Args:
            gripper: where the gripper was told to be last, -1 open .. 1 closed; kept where the command says nothing.

        Raises DeviceError on an action of another size than the environment's, or one that is not finite.
        """
        if command.engaged and command.action is not None:
            return self._own_action(command.action)
        if command.gripper is not None and command.engaged:
            gripper = command.gripper
        twist = command.twist if command.engaged else np.zeros(len(AXES))
        return np.clip(self._drives @ twist + self._grips * gripper, -1.0, 1.0).astype(np.float32)

    def gripper_of(self, action: np.ndarray) -> float | None:
        """Return where an action (A,) tells the gripper to be, -1 open .. 1 closed, so that a takeover starts there;
        None where the action has no gripper."""
        rows = np.flatnonzero(self._grips)
        return float(action[rows[0]] * self._grips[rows[0]]) if len(rows) else None

    def _own_action(self, action: np.ndarray) -> np.ndarray:
        A = self.action_spec.size
        if action.shape != (A,) or not np.isfinite(action).all():
            raise DeviceError(
                f"the device sent the action {action.tolist()}; this environment takes {A} finite numbers: "
                f"{', '.join(self.action_spec.names)}"
            )
        return np.clip(action, -1.0, 1.0).astype(np.float32)


def _fitting(action_spec: ActionSpec, task: str) -> ActionMap | None:
    """The first map for the task that knows all its actions."""
    for found in action_maps().values():
        if any(fnmatchcase(task, pattern) for pattern in found.tasks) and set(action_spec.names) <= set(found.actions):
            return found
    return None


def _how_to_map(action_spec: ActionSpec, task: str) -> str:
    named = "; ".join(f"{n} in [{low:g}, {high:g}]" for n, low, high in zip(*_columns(action_spec)))
    example = "".join(f"\n    {name}: +{axis}" for name, axis in zip(action_spec.names, AXES * action_spec.size))
    return (
        f"no action map says how to drive {task}, whose actions are {named}. Write one as teleop/actions/NAME.yaml "
        f"(an axis of {', '.join(AXES)}, or gripper, each with + or -; 0 keeps an action at zero), for example:\n"
        f'  tasks: ["{task}"]\n  actions:{example}'
    )


def _columns(action_spec: ActionSpec) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    return action_spec.names, action_spec.low, action_spec.high
