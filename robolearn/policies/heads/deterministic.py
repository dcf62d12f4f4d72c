"""A point estimate. Where people act in several ways its squared error is smallest between them: the baseline."""

from __future__ import annotations

from torch import Tensor, nn

from robolearn.configuration.parts.policy import DeterministicHeadConfig
from robolearn.policies.heads.head import Head, mean_over_steps
from robolearn.policies.noise import Noise


class DeterministicHead(Head):
    """Linear, unbounded: actions at exactly +-1 are within reach, and the policy clips what it returns."""

    def __init__(
        self, config: DeterministicHeadConfig, *, feature_size: int, pred_steps: int, action_size: int
    ) -> None:
        super().__init__()
        self.error = config.error
        self.shape = (pred_steps, action_size)
        self.linear = nn.Linear(feature_size, pred_steps * action_size)

    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        error = self.linear(features).float().view(-1, *self.shape) - actions
        error = error.square() if self.error == "l2" else error.abs()
        return mean_over_steps(error.mean(-1), valid), {}

    def act(self, features: Tensor, *, deterministic: bool, noise: Noise) -> Tensor:
        return self.linear(features).float().view(-1, *self.shape)
