"""What the robot feels: the touch and force sensors of its model, for showing them to the operator."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import mujoco
import numpy as np

from robolearn.envs.interface import VectorEnv

_FORCES = (mujoco.mjtSensor.mjSENS_TOUCH, mujoco.mjtSensor.mjSENS_FORCE)
_MOST = 8
"""More would fill the page."""


class Touch:
    """The sensors of environment 0; none where it has no MuJoCo model in this process, or no such sensor."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env
        world = env.world(0)
        model = None if world is None else world[0]
        found = [] if model is None else [model.sensor(i) for i in range(model.nsensor)]
        self._places = {
            sensor.name.removeprefix("touch_") or f"sensor {sensor.id}": slice(
                sensor.adr[0], sensor.adr[0] + sensor.dim[0]
            )
            for sensor in found
            if sensor.type[0] in _FORCES
        }

    def newtons(self) -> dict[str, float]:
        """Return the size of each force now, by the sensor's name."""
        world = self._env.world(0) if self._places else None
        if world is None:
            return {}
        data = world[1].sensordata
        return {
            name: round(float(np.linalg.norm(data[place])), 2) for name, place in list(self._places.items())[:_MOST]
        }
