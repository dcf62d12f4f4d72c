"""Configuration of recording; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from robolearn.configuration.parts.dataset_names import check_dataset_name
from robolearn.configuration.parts.session import SessionConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree.bounds import MAX_ENVS, MAX_EPISODES, MAX_SEED, check_range
from robolearn.configuration.tree.fields import first_changed
from robolearn.errors import ConfigError
from robolearn.seeds import RECORD_SEED


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """Record demonstrations of a scripted expert, or of a person at a device."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("task", "task.kwargs", "episodes", "keep_failures"),
        "by an expert": ("expert", "action_noise", "num_envs"),
        "by a person": ("device", "profile", "operator", "notes", "session.start", "session.host", "session.port"),
        "output": ("output", "resume", "seed"),
    }

    BUDGET: ClassVar[tuple[str, ...]] = (
        *("episodes", "max_attempts", "num_envs", "task.workers", "task.worker_kind", "output", "resume"),
        *("keep_failures", "operator", "notes", "session", "profile", "device_options"),
    )
    """Keys that may differ when a recording goes on; see `robolearn.configuration.provenance`."""

    task: TaskConfig
    """Task to record: a name, or `gym:` and a Gymnasium id."""
    output: str = field(default="", metadata={"positional": True})
    """HDF5 file to write; empty means datasets/<task>.hdf5."""
    device: str = ""
    """What a person demonstrates with: browser, keyboard, gamepad, spacemouse, network, gizmo, or another device
    that `robolearn teleop devices` lists; empty lets the expert demonstrate, at full speed."""
    profile: str = ""
    """What the device's inputs do: a profile in teleop/ or a YAML file; empty takes the one named like the device."""
    device_options: dict[str, Any] = field(default_factory=dict)
    """The device's own options, such as `--device_options.index 1` of a second gamepad."""
    operator: str = ""
    """Who is at the device; stored with every episode."""
    notes: str = ""
    """Free text stored with every episode."""
    session: SessionConfig = field(default_factory=SessionConfig)
    """How a session with a person runs."""
    expert: str = "auto"
    """Who demonstrates where no device is named: auto (the task's own expert), an entry point of robolearn.experts, or
    module:callable."""
    episodes: int = 20
    """Demonstrations to keep."""
    action_noise: float = 0.0
    """Standard deviation of the Gaussian noise on executed actions, in their [-1, 1] units."""
    disturbances: float = 0.0
    """How often in a second, on average, the expert's hand is carried off in a random direction for 0.2 to 0.8 s, so
    that the demonstrations show how to come back. What the expert would have done is the label at these steps, which
    count as nobody's demonstration: train with `--target labels`. 0 never."""
    disturbance_speed: tuple[float, float] = (0.5, 1.0)
    """Least and greatest length of the action that is executed meanwhile, in units of the action limits; evenly drawn
    on a logarithmic scale. Where millimetres matter, begin at 0.05."""
    undisturbed: tuple[str, ...] = ()
    """Action dimensions that stay the expert's, such as `grip`: a hand that is pushed does not let go."""
    keep_failures: bool = False
    """Keep episodes that did not succeed, too."""
    max_attempts: int | None = None
    """Attempts after which recording gives up; none allows five for each demonstration."""
    seed: int = RECORD_SEED
    """Seed of the first episode; later ones count up."""
    num_envs: int = 2
    """Environments that run side by side; the file does not depend on it."""
    resume: bool = False
    """Go on with an existing file until it holds that many demonstrations, after the last seed in it."""

    def __post_init__(self) -> None:
        check_range(self, "episodes", "max_attempts", low=1, high=MAX_EPISODES)
        check_range(self, "num_envs", low=1, high=MAX_ENVS)
        check_range(self, "seed", low=0, high=MAX_SEED)
        if self.output:
            check_dataset_name("output", self.output)
        check_range(self, "action_noise", "disturbances", low=0)
        slowest, fastest = self.disturbance_speed
        if not 0.0 < slowest <= fastest <= 1.0:
            raise ConfigError(
                f"disturbance_speed must be a least and a greatest one, above 0 and up to 1, received "
                f"{[slowest, fastest]}"
            )
        experts = ("expert", "action_noise", "disturbances", "disturbance_speed", "undisturbed")
        if self.device and (named := first_changed(self, (*experts, "max_attempts", "num_envs"))):
            raise ConfigError(f"{named} is of a recording by an expert; with the device {self.device} leave it out")
        by_hand = ("operator", "profile", "device_options", "session")
        if not self.device and (named := first_changed(self, by_hand)):
            raise ConfigError(f"{named} is of a recording by hand; name a device, such as --device browser")

    @property
    def attempts(self) -> int:
        return self.max_attempts or 5 * self.episodes
