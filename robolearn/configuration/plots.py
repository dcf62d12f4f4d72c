"""Configuration of plots; free of torch and matplotlib."""

from __future__ import annotations

from dataclasses import dataclass, field

from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DensityConfig:
    """Plot a policy's action density at recorded states, so that its modes can be seen."""

    policy: str = field(metadata={"positional": True})
    """Policy folder."""
    dataset: str
    """File whose states are shown; the demonstrated actions are marked."""
    episode: int = 0
    """Episode in the file."""
    steps: tuple[int, ...] = ()
    """Steps of the episode; empty takes four, evenly spaced."""
    dims: tuple[int, int] = (0, 1)
    """Action dimensions on the two axes."""
    samples: int = 2000
    """Actions drawn at each state."""
    output: str = "density.png"
    """Picture to write: .png, .svg or .pdf."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"samples must be at least 1, received {self.samples}")
        if self.dims[0] == self.dims[1] or min(self.dims) < 0:
            raise ConfigError(f"dims must be two different action dimensions, received {list(self.dims)}")


@dataclass(frozen=True, kw_only=True)
class CurvesConfig:
    """Plot learning curves: runs that differ in nothing but their seed become one mean with its interval."""

    runs: tuple[str, ...] = field(metadata={"positional": True})
    """Run folders."""
    metric: str = ""
    """Metric to show; empty takes the first of eval_success, eval_return, success, return, valid_loss and loss."""
    output: str = "curves.png"
    """Picture to write: .png, .svg or .pdf."""
    bootstraps: int = 2000
    """Resamples behind each interval."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("name the run folders to plot, for example runs/*")
        if self.bootstraps < 1:
            raise ConfigError(f"bootstraps must be at least 1, received {self.bootstraps}")
