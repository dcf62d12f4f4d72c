"""Configuration of a recording session with a person at the controls; free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Course of a session, and contents of its page."""

    start: Literal["button", "motion"] = "button"
    """What begins a recording: the start button, or the first motion of the operator."""
    countdown_s: float = 0.0
    """Seconds between the start button and the first recorded step."""
    review: Literal["failures", "always", "never"] = "failures"
    """When the operator is asked what becomes of an episode that the environment has ended: where it was not solved,
    always, or never (solved ones are then kept, others kept only with `keep_failures`)."""
    idle_pause_s: float = 0.0
    """Seconds without any motion after which the world stands still until the operator moves again, so that neither
    idle ends nor pauses are recorded; the file notes each pause. 0 never pauses by itself."""
    rate: float | None = None
    """Control steps per second of real time; none takes the task's own. A lower one gives the operator slow motion."""
    cameras: tuple[str, ...] = ()
    """Cameras shown; none takes the task's own."""
    image_size: tuple[int, int] = (240, 320)
    """Height and width of the pictures shown."""
    host: str = "127.0.0.1"
    """Address of the page; 0.0.0.0 lets other machines reach it, who must then know the token in the link."""
    port: int = 8080
    """Port of the page; the next free one is taken."""
    open_page: bool = False
    """Open the page in a browser of this machine, where it has a screen."""

    def __post_init__(self) -> None:
        for name in ("countdown_s", "idle_pause_s"):
            if not 0.0 <= getattr(self, name) <= 3600.0:
                raise ConfigError(f"{name} must lie in [0, 3600], received {getattr(self, name)}")
        if self.rate is not None and not 0.0 < self.rate <= 1000.0:
            raise ConfigError(f"rate must lie in (0, 1000], received {self.rate}")
        if len(self.image_size) != 2 or not all(16 <= size <= 4096 for size in self.image_size):
            raise ConfigError(f"image_size must be a height and a width in [16, 4096], received {self.image_size}")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port must lie in [0, 65536), received {self.port}")


@dataclass(frozen=True, kw_only=True)
class CorrectionConfig:
    """How control changes hands between a policy and a person who corrects it."""

    by_motion: bool = True
    """The first motion of the device takes over; otherwise only the button does."""
    rest_s: float = 0.0
    """Seconds without motion after which the policy gets control back; 0 waits for the button."""
    rewind_s: float = 2.0
    """Seconds of the attempt that the button `rewind` takes back, for the operator to drive on from there; where the
    task's states can be restored and its observations are no pictures. 0 does without."""
    patience_s: float = 60.0
    """Where the robot asks: seconds for which it holds still and waits for an answer. Then the attempt ends unsolved,
    and the file says that nobody answered; 0 waits for ever."""

    def __post_init__(self) -> None:
        for name in ("rest_s", "rewind_s", "patience_s"):
            if not 0.0 <= getattr(self, name) <= 3600.0:
                raise ConfigError(f"{name} must lie in [0, 3600], received {getattr(self, name)}")
