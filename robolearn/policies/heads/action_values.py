"""Values of discrete actions: the policy takes the best one. DQN learns them; demonstrations do not tell any."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.parts.policy import ActionValuesHeadConfig
from robolearn.errors import PolicyError
from robolearn.policies.heads.head import Head
from robolearn.policies.noise import Noise


class ActionValuesHead(Head):
    """A linear layer for the value Q of each of A actions; its chunk of one step prefers the largest."""

    def __init__(self, config: ActionValuesHeadConfig, *, feature_size: int, pred_steps: int, action_size: int) -> None:
        super().__init__()
        self.linear, self.num_actions = nn.Linear(feature_size, action_size), action_size

    def values(self, features: Tensor) -> Tensor:
        """Return Q of every action, (B, A), given features (B, D)."""
        return self.linear(features).float()

    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        raise PolicyError(
            "action values are learned from rewards (robolearn rl, algorithm dqn), not from actions shown"
        )

    def act(self, features: Tensor, *, deterministic: bool, noise: Noise) -> Tensor:
        """Return preferences (B, 1, A): 1 for the best action, -1 for the others."""
        best = self.values(features).argmax(-1)  # (B, A) -> (B,)
        return (2.0 * F.one_hot(best, self.num_actions) - 1.0)[:, None]
