"""The findings of an evaluation: one record per episode, and the figures that follow from them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import storage
from robolearn.errors import RobolearnError
from robolearn.evaluation.statistics import Interval, wilson


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """The course of one recorded episode."""

    obs: Mapping[str, np.ndarray]
    """(T+1, ...) per key, the final observation included."""
    actions: np.ndarray
    """(T, A) in [-1, 1]."""
    rewards: np.ndarray
    """(T,)."""
    states: np.ndarray | None = None
    """(T, S) physics states before each action, where they were asked for and exist."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Flat names to arrays; inverse of `of`."""
        arrays = {f"obs/{key}": value for key, value in self.obs.items()}
        arrays |= {"actions": self.actions, "rewards": self.rewards}
        return arrays if self.states is None else arrays | {"states": self.states}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Trajectory:
        obs = {name.removeprefix("obs/"): value for name, value in arrays.items() if name.startswith("obs/")}
        return cls(obs=obs, actions=arrays["actions"], rewards=arrays["rewards"], states=arrays.get("states"))


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """The outcome of one episode; a function of the policy and the seed alone."""

    seed: int
    success: bool
    steps: int
    episode_return: float
    time_to_success_s: float | None
    """Simulated seconds until the task first counted as solved, None where it never did."""
    terminated: bool
    truncated: bool
    score: float | None = None
    """Largest score of any step; None where the task has none."""
    trajectory: Trajectory | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """One policy on a list of seeds."""

    name: str
    env_args: Mapping[str, Any]
    control_hz: float
    deterministic: bool
    episodes: tuple[EpisodeRecord, ...]
    """In the order of the seeds."""
    seconds: float = field(default=0.0, compare=False)
    """Wall time of the evaluation."""
    repeatable: bool = True
    """Whether a seed fixes an episode there; results of other environments are not paired by seed."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was noticed about the environment, a sentence each."""
    policy: str = ""
    """Checksum of the saved policy; empty of whatever else acted."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(e.seed for e in self.episodes)

    @property
    def successes(self) -> int:
        return sum(e.success for e in self.episodes)

    @property
    def success_rate(self) -> float:
        """NaN without episodes."""
        return self.interval().estimate

    def interval(self, confidence: float = 0.95) -> Interval:
        """The success rate with its Wilson interval."""
        return wilson(self.successes, len(self.episodes), confidence)

    @property
    def times_to_success_s(self) -> tuple[float, ...]:
        """Of the solved episodes, in the order of the seeds."""
        return tuple(e.time_to_success_s for e in self.episodes if e.time_to_success_s is not None)

    @property
    def median_time_to_success_s(self) -> float | None:
        """Over the solved episodes; None where none was."""
        return float(np.median(self.times_to_success_s)) if self.times_to_success_s else None

    @property
    def mean_return(self) -> float:
        """Of all episodes, undiscounted; NaN without episodes."""
        return float(np.mean([e.episode_return for e in self.episodes])) if self.episodes else float("nan")

    @property
    def mean_steps(self) -> float:
        """Of all episodes; NaN without episodes."""
        return float(np.mean([e.steps for e in self.episodes])) if self.episodes else float("nan")

    @property
    def mean_score(self) -> float | None:
        """Mean over the episodes of the largest score, as the literature reports it; None where the task has none."""
        scores = [e.score for e in self.episodes if e.score is not None]
        return float(np.mean(scores)) if scores else None

    def summary(self) -> dict[str, Any]:
        """The figures that tables and policy cards quote."""
        interval = self.interval()
        figures = {
            "success_rate": interval.estimate,
            "low": interval.low,
            "high": interval.high,
            "median_time_to_success_s": self.median_time_to_success_s,
            "mean_return": self.mean_return,
            "mean_steps": self.mean_steps,
            "mean_score": self.mean_score,
        }
        known = {name: None if value is None or np.isnan(value) else value for name, value in figures.items()}
        return {"successes": self.successes, "episodes": len(self.episodes)} | known

    def __str__(self) -> str:
        low, high = self.interval().low, self.interval().high
        median = self.median_time_to_success_s
        time = "" if median is None else f", median time to success {median:.2f} s"
        score = "" if self.mean_score is None else f", mean largest score {self.mean_score:.3f}"
        return (
            f"{self.name}: {self.successes}/{len(self.episodes)} solved "
            f"({100 * self.success_rate:.1f}%, 95% interval {100 * low:.1f} to {100 * high:.1f}%){time}{score}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable; trajectories are left out (`save` keeps them beside the JSON)."""
        return {
            "name": self.name,
            "env_args": dict(self.env_args),
            "control_hz": self.control_hz,
            "deterministic": self.deterministic,
            "seconds": self.seconds,
            "repeatable": self.repeatable,
            "notes": list(self.notes),
            "policy": self.policy,
            "summary": self.summary(),
            "episodes": [
                {f.name: getattr(e, f.name) for f in fields(e) if f.name != "trajectory"} for e in self.episodes
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EvaluationResult:
        """Inverse of `to_dict`. Raises RobolearnError where the data is not an evaluation."""
        try:
            names = ("name", "env_args", "control_hz", "deterministic", "seconds", "repeatable")
            episodes = tuple(EpisodeRecord(**e) for e in data["episodes"])
            values = {name: data[name] for name in names}
            return cls(episodes=episodes, notes=tuple(data["notes"]), policy=data.get("policy", ""), **values)
        except (KeyError, TypeError, AttributeError) as error:
            raise RobolearnError(f"this is not an evaluation result of robolearn: {error!r}") from None

    def save(self, path: str | Path) -> Path:
        """Write the JSON, and recorded trajectories into an .npz of that name beside it; returns the JSON's path.

        Trajectories go by the seeds of their episodes: where a part was saved before and the last moment comes between
        the two files, each still finds its own.
        """
        path = Path(path)
        arrays = {
            f"{episode.seed}/{name}": value
            for episode in self.episodes
            if episode.trajectory is not None
            for name, value in episode.trajectory.arrays().items()
        }
        if arrays:
            packed = io.BytesIO()
            np.savez_compressed(packed, allow_pickle=False, **arrays)
            storage.write_bytes(path.with_suffix(".npz"), packed.getvalue())
        storage.write_json(path, self.to_dict(), indent=1, allow_nan=False)
        return path

    @classmethod
    def load(cls, path: str | Path) -> EvaluationResult:
        """Read what `save` wrote, trajectories included. Raises RobolearnError naming the file where it cannot."""
        path = Path(path)
        try:
            result = cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
            beside = path.with_suffix(".npz")
            return result._with_trajectories(beside) if beside.exists() else result
        except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile, RobolearnError) as error:
            raise RobolearnError(f"cannot read the evaluation {path}: {error}") from None

    def _with_trajectories(self, path: Path) -> EvaluationResult:
        grouped: dict[int, dict[str, np.ndarray]] = {}
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                seed, _, rest = name.partition("/")
                grouped.setdefault(int(seed), {})[rest] = arrays[name]
        found = {seed: Trajectory.of(parts) for seed, parts in grouped.items()}
        return replace(self, episodes=tuple(replace(e, trajectory=found.get(e.seed)) for e in self.episodes))
