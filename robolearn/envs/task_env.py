"""N environments over one of robolearn's own tasks: the `VectorEnv` of our physics, on either back end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.interface import Actor, Observation, Step
from robolearn.envs.rules import ends
from robolearn.errors import TaskError
from robolearn.sim.cpu import CpuSimulation
from robolearn.sim.pictures import Pictures
from robolearn.sim.simulation import Simulation
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec
from robolearn.tasks import randomise
from robolearn.tasks.arrays import Array, floats, light, namespace, tensor
from robolearn.tasks.draw import Draw
from robolearn.tasks.task import Sensors, Task

_START = 1  # the stream of randomness that initial states come from
_COUNTERS = 3  # numbers after the physics in a state row: seed, elapsed steps, steps held

MAX_IMAGE_SIZE = 4096


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """Options that change the episodes of a task; all of them are recorded in `env_args`."""

    reward: Literal["sparse", "dense"] = "sparse"
    """sparse: 1 on success, else 0. dense: progress - 1, plus 1 on success (never positive before it, so that
    finishing early is never worse); a failure that ends the episode costs 1 for every step that was left."""
    control: Literal["ee", "joint"] = "ee"
    """ee: end-effector deltas; joint: joint deltas."""
    cameras: tuple[str, ...] = ()
    """Cameras whose pictures are observed, under their names."""
    image_size: tuple[int, int] = (84, 84)
    """Height and width of observed pictures; one number is both."""
    random_physics: float = 0.0
    """Randomises friction, masses and servo gains: 0 not at all, 1 strongly."""
    random_visuals: float = 0.0
    """Randomises colours, lights and cameras: 0 not at all, 1 strongly."""
    terminate_on_success: bool = True
    """End the episode where the task is solved."""
    max_steps: int | None = None
    """Steps until an episode is truncated; none takes the task's own limit."""
    obs_keys: tuple[str, ...] = ()
    """Observation keys to keep, in this order; none keeps all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", _height_and_width(self.image_size))
        for name in ("cameras", "obs_keys"):
            value = getattr(self, name)  # "front,wrist" is what the command line makes of a list
            object.__setattr__(self, name, tuple(value.split(",") if isinstance(value, str) else value))
        choices = {"reward": ("sparse", "dense"), "control": ("ee", "joint")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise TaskError(f"{name} must be one of {', '.join(known)}; received {getattr(self, name)!r}")
        for name in ("random_physics", "random_visuals"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
                raise TaskError(f"{name} must lie in [0, 1], received {value!r}")
        if self.max_steps is not None and (not isinstance(self.max_steps, int) or self.max_steps < 1):
            raise TaskError(f"max_steps must be at least 1, received {self.max_steps!r}")


def _height_and_width(size: Any) -> tuple[int, int]:
    """Return (height, width) of a pair, of "64,48" as the command line has it, or of one number for both."""
    try:
        parts = size.split(",") if isinstance(size, str) else [size, size] if isinstance(size, int) else list(size)
        height, width = (int(part) for part in parts)
    except (TypeError, ValueError):
        raise TaskError(f"image_size must be one number or (height, width), received {size!r}") from None
    if not 1 <= min(height, width) <= max(height, width) <= MAX_IMAGE_SIZE:
        raise TaskError(f"image_size must lie in 1..{MAX_IMAGE_SIZE} pixels, received {height} x {width}")
    return height, width


class TaskEnv:
    """See `VectorEnv`.

    A state row is MuJoCo's `mjSTATE_INTEGRATION` followed by three numbers of the episode: its seed, the steps elapsed
    and the steps for which success has been held. So a restored state continues the episode exactly.
    """

    def __init__(
        self,
        task: type[Task],
        num_envs: int = 1,
        *,
        backend: str = "cpu",
        device: str | torch.device = "cpu",
        workers: int | None = None,
        options: TaskOptions | None = None,
    ):
        """
        Args:
            workers: threads of the CPU back end; None takes one for each core.
        """
        self.options = options or TaskOptions()
        self.task = task(_device_of(backend, device), control=self.options.control)
        self.backend = backend
        self._sim = _simulation(self.task, num_envs, backend, workers)
        self._substeps, self._action_spec = self.task.substeps, self.task.action_spec
        self._pictures: dict[tuple[int, int], Pictures] = {}
        self._seeds = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._elapsed, self._held = torch.zeros_like(self._seeds), torch.zeros_like(self._seeds)
        self._entropy = np.random.default_rng()
        self._check_cameras()
        self._everyone = torch.ones(num_envs, dtype=torch.bool, device=self.device)
        self._restart(self._everyone)
        self._specs = self._observation_specs()

    @classmethod
    def of(
        cls,
        task: type[Task],
        num_envs: int = 1,
        *,
        backend: str = "cpu",
        device: str = "cpu",
        workers: int | None = None,
        **options: Any,
    ) -> TaskEnv:
        """Return environments with `options` by name (see `TaskOptions`). Raises TaskError on an unknown one."""
        known = TaskOptions.__dataclass_fields__
        if wrong := sorted(set(options) - set(known)):
            raise TaskError(f"task {task.name} takes no option {wrong[0]!r}; known: {', '.join(known)}")
        return cls(task, num_envs, backend=backend, device=device, workers=workers, options=TaskOptions(**options))

    @property
    def num_envs(self) -> int:
        return self._sim.num_envs

    @property
    def device(self) -> torch.device:
        return self._sim.device

    @property
    def observation_spec(self) -> ObservationSpec:
        return self._specs

    @property
    def action_spec(self) -> ActionSpec:
        return self._action_spec

    @property
    def control_hz(self) -> float:
        return self.task.control_hz

    @property
    def max_steps(self) -> int:
        return self.options.max_steps or self.task.max_steps

    @property
    def simulation(self) -> Simulation:
        """The physics below; writing to it is at the caller's own risk."""
        return self._sim

    @property
    def model_xml(self) -> str:
        """The task's MJCF in one piece; a state row's first numbers are its `mjSTATE_INTEGRATION`."""
        return self.task.model_xml

    @property
    def env_args(self) -> dict[str, Any]:
        default = TaskOptions()
        changed = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self.options).items()
            if value != getattr(default, name)
        }
        return TaskConfig(id=self.task.name, kwargs=changed).env_args()

    def reset(self, seeds: Sequence[int] | None = None, mask: torch.Tensor | None = None) -> Observation:
        chosen = self._everyone if mask is None else self._checked_mask(mask)
        count = int(chosen.sum())
        given = self._entropy.integers(2**48, size=count).tolist() if seeds is None else [int(seed) for seed in seeds]
        if len(given) != count:
            raise TaskError(f"reset needs one seed per environment that is reset: {count}, received {len(given)}")
        if any(not 0 <= seed < 2**53 for seed in given):
            raise TaskError(f"seeds must be integers in [0, 2**53), received {given[:8]}")
        self._seeds[chosen] = torch.as_tensor(given, dtype=torch.int64, device=self.device)
        self._elapsed.masked_fill_(chosen, 0)
        self._held.masked_fill_(chosen, 0)
        self._restart(chosen)
        return self._observe(Sensors.read(self._sim))

    def step(self, actions: torch.Tensor, mask: torch.Tensor | None = None) -> Step:
        chosen = None if mask is None else self._checked_mask(mask)
        actions = self._checked_actions(actions, chosen)
        commands = light(self._sim.ctrl)
        ctrl = light(self.task.control(Sensors.read(self._sim), tensor(floats(commands)), actions))
        commands[:] = ctrl if chosen is None else namespace(ctrl).where(light(chosen)[:, None], ctrl, commands)
        self._sim.step(self._substeps, chosen)
        sensors = Sensors.read(self._sim)
        success = self._count(self.task.solved(sensors), chosen)
        failed, timed_out = self._failed(sensors, success), light(self._elapsed) >= self.max_steps
        terminated, truncated = ends(failed, timed_out, success, terminate_on_success=self.options.terminate_on_success)
        return Step(
            obs=self._observe(sensors),
            reward=self._reward(sensors, success, failed),
            terminated=tensor(terminated),
            truncated=tensor(truncated),
            success=tensor(success),
        )

    def scores(self) -> torch.Tensor | None:
        found = self.task.score(Sensors.read(self._sim))
        return None if found is None else found.float()

    def _failed(self, sensors: Sensors, success: Array) -> Array:
        """Return (N,) bool, a light array: ended by failure."""
        failed = self.task.failed(sensors)
        return success & False if failed is None else light(failed) & ~success

    def _count(self, solved: torch.Tensor, chosen: torch.Tensor | None) -> Array:
        """Count the step and for how many in a row success has held; return (N,) bool, a light array: long enough."""
        elapsed, held, now = light(self._elapsed), light(self._held), light(solved)
        if chosen is None:
            elapsed += 1
            held += 1
            held *= now
        else:
            stepped = light(chosen)
            elapsed += stepped
            held[:] = namespace(held).where(stepped, (held + 1) * now, held)
        return held >= self.task.hold_steps

    def get_states(self) -> np.ndarray:
        counters = torch.stack((self._seeds, self._elapsed, self._held), dim=-1).double()
        return torch.cat((self._sim.get_state(), counters), dim=-1).cpu().numpy()

    def set_states(self, states: np.ndarray, mask: torch.Tensor | None = None) -> Observation:
        chosen = self._everyone if mask is None else self._checked_mask(mask)
        values = torch.as_tensor(np.asarray(states, np.float64), device=self.device)
        size = self._sim.get_state().shape[1] + _COUNTERS
        if values.shape != (int(chosen.sum()), size):
            raise TaskError(
                f"states of {self.task.name} must be ({int(chosen.sum())}, {size}), one row per environment restored; "
                f"received {tuple(values.shape)}"
            )
        rows = torch.zeros(self.num_envs, size, dtype=torch.float64, device=self.device)
        rows[chosen] = values
        for counter, column in zip((self._seeds, self._elapsed, self._held), rows[:, -_COUNTERS:].unbind(-1)):
            counter.copy_(torch.where(chosen, column.long(), counter))
        self._randomise(chosen)
        self._sim.set_state(rows[:, :-_COUNTERS], mask)
        return self._observe(Sensors.read(self._sim))

    def render(self, index: int = 0) -> np.ndarray:
        """Return (480, 640, 3) uint8 from the task's first camera."""
        if not 0 <= index < self.num_envs:
            raise TaskError(f"index must lie in [0, {self.num_envs}), received {index}")
        return self.picture(index, self.task.cameras[0], (480, 640))

    def picture(self, index: int, camera: str, size: tuple[int, int]) -> np.ndarray:
        """Return (height, width, 3) uint8 of one environment from one of the MJCF's cameras."""
        if size not in self._pictures:
            self._pictures[size] = Pictures(self.task.model, *size)
        return self._pictures[size].draw(*self._sim.world(index), camera)

    def expert(self) -> Actor:
        """Return the task's scripted expert, for these environments."""
        if self.options.control != "ee":
            raise TaskError(f"the expert of {self.task.name} acts by end-effector deltas; make it with control='ee'")
        return self.task.expert(self.num_envs)

    def world(self, index: int = 0) -> tuple[Any, Any]:
        return self._sim.world(index)

    def close(self) -> None:
        for pictures in self._pictures.values():
            pictures.close()
        self._pictures.clear()
        self._sim.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _restart(self, chosen: torch.Tensor) -> None:
        self._randomise(chosen)
        self._sim.reset(self.task.start(Draw(self._seeds, _START)), chosen)

    def _randomise(self, chosen: torch.Tensor) -> None:
        options = self.options
        for amount, draw in ((options.random_physics, randomise.physics), (options.random_visuals, randomise.visuals)):
            if amount:
                self._sim.set_model(draw(self.task, self._seeds, amount), chosen)

    def _observe(self, sensors: Sensors) -> Observation:
        obs = self.task.observe(sensors)
        for camera in self.options.cameras:
            frames = [self.picture(i, camera, self.options.image_size) for i in range(self.num_envs)]
            obs[camera] = torch.from_numpy(np.stack(frames)).to(self.device)
        return {key: obs[key] for key in self.options.obs_keys} if self.options.obs_keys else obs

    def _reward(self, sensors: Sensors, success: Array, failed: Array) -> torch.Tensor:
        if self.options.reward == "sparse":
            return tensor(floats(success))
        reward = light(self.task.progress(sensors)).clip(0.0, 1.0) - 1.0 + floats(success)
        return tensor(reward - floats(failed * (self.max_steps - light(self._elapsed))))

    def _observation_specs(self) -> ObservationSpec:
        obs = self.task.observe(Sensors.read(self._sim))
        specs = {k: ArraySpec(shape=tuple(v.shape[1:])) for k, v in obs.items()}
        specs |= {c: ArraySpec(shape=(*self.options.image_size, 3), dtype="uint8") for c in self.options.cameras}
        spec = ObservationSpec(specs)
        return spec.select(self.options.obs_keys) if self.options.obs_keys else spec

    def _checked_actions(self, actions: torch.Tensor, chosen: torch.Tensor | None) -> torch.Tensor:
        shape = (self.num_envs, self.action_spec.size)
        if tuple(actions.shape) != shape:
            raise TaskError(f"actions of {self.task.name} must be {shape}, received {tuple(actions.shape)}")
        values = light(actions.detach().to(self.device, torch.float32))
        if chosen is not None:
            values = namespace(values).where(light(chosen)[:, None], values, 0.0)
        finite = namespace(values).isfinite(values)
        if not finite.all():
            index = int((~tensor(finite).all(dim=-1)).nonzero()[0])
            raise TaskError(
                f"the action for environment {index} is not finite at step {int(self._elapsed[index])}: "
                f"{values[index].tolist()}"
            )
        return tensor(values.clip(-1.0, 1.0))

    def _checked_mask(self, mask: torch.Tensor) -> torch.Tensor:
        mask = torch.as_tensor(mask, device=self.device)
        if mask.shape != (self.num_envs,) or mask.dtype != torch.bool:
            raise TaskError(f"mask must be ({self.num_envs},) bool, received {tuple(mask.shape)} {mask.dtype}")
        return mask

    def _check_cameras(self) -> None:
        known = [self.task.model.camera(i).name for i in range(self.task.model.ncam)]
        for camera in self.options.cameras:
            if camera not in known:
                raise TaskError(f"{self.task.name} has no camera {camera!r}; it has {', '.join(known)}")


def _device_of(backend: str, device: str | torch.device) -> torch.device:
    if backend == "cpu":
        if torch.device(device).type != "cpu":
            raise TaskError(
                f"backend 'cpu' delivers on device 'cpu', received {str(device)!r}; use backend='warp' on a GPU"
            )
        return torch.device("cpu")
    if backend == "warp":
        from robolearn.sim.warp import checked_device

        return checked_device(device)
    raise TaskError(f"backend must be 'cpu' or 'warp', received {backend!r}")


def _simulation(task: Task, num_envs: int, backend: str, workers: int | None) -> Simulation:
    if workers is not None and workers < 1:
        raise TaskError(f"workers must be at least 1, received {workers}")
    if backend == "cpu":
        return CpuSimulation(task.model, num_envs, threads=workers)
    if workers is not None:
        raise TaskError(f"workers are processor threads, which backend {backend!r} has none of; received {workers}")
    from robolearn.sim.warp import WarpSimulation

    return WarpSimulation(
        task.model, num_envs, device=task.device, contacts=task.warp_contacts, constraints=task.warp_constraints
    )
