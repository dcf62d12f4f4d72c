"""A mixture of diagonal Gaussians over whole action chunks, after robomimic's GMM (Mandlekar et al. 2021).

One component is drawn for the chunk, not for each step: a plan that goes left goes left throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robolearn.configuration.parts.policy import MixtureHeadConfig
from robolearn.policies.distributions import ActionDistribution, normal_log_prob, sum_steps
from robolearn.policies.heads.head import Head, bounded
from robolearn.policies.noise import Noise


class GaussianMixture(ActionDistribution):
    """Weights (B, K) as logits; mean and std are (B, K, Tp, A)."""

    def __init__(self, logits: Tensor, mean: Tensor, std: Tensor) -> None:
        self.log_weights, self.mean, self.std = F.log_softmax(logits, dim=-1), mean, std

    def log_prob(self, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        per_step = normal_log_prob(actions.unsqueeze(-3), self.mean, self.std).sum(-1)
        components = sum_steps(per_step, None if valid is None else valid.unsqueeze(-2))
        terms = self.log_weights + components
        # A component e^-40 below the best adds nothing in float32, but its gradients would be denormal numbers, and
        # matrix products of those take several times as long.
        negligible = terms.detach() < terms.detach().amax(-1, keepdim=True) - 40.0
        return torch.logsumexp(terms.masked_fill(negligible, -torch.inf), dim=-1)

    def sample(self, noise: Noise) -> Tensor:
        component = self._component(noise)
        mean, std = _pick(self.mean, component), _pick(self.std, component)
        return (mean + std * noise.normal(*mean.shape[1:])).detach()

    def sample_likely(self, noise: Noise, min_p: float) -> Tensor:
        """Return the mean of a component, drawn by weight from those of at least `min_p` of the heaviest weight."""
        return _pick(self.mean, self._component(noise, min_p)).detach()

    def mode(self) -> Tensor:
        return _pick(self.mean, self.log_weights.argmax(-1))

    def entropy(self, noise: Noise, samples: int = 8) -> Tensor:
        """Estimate the entropy (B,) from samples of each component, weighted exactly, so that gradients reach all:
        H = -sum_k w_k E_(x ~ N_k)[log p(x)]."""
        total = torch.zeros_like(self.log_weights)
        for _ in range(samples):
            draws = self.mean + self.std * noise.normal(*self.mean.shape[1:])
            # (B, K, Tp, A) actions against every component: (K, B, Tp, A) -> (K, B).
            total = total + self.log_prob(draws.transpose(0, 1)).transpose(0, 1)
        return -(self.log_weights.exp() * total).sum(-1) / samples

    def _component(self, noise: Noise, min_p: float = 0.0) -> Tensor:
        """Draw components (B,) by inverting the cumulative sum of the weights that are not left out."""
        weights = self.log_weights.detach().exp()
        kept = weights.where(weights >= min_p * weights.amax(-1, keepdim=True), 0.0).cumsum(-1)
        return (noise.uniform(1) * kept[:, -1:] >= kept[:, :-1]).sum(-1)


class MixtureHead(Head):
    """One linear layer for weights, means (bounded) and standard deviations (softplus + floor) of K components."""

    exact_likelihood = True

    def __init__(self, config: MixtureHeadConfig, *, feature_size: int, pred_steps: int, action_size: int) -> None:
        super().__init__()
        self.min_std, self.low_noise, self.min_p = config.min_std, config.low_noise, config.min_p
        self.shape = (config.num_modes, pred_steps, action_size)
        size = config.num_modes * pred_steps * action_size
        self.sizes = [config.num_modes, size, size]
        self.linear = nn.Linear(feature_size, sum(self.sizes))

    def distribution(self, features: Tensor) -> GaussianMixture:
        # Densities need float32 also where autocast runs the layers in less.
        logits, mean, raw_std = self.linear(features).float().split(self.sizes, dim=-1)
        std = F.softplus(raw_std) + self.min_std
        return GaussianMixture(logits, bounded(mean).view(-1, *self.shape), std.view(-1, *self.shape))

    def loss(self, features: Tensor, actions: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        distribution = self.distribution(features)
        losses = -distribution.log_prob(actions, valid) / valid.sum(-1).clamp_min(1)
        return losses, {"std": distribution.std.detach().mean()}

    def act(self, features: Tensor, *, deterministic: bool, noise: Noise) -> Tensor:
        distribution = self.distribution(features)
        if deterministic:
            return distribution.mode()
        return distribution.sample_likely(noise, self.min_p) if self.low_noise else distribution.sample(noise)


def _pick(parameters: Tensor, component: Tensor) -> Tensor:
    """Pick each row's component: (B, K, Tp, A) and (B,) -> (B, Tp, A)."""
    return parameters[torch.arange(len(component), device=component.device), component]
