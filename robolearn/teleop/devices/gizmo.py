"""A handle in a 3-D scene in the browser, drawn by viser and mjviser: the tool goes where the handle is put."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import importlib.util
import math
import threading
import time
from functools import partial
from typing import Any, ClassVar

import mujoco
import numpy as np

from robolearn.configuration.parts.task import environment_name
from robolearn.configuration.teleop import AXES
from robolearn.envs.interface import VectorEnv
from robolearn.errors import DeviceError, DeviceLost
from robolearn.teleop.devices.actions import CommandMapper
from robolearn.teleop.devices.device import Command, hold

TOOLS = ("tcp", "pusher", "robot0:grip", "endEffector")
"""Sites that are the tool: of robolearn's arm and planar tasks, Gymnasium-Robotics' Fetch, Meta-World."""
SESSION_BUTTONS = ("start", "success", "failure", "pause", "discard", "rerecord", "undo", "mark", "quit")
FULL_SPEED_M, FULL_SPEED_RAD = 0.06, 0.5
"""Displacement from which the tool moves at full speed; below it the speed is proportional."""
DEAD_ZONE_M, DEAD_ZONE_RAD = 0.003, 0.03
"""Displacement that counts as none."""
_HANDLE_M = 0.2
_HOST = "127.0.0.1"


class Gizmo:
    """A twist towards a handle that a person drags; the handle stays with the tool until it is dragged.

    viser calls back in its own thread. What a callback writes and `read` takes is under one lock.
    """

    summary: ClassVar = "a handle in a 3-D scene in the browser, which the tool follows"
    needs: ClassVar = "a browser, robolearn[teleop], a task in MuJoCo whose tool is known"

    def __init__(self, env: VectorEnv, port: int = 8081, site: str | None = None) -> None:
        """
        Args:
            port: of the scene's page, on this machine alone; the next free one where it is taken.
            site: the MJCF's site that is the tool; None takes the first of TOOLS that there is.

        Raises DeviceError where the environment has no MuJoCo model in this process, no such site, or actions that no
        map drives.
        """
        self.env, self._port = env, port
        self._site = _tool_site(env, site)
        mapper = CommandMapper(env.action_spec, environment_name(env.env_args))
        self._moves, self._has_gripper = np.array([axis in mapper.axes for axis in AXES]), mapper.has_gripper
        self._lock = threading.Lock()
        self._let_go()
        self._presses: list[str] = []
        self._touched_at = -math.inf
        self._server: Any = None

    _driver: int | None
    """viser's number of the client who moved the handle, or the gripper, last in this episode."""
    _held: bool
    """A drag that began in this episode goes on; what is left of an earlier one moves nothing."""
    _target: tuple[np.ndarray, np.ndarray] | None
    """Pose (3,), (4,) that the handle was dragged to in this episode."""

    @classmethod
    def missing(cls) -> str | None:
        """Return what is not there, in words; None where all is."""
        absent = [name for name in ("viser", "mjviser") if importlib.util.find_spec(name) is None]
        return f"{' and '.join(absent)} (pip install 'robolearn[teleop]')" if absent else None

    @property
    def address(self) -> str:
        """Return the link to the scene."""
        return f"http://{_HOST}:{self._server.get_port()}/"

    def connect(self) -> None:
        """Serve the scene. Raises DeviceError naming what to install."""
        if missing := self.missing():
            raise DeviceError(f"the gizmo needs {missing}")
        import viser
        from mjviser import ViserMujocoScene

        self.close()
        self._server = viser.ViserServer(host=_HOST, port=self._port, verbose=False)
        model, _ = self._world()
        self._scene = ViserMujocoScene(self._server, model, num_envs=1)
        self._scene.camera_tracking_enabled = False  # it would shift the scene, but not the handle
        eye = model.stat.center + model.stat.extent * np.array([1.2, -0.8, 0.7])
        self._server.initial_camera.position, self._server.initial_camera.look_at = eye, model.stat.center
        self._add_handle()
        self._add_panel()
        self.reset(0)

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def reset(self, seed: int) -> None:
        """Begin an episode: the handle is back at the tool, the gripper open."""
        with self._lock:
            self._let_go()
        if self._gripper is not None:
            self._gripper.value = False
        self._show()

    def read(self) -> Command:
        """Return the twist towards the handle, and draw the scene."""
        if self._server is None:
            raise DeviceLost("the gizmo's scene is closed; connect again")
        position, quaternion = self._show()
        with self._lock:
            presses, self._presses = tuple(self._presses), []
            if self._driver not in self._server.get_clients():
                self._let_go()  # whoever comes back drags anew: the tool never sets off by itself
            driven, target, touched_at = self._driver is not None, self._target, self._touched_at
        if not driven:
            return hold(touched_at, presses)
        twist = np.zeros(6) if target is None else self._moves * twist_towards(*target, position, quaternion)
        gripper = None if self._gripper is None else 1.0 if self._gripper.value else -1.0
        return Command(twist=twist, gripper=gripper, buttons=presses, engaged=True, sampled_at=touched_at)

    def _world(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        world = self.env.world(0)
        assert world is not None, "checked at the start"
        return world

    def _show(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw the present state, put a handle that nobody has taken at the tool; return the tool's pose (3,), (4,)."""
        model, data = self._world()
        self._scene.update_from_mjdata(data)
        site = model.site(self._site).id
        position, quaternion = data.site_xpos[site].copy(), np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, data.site_xmat[site])
        with self._lock:
            if self._target is None and not self._held:
                self._handle.position, self._handle.wxyz = position, quaternion
        return position, quaternion

    def _let_go(self) -> None:
        self._driver, self._held, self._target = None, False, None

    def _add_handle(self) -> None:
        """Add the handle: arrows for the axes that the task moves, rings where it turns."""
        x, y, z, *turns = self._moves
        self._handle = self._server.scene.add_transform_controls(
            "/gizmo",
            scale=_HANDLE_M,
            active_axes=(bool(x), bool(y), bool(z)),
            disable_rotations=not any(turns),
            depth_test=False,
        )
        self._handle.on_update(self._dragging)

    def _add_panel(self) -> None:
        gui = self._server.gui
        gui.add_markdown("Drag the handle: the tool follows it. The session is shown on its own page.")
        self._gripper = gui.add_checkbox("gripper closed", False) if self._has_gripper else None
        if self._gripper is not None:
            self._gripper.on_update(self._gripping)
        for button in SESSION_BUTTONS:
            gui.add_button(button).on_click(partial(self._pressed, button))

    # Callbacks are coroutines: viser awaits them in order, whereas functions go to a pool of threads.

    async def _dragging(self, event: Any) -> None:
        with self._lock:
            if event.phase == "start":
                self._held = True
            elif event.phase == "end":
                self._held = False
            elif self._held:
                self._driver, self._touched_at = event.client_id, time.monotonic()
                self._target = event.target.position.copy(), event.target.wxyz.copy()

    async def _gripping(self, event: Any) -> None:
        if event.client_id is not None:  # None: set by `reset`
            with self._lock:
                self._driver, self._touched_at = event.client_id, time.monotonic()

    async def _pressed(self, button: str, _: Any) -> None:
        with self._lock:
            self._presses.append(button)
            self._touched_at = time.monotonic()


def twist_towards(
    target: np.ndarray, target_quaternion: np.ndarray, position: np.ndarray, quaternion: np.ndarray
) -> np.ndarray:
    """Return the twist (6,) in [-1, 1] from a pose towards another, both (3,) metres and (4,) w x y z in the world.

    Proportional to the displacement, zero in the dead zone; beyond full speed it is shortened, not bent.
    """
    inverse, difference, turn = np.zeros(4), np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(inverse, quaternion)
    mujoco.mju_mulQuat(difference, target_quaternion, inverse)
    mujoco.mju_quat2Vel(turn, difference, 1.0)
    return np.concatenate(
        [_speed(target - position, DEAD_ZONE_M, FULL_SPEED_M), _speed(turn, DEAD_ZONE_RAD, FULL_SPEED_RAD)]
    )


def _speed(displacement: np.ndarray, dead_zone: float, full: float) -> np.ndarray:
    if np.linalg.norm(displacement) < dead_zone:
        return np.zeros(3)
    return displacement / max(full, np.abs(displacement).max())


def _tool_site(env: VectorEnv, wanted: str | None) -> str:
    world, task = env.world(0), environment_name(env.env_args)
    if world is None:
        raise DeviceError(f"the gizmo shows MuJoCo's scene of the environment; {task} has none in this process")
    there = [world[0].site(i).name for i in range(world[0].nsite)]
    found = [name for name in (TOOLS if wanted is None else (wanted,)) if name in there]
    if not found:
        raise DeviceError(
            f"the gizmo does not know the tool of {task}: none of its sites is {wanted or ', '.join(TOOLS)}. Name one "
            f"with --device_options.site; it has {', '.join(filter(None, there)) or 'no sites'}"
        )
    return found[0]
