"""The interface of gates: a view of a step, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.errors import PolicyError, TaskError
from robolearn.policies.policy import Policy
from robolearn.specs import ActionMode, Observation


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The surroundings of a gate; made anew for each round, as a gate is."""

    control_hz: float
    num_envs: int
    seed: int
    """Of whatever the gate trains; with the files it is all that the gate depends on."""
    round: int
    """Counted from 1."""
    rounds: int
    reading: Reading = NOTHING
    """How the demonstrations' files are read."""


@dataclass(frozen=True, kw_only=True)
class View:
    """N environments before a step, as a gate sees them."""

    obs: Observation
    """(N, ...) per key."""
    proposals: Tensor
    """(N, A), what the policy would do."""
    labels: Tensor
    """(N, A), what the corrector would do; a gate may look at it only where `correcting`, or where its class says that
    the corrector labels everything."""
    correcting: np.ndarray
    """(N,) bool: the corrector drove the last step."""
    window: Observation
    """(N, To, ...) per key, the policy's own view."""

    def disagreement(self) -> np.ndarray:
        """Return (N,), the mean absolute difference of proposals and labels over the action's dimensions.

        NaN where the corrector does not drive and gives no label. Raises TaskError where it drives without one.
        """
        gaps = host((self.proposals - self.labels).abs().mean(-1))
        for index in np.flatnonzero(self.correcting & ~np.isfinite(gaps)):
            raise TaskError(
                f"environment {index}: expected finite actions from the policy and from the corrector that drives, "
                f"received {self.proposals[index].tolist()} and {self.labels[index].tolist()}"
            )
        return gaps


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A gate's decision."""

    correct: np.ndarray
    """(N,) bool: the corrector drives the next step."""
    score: np.ndarray | None = None
    """(N,) float, how much help seems to be needed, higher for more; None where the gate has no score."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Why control changes hands, by environment."""
    recovered: tuple[int, ...] = ()
    """Environments whose correction reaches here what it set out for: the robot is back where all is well. What came
    before is recovery; what follows, until control is handed back, shows how to go on."""


class Gate(Protocol):
    """Decides when the corrector drives."""

    mode: ActionMode
    """How the file calls the corrector's steps."""
    labels_everything: bool
    """Whether the corrector labels also the states at which the policy drives."""

    def prepare(self, policy: Policy, files: Sequence[Path], round: int) -> None:
        """Learn from everything recorded before a round; called once before each."""
        ...

    def reset(self, seeds: Sequence[int], mask: Tensor) -> None:
        """Begin new episodes in the masked environments."""
        ...

    def judge(self, view: View) -> Verdict:
        """Say who drives the next step."""
        ...

    def told(self, corrected: np.ndarray, scores: np.ndarray, index: int | None) -> None:
        """Hear of a finished episode; also, before the first new one, of those that an interrupted round has recorded.

        Args:
            corrected: (T,) bool, the steps that the corrector drove.
            scores: (T,) what `judge` scored before each step; NaN where it gave none.
            index: the environment that it ran in; None where it was recorded before this gate was made.
        """
        ...


class BaseGate:
    """A gate that learns nothing and remembers nothing: for others to begin with."""

    mode = ActionMode.INTERVENTION
    labels_everything = False

    def prepare(self, policy: Policy, files: Sequence[Path], round: int) -> None:
        """Learn nothing."""

    def reset(self, seeds: Sequence[int], mask: Tensor) -> None:
        """Remember nothing of an episode."""

    def told(self, corrected: np.ndarray, scores: np.ndarray, index: int | None) -> None:
        """Count nothing."""


def host(value: Tensor) -> np.ndarray:
    """Return a tensor as an array on the host."""
    return value.detach().to(torch.float64).cpu().numpy()


def flat(obs: Observation, keys: Sequence[str]) -> np.ndarray:
    """Return (N, D), the observation keys one after the other.

    Raises TaskError where a key is missing or a value is not finite.
    """
    missing = [key for key in keys if key not in obs]
    if missing:
        raise TaskError(f"the gate needs observations {missing}; the environment gives {list(obs)}")
    parts = {key: host(obs[key].unsqueeze(-1).flatten(1)) for key in keys}
    for key, part in parts.items():
        bad = ~np.isfinite(part).all(1)
        if bad.any():
            raise TaskError(f"observation {key!r} of environment {int(bad.argmax())} is not finite; the gate needs it")
    return np.concatenate(list(parts.values()), axis=1)


def check_scores(gate: str, scores: np.ndarray) -> np.ndarray:
    """Return (N,) scores. Raises PolicyError where one is not finite."""
    bad = ~np.isfinite(scores)
    if bad.any():
        raise PolicyError(
            f"the {gate} gate's score of environment {int(bad.argmax())} is {scores[bad.argmax()]}; "
            "are the policy's weights finite, and the data it was trained on?"
        )
    return scores
