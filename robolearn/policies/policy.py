"""The one policy object: cloned, corrected and fine-tuned without conversion.

A policy is a function of an observation window (B, To, ...). What changes between calls (history, chunk queue, noise)
belongs to `PolicyRunner`, so that training, PPO's ratio and a robot see the same function.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robolearn.configuration.policy import PolicyConfig
from robolearn.errors import PolicyError
from robolearn.policies.distributions import ActionDistribution, AffineDistribution
from robolearn.policies.heads.head import Head
from robolearn.policies.noise import BatchNoise, Noise
from robolearn.policies.normaliser import Normaliser
from robolearn.specs import ActionSpec, Batch, ObservationSpec


class Policy(nn.Module):
    """Encoders per observation key + backbone + action head + normalisers (buffers, saved with the weights).

    Build with `robolearn.policies.build.build_policy`, save and load with `robolearn.policies.folder`.
    """

    def __init__(
        self,
        *,
        config: PolicyConfig,
        observation_spec: ObservationSpec,
        action_spec: ActionSpec,
        encoder: nn.Module,
        backbone: nn.Module,
        head: Head,
        action_normaliser: Normaliser,
    ) -> None:
        """
        Args:
            encoder: dict of (B, To, ...) raw observations -> (B, To, E); normalises its inputs itself.
            backbone: (B, To, E) -> (B, To, D) if it is causal over time, else (B, D).
            head: (B, D) -> chunks (B, Tp, A) in normalised units.
        """
        super().__init__()
        self.config = config
        self.observation_spec = observation_spec
        self.action_spec = action_spec
        self.encoder = encoder
        self.backbone = backbone
        self.head = head
        self.action_normaliser = action_normaliser

    @property
    def exact_likelihood(self) -> bool:
        return self.head.exact_likelihood

    def loss(
        self, batch: Batch, *, total: Callable[[Tensor], Tensor] = lambda weight: weight
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Behaviour-cloning loss: scalar, weighted by `batch.weights`, and scalar metrics (detached).

        A causal backbone is trained on every observation step of the window, each with its own chunk.

        Args:
            total: the weight that the mean is taken over, given that of this batch: the sum over all processes where
                the batch is a share of a larger one, and the loss then is its share of that one's.
        """
        features = self.features(batch.obs, every_step=True)
        actions = self.action_normaliser.normalise(batch.actions)
        weights = batch.weights
        if features.ndim == 3:  # (B, To, D): step i predicts the chunk that begins at i
            B, To, _ = features.shape
            Tp = self.config.pred_steps
            actions = actions.unfold(1, Tp, 1).transpose(2, 3).reshape(B * To, Tp, -1)
            valid = batch.valid.unfold(1, Tp, 1).reshape(B * To, Tp)
            weights = weights.repeat_interleave(To) * valid[:, 0]
            features = features.reshape(B * To, -1)
        else:
            actions, valid = actions[:, batch.obs_steps - 1 :], batch.target_valid
            weights = weights * valid.any(-1)
        losses, metrics = self.head.loss(features, actions, valid)
        loss = (losses * weights).sum() / total(weights.sum()).clamp_min(1e-8)
        return loss, {"loss": loss.detach(), **metrics}

    def features(self, obs: dict[str, Tensor], *, every_step: bool = False) -> Tensor:
        """(B, To, ...) observations -> (B, D); with `every_step`, (B, To, D) where the backbone is causal."""
        features = self.backbone(self.encoder(obs))
        return features if every_step or features.ndim == 2 else features[:, -1]

    def distribution(self, obs: dict[str, Tensor]) -> ActionDistribution:
        """The density over chunks (B, Tp, A) in file units given windows (B, To, ...).

        Raises PolicyError for heads without an exact likelihood (deterministic, diffusion, flow, ACT).
        """
        if not self.exact_likelihood:
            raise PolicyError(
                f"a policy with head {self.config.head.name!r} has no exact log-probability; "
                "use a gaussian, mixture or autoregressive head"
            )
        normaliser = self.action_normaliser
        inner = self.head.distribution(self.features(obs))
        return inner if normaliser.is_identity else AffineDistribution(inner, normaliser.offset, normaliser.scale)

    def act(self, obs: dict[str, Tensor], *, deterministic: bool = False, noise: Noise | None = None) -> Tensor:
        """(B, To, ...) -> (B, Tp, A) in file units, clipped to [-1, 1].

        Args:
            deterministic: the mode (or a fixed-noise sample where there is no mode) instead of a sample.
            noise: where draws come from; None uses torch's global generator.
        """
        features = self.features(obs)
        if noise is None:
            noise = BatchNoise(features.shape[0], features.device)
        chunk = self.head.act(features, deterministic=deterministic, noise=noise)
        return self.action_normaliser.denormalise(chunk).clamp(-1.0, 1.0)
