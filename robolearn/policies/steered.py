"""A frozen diffusion or flow policy and a steering of the noise that it begins from, as one policy.

    z ~ N(0, 1) ────────────────────────────────────────┐
    observation ──┬──▶ steering: u in (-1, 1) per number ──▶ w = sqrt(1 - share^2) z + share bound u
                  └──▶ base: its sampler without noise of its own, from w ──▶ chunk

At share 0 w is the base's own draw: the steered policy is the base, bit for bit. At share 1 the steering alone decides.
It acts in chunks, as its base does, through `PolicyRunner` and `RealtimeRunner` like any other.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.errors import PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.distributions import ActionDistribution
from robolearn.policies.heads.chain import ChainHead
from robolearn.policies.noise import BatchNoise, FixedNoise, GivenNoise, Noise
from robolearn.policies.policy import Policy
from robolearn.policies.residual import not_cloned, take_over_normalisers
from robolearn.specs import Batch


class Steering(Policy):
    """A policy whose actions are the noise that another one begins from.

    Its head speaks of u, noise in units of the bound; so do its distribution and its log-probabilities.
    """

    bound: Tensor
    """Largest noise that it can ask for; a buffer, saved with the weights."""
    share: Tensor
    """How much of the noise it decides on, of 1; a buffer, so that it may grow while training."""

    def __init__(self, networks: Policy, bound: float = 1.0, share: float = 0.0) -> None:
        """
        Args:
            networks: whose parts this policy takes over.

        Raises PolicyError where they do not make bounded noise.
        """
        super().__init__(**networks.parts)
        self.register_buffer("bound", torch.tensor(float(bound)))
        self.register_buffer("share", torch.tensor(float(share)))
        if not networks.head.reparameterised or networks.config.action_normalisation != "none":
            raise PolicyError(
                "a steering makes bounded noise by a tanh-Gaussian: head gaussian with squash true, "
                f"action_normalisation none; received {networks.config.head} and "
                f"{networks.config.action_normalisation!r}"
            )

    @property
    def kind(self) -> str:
        return f"steering by {super().kind}"

    def sample(self, obs: dict[str, Tensor], noise: Noise) -> tuple[Tensor, Tensor]:
        """Return noise w (B, Tp, A) to begin from, given windows (B, To, ...), and log-probabilities (B,) of u."""
        drawn = self._drawn(noise)
        u, log_prob = self.distribution(obs).sample_with_log_prob(noise)
        return self._steered(drawn, u), log_prob

    def mode(self, obs: dict[str, Tensor], noise: Noise) -> Tensor:
        """Return noise w (B, Tp, A) by the mode of u; what it does not decide on is drawn all the same."""
        return self._steered(self._drawn(noise), self.distribution(obs).mode())

    def act(self, obs: dict[str, Tensor], *, deterministic: bool = False, noise: Noise | None = None) -> Tensor:
        """Raise PolicyError: noise is no action."""
        raise PolicyError("a steering makes noise, which its base turns into actions; act by the SteeredPolicy of both")

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Raise PolicyError: a steering is learned from reward."""
        raise not_cloned("a steering")

    def _drawn(self, noise: Noise) -> Tensor:
        return noise.normal(self.config.pred_steps, self.action_spec.size)

    def _steered(self, drawn: Tensor, u: Tensor) -> Tensor:
        # The squares of the weights add up to one, so that between the two w is about as large as what the base knows.
        return (1.0 - self.share.square()).sqrt() * drawn + self.share * self.bound * u


class SteeredPolicy(Policy):
    """A frozen base and its steering. It sees, plans and executes as many steps as its base."""

    def __init__(self, base: Policy, steering: Steering) -> None:
        """Raises PolicyError where the base cannot be steered, or not by this steering."""
        super(Policy, self).__init__()
        check_steerable(base)
        ours, theirs = steering.config, base.config
        steps = [(c.obs_steps, c.pred_steps, c.exec_steps) for c in (ours, theirs)]
        unknown = [key for key, spec in steering.observation_spec.items() if base.observation_spec.get(key) != spec]
        if unknown or steps[0] != steps[1] or base.action_spec != steering.action_spec:
            raise PolicyError(
                f"a steering of {steering.action_spec.names} that sees {steering.observation_spec.to_dict()}, with "
                f"obs_steps, pred_steps and exec_steps {steps[0]}, is not one of a policy for {base.action_spec.names} "
                f"that sees {base.observation_spec.to_dict()}, with {steps[1]}"
            )
        self.config, self.action_spec, self.observation_spec = base.config, base.action_spec, base.observation_spec
        self.base, self.steering = base.eval().requires_grad_(False), steering

    @property
    def kind(self) -> str:
        return f"{self.base.kind}, steered"

    @property
    def encoder(self) -> nn.Module:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The base's, which knows what the data was like."""
        return self.base.encoder

    @property
    def exact_likelihood(self) -> bool:
        return False

    @property
    def learning_part(self) -> Steering:
        return self.steering

    def decode(self, obs: dict[str, Tensor], w: Tensor) -> Tensor:
        """Return the base's chunks (B, Tp, A) in file units, from noise w (B, Tp, A), given windows (B, To, ...)."""
        return self.base.act(obs, deterministic=True, noise=GivenNoise(w))

    def act(self, obs: dict[str, Tensor], *, deterministic: bool = False, noise: Noise | None = None) -> Tensor:
        """Return chunks (B, Tp, A) in file units given windows (B, To, ...).

        Args:
            deterministic: the mode of the steering instead of a sample; its share of the noise, the rest is drawn.
        """
        if noise is None:
            rows, device = len(next(iter(obs.values()))), self.steering.share.device
            noise = (FixedNoise if deterministic else BatchNoise)(rows, device)
        w = self.steering.mode(obs, noise) if deterministic else self.steering.sample(obs, noise)[0]
        return self.decode(obs, w)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Raise PolicyError: a steered policy is not cloned."""
        raise not_cloned("a steered policy")

    def features(self, obs: dict[str, Tensor], *, every_step: bool = False) -> Tensor:
        """Raise PolicyError: base and steering have features of their own."""
        raise PolicyError("a steered policy has no features; ask its base, or its steering")

    def distribution(self, obs: dict[str, Tensor]) -> ActionDistribution:
        """Raise PolicyError: the density of its chunks is not known."""
        raise PolicyError(
            "a steered policy has no exact log-probability of its chunks; improve it by finetune --method residual, "
            "which corrects it"
        )


def check_steerable(base: Policy) -> None:
    """Raise PolicyError where the noise that a policy begins from is not all that its chunk depends on."""
    if base.learning_part is not base:
        raise PolicyError(
            f"steering is of a diffusion or flow policy itself, and this one is {base.kind}; steer its base (the "
            "folder `base` within), or correct this one further: method residual or residual_ppo"
        )
    head = base.head
    if not isinstance(head, ChainHead):
        raise PolicyError(
            "steering chooses the noise that a diffusion or flow policy begins from, this policy has head "
            f"{base.config.head.name!r}; method residual takes any policy as its base"
        )
    if head.adds_noise:
        raise PolicyError(
            f"steering needs a sampler without noise of its own, this one draws more at every step "
            f"({base.config.head}); its network serves other samplers as it is: set solver ddim and eta 0 under "
            "policy.head in the policy folder's config.yaml"
        )


def build_steering(config: PolicyConfig, base: Policy, bound: float) -> Steering:
    """Return a fresh steering of `base` whose share is zero: it begins as the base does, and u at a mode of zero.

    It sees what the base sees (`config.obs_keys` of it), by the base's normalisers, and as many steps.

    Raises PolicyError where the base cannot be steered, or has no normalisers to take over.
    """
    check_steerable(base)
    keys, theirs = config.obs_keys or tuple(base.observation_spec), base.config
    config = replace(
        config,
        obs_keys=keys,
        obs_steps=theirs.obs_steps,
        pred_steps=theirs.pred_steps,
        exec_steps=theirs.exec_steps,
    )
    networks = build_policy(config, base.observation_spec, base.action_spec)
    take_over_normalisers(networks, base)
    networks.head.start_at_zero()
    return Steering(networks, bound).to(next(base.parameters()).device)
