"""The one policy object: cloned, corrected and fine-tuned without conversion.

A policy is a function of an observation window (B, To, ...). What changes between calls (history, chunk queue, noise)
belongs to `PolicyRunner`, so that training, PPO's ratio and a robot see the same function.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.contract import Interface
from robolearn.errors import PolicyError
from robolearn.policies.distributions import ActionDistribution, AffineDistribution
from robolearn.policies.heads.head import Head
from robolearn.policies.noise import BatchNoise, FixedNoise, Noise
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
    def parts(self) -> dict[str, Any]:
        """The arguments that made it, for a policy that takes its parts over."""
        return {
            "config": self.config,
            "observation_spec": self.observation_spec,
            "action_spec": self.action_spec,
            "encoder": self.encoder,
            "backbone": self.backbone,
            "head": self.head,
            "action_normaliser": self.action_normaliser,
        }

    def interface(self, name: str = "the policy") -> Interface:
        """Return what the policy sees and does, to be reconciled with a file or an environment."""
        return Interface(name=name, observation_spec=self.observation_spec, action_spec=self.action_spec)

    @property
    def kind(self) -> str:
        """What it is, in words: its head and its backbone."""
        return f"{self.config.head.name} on {self.config.backbone.name}"

    @property
    def exact_likelihood(self) -> bool:
        return self.head.exact_likelihood

    @property
    def planner(self) -> Policy:
        """The policy whose chunks are executed: this one, or the one that it corrects."""
        return self

    @property
    def corrections(self) -> tuple[Policy, ...]:
        """Policies of single steps that correct the planner's actions, in this order; see `residual`."""
        return ()

    @property
    def learning_part(self) -> Policy:
        """What training may change: all of it, or what was learned beside a base that stays as it is."""
        return self

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the behaviour-cloning loss of a batch, a scalar, and scalar metrics (detached)."""
        losses, weights, metrics = self.losses(batch)
        loss = (losses * weights).sum() / weights.sum().clamp_min(1e-8)  # L = sum_i w_i l_i / sum_i w_i
        return loss, {"loss": loss.detach(), **metrics}

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return the terms of the behaviour-cloning loss, for a caller who shares out a batch to average.

        A causal backbone is trained on every observation step of the window, each with its own chunk.

        Returns:
            Losses (M,), their weights (M,), which follow `batch.weights`, and scalar metrics (detached); M is B, or
            B * To where the backbone is causal.
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
        return losses, weights, metrics

    def features(self, obs: dict[str, Tensor], *, every_step: bool = False) -> Tensor:
        """Encode observations (B, To, ...) -> (B, D); with `every_step`, (B, To, D) where the backbone is causal."""
        features = self.backbone(self.encoder(obs))
        return features if every_step or features.ndim == 2 else features[:, -1]

    def distribution(self, obs: dict[str, Tensor]) -> ActionDistribution:
        """Return the density over chunks (B, Tp, A) in file units given windows (B, To, ...).

        Raises PolicyError for heads without an exact likelihood (deterministic, diffusion, flow, ACT).
        """
        if not self.exact_likelihood:
            raise PolicyError(
                f"a policy with head {self.config.head.name!r} has no exact log-probability; "
                "use a head that has one (gaussian, mixture or autoregressive)"
            )
        normaliser = self.action_normaliser
        inner = self.head.distribution(self.features(obs))
        return inner if normaliser.is_identity else AffineDistribution(inner, normaliser.offset, normaliser.scale)

    def act(self, obs: dict[str, Tensor], *, deterministic: bool = False, noise: Noise | None = None) -> Tensor:
        """Return chunks (B, Tp, A) in file units, clipped to [-1, 1], given windows (B, To, ...).

        Args:
            deterministic: the mode instead of a sample; heads without a mode (diffusion, flow) draw from `noise`.
            noise: where draws come from; None uses torch's global generator, or fixed numbers where deterministic.
        """
        features = self.features(obs)
        if noise is None:
            noise = (FixedNoise if deterministic else BatchNoise)(features.shape[0], features.device)
        chunk = self.head.act(features, deterministic=deterministic, noise=noise)
        return self.action_normaliser.denormalise(chunk).clamp(-1.0, 1.0)
