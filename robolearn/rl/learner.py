"""A learner: an algorithm, where its experience comes from, and whom to evaluate. The main loop needs no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from robolearn.policies.policy import Policy
from robolearn.rl.collecting.replay_collector import ReplayCollector
from robolearn.rl.collecting.rollout_collector import RolloutCollector
from robolearn.rl.critic_check import CriticCheck
from robolearn.training.loop import Ranked


@dataclass(frozen=True, kw_only=True)
class Learner:
    """An algorithm with its source of batches, and what it makes."""

    algorithm: Any
    source: RolloutCollector | ReplayCollector
    actor: Policy
    """Evaluated and exported; `algorithm.load_state_dict` brings it back to a checkpoint."""
    networks: tuple[nn.Module, ...]
    """Those that the main loop computes, for its number of threads."""
    rows: int
    """Rows that it computes at a time."""
    critic_check: CriticCheck | None = None
    """What asks the critics about evaluated episodes; None where there are no critics of actions."""

    def close(self) -> None:
        """Wait for what still runs beside the main loop."""
        if isinstance(self.source, ReplayCollector):
            self.source.settle()


class Reporting:
    """An algorithm whose metrics include those of the episodes that its source finished meanwhile."""

    def __init__(self, algorithm: Any, source: ReplayCollector) -> None:
        self.algorithm, self.source = algorithm, source
        self.state_dict, self.load_state_dict = algorithm.state_dict, algorithm.load_state_dict

    def update(self, batch: Any) -> dict[str, Any]:
        return self.algorithm.update(batch) | self.source.take_metrics()

    def rank_state_dict(self) -> dict[str, Any]:
        return self.algorithm.rank_state_dict() if isinstance(self.algorithm, Ranked) else {}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        if isinstance(self.algorithm, Ranked):
            self.algorithm.load_rank_state_dict(state)
