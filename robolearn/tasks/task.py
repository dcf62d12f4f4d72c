"""The interface of a task: MJCF, start, control, observation, reward, success and expert, all as functions of sensors.

A task holds no state of its own. Everything it needs later (goals included) is in the physics state, so a restored
state is a restored episode, and CPU and Warp share every line.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import mujoco
import torch

from robolearn.errors import TaskError
from robolearn.sim.simulation import Simulation, Start, sensor_slices
from robolearn.specs import ActionSpec, Actor
from robolearn.tasks.arrays import Array, floats, light, tensor
from robolearn.tasks.draw import Draw

ASSETS = Path(__file__).parent / "assets"


def _shipped() -> dict[str, bytes]:
    """Return our MJCF files as `robolearn/NAME.xml`, for other packages' tasks to include."""
    return {f"robolearn/{path.name}": path.read_bytes() for path in ASSETS.glob("*.xml")}


class Sensors:
    """The readings of one moment: `sensors["tcp_pos"]` is (N, 3) float32."""

    def __init__(self, values: torch.Tensor, slices: dict[str, slice]):
        self.arrays = floats(light(values))
        """All readings (N, nsensordata), as a light array."""
        self._slices = slices

    @classmethod
    def read(cls, sim: Simulation) -> Sensors:
        return cls(sim.sensordata, sim.sensor_slices)

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, name: str) -> torch.Tensor:
        return tensor(self.array(name))

    def of_worlds(self, chosen: Array) -> Sensors:
        """Return the readings of some worlds: (N,) bool, a light array."""
        return Sensors(tensor(self.arrays[chosen]), self._slices)

    def array(self, name: str) -> Array:
        """Return the same as `sensors[name]`, as a light array."""
        return self.arrays[:, self._slices[name]]


class Task(ABC):
    """One task. Subclasses set the class attributes and write the abstract methods; `N` is the number of worlds."""

    name: ClassVar[str]
    summary: ClassVar[str]
    mjcf: ClassVar[Path]
    max_steps: ClassVar[int]
    control_hz: ClassVar[float] = 20.0
    hold_steps: ClassVar[int] = 5
    """Control steps in a row for which `solved` must be true before the episode counts as a success."""
    cameras: ClassVar[tuple[str, ...]] = ("front", "wrist")
    """The first one is also the camera of `render`."""
    random_friction: ClassVar[tuple[str, ...]] = ()
    """Geoms whose sliding friction physics randomisation varies."""
    random_mass: ClassVar[tuple[str, ...]] = ()
    """Bodies whose mass it varies."""
    warp_contacts: ClassVar[int | None] = None
    """Contacts per world that MuJoCo Warp makes room for; None leaves it to Warp."""
    warp_constraints: ClassVar[int | None] = None
    """Constraint rows per world, likewise."""

    def __init__(self, device: torch.device | str = "cpu", *, control: Literal["ee", "joint"] = "ee"):
        self.device = torch.device(device)
        self.control_mode = control

    @cached_property
    def model(self) -> mujoco.MjModel:
        try:
            return mujoco.MjModel.from_xml_path(str(self.mjcf), _shipped())
        except ValueError as error:
            raise TaskError(f"the MJCF of task {self.name} does not compile: {error}") from None

    @cached_property
    def model_xml(self) -> str:
        """The MJCF in one piece, includes resolved: all that a viewer of recorded states needs."""
        return mujoco.MjSpec.from_file(str(self.mjcf), include=_shipped()).to_xml()

    def places(self, *sensors: str) -> list[int]:
        """Return where the numbers of these sensors lie, one after the other, in a row of `Sensors.arrays`."""
        slices = sensor_slices(self.model)
        return [i for name in sensors for i in range(slices[name].start, slices[name].stop)]

    @property
    def substeps(self) -> int:
        """Physics steps per control step."""
        exact = 1.0 / (self.control_hz * self.model.opt.timestep)
        if abs(exact - round(exact)) > 1e-6:
            raise TaskError(
                f"{self.name}: a control step at {self.control_hz} Hz must be a whole number of physics steps, "
                f"received a time step of {self.model.opt.timestep} s"
            )
        return round(exact)

    @property
    @abstractmethod
    def action_spec(self) -> ActionSpec:
        """Names and physical limits of the action."""

    @abstractmethod
    def start(self, draw: Draw) -> Start:
        """Return initial states of N episodes, from random numbers that depend on the episodes' seeds only."""

    @abstractmethod
    def control(self, sensors: Sensors, ctrl: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return (N, A) actions in [-1, 1] and the present (N, nu) float32 controls -> the next (N, nu) controls."""

    @abstractmethod
    def observe(self, sensors: Sensors) -> dict[str, torch.Tensor]:
        """Return (N, ...) float32 per key; images are added by the environment."""

    @abstractmethod
    def solved(self, sensors: Sensors) -> torch.Tensor:
        """Return (N,) bool: the goal condition holds at this moment."""

    def failed(self, sensors: Sensors) -> torch.Tensor | None:
        """Return (N,) bool: what has happened cannot be made good, and the episode ends without success.

        None where a task knows no such thing.
        """
        return None

    @abstractmethod
    def progress(self, sensors: Sensors) -> torch.Tensor:
        """Return (N,) in [0, 1]: how far the task has come; 1 only where solved. The dense reward is made of it."""

    def score(self, sensors: Sensors) -> torch.Tensor | None:
        """Return (N,) how well it stands by the measure of the task's literature; None where it has none but success.

        Evaluations report the mean over episodes of the largest value.
        """
        return None

    def expert(self, num_envs: int) -> Actor:
        """Return a scripted expert for `num_envs` episodes that sees nothing but observations."""
        raise TaskError(f"task {self.name} has no scripted expert")
