"""A frozen policy and a small correction of each of its actions, as one policy (residual learning).

    observation ──┬──▶ base: any policy, its chunks executed in turn ──▶ b ──┬──▶ a = clamp(b + scale c)
                  └──▶ correction: one step, sees b as well ──▶ c in (-1, 1) ──┘

The base may be a corrected policy itself. `PolicyRunner` and `RealtimeRunner` ask the base for b; RL trains the
correction in an environment that shows b (`robolearn.rl.collecting.base_env`).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.errors import PolicyError
from robolearn.policies.build import build_policy
from robolearn.policies.distributions import ActionDistribution
from robolearn.policies.encoders import LowDimEncoder, ObservationEncoder
from robolearn.policies.noise import Noise
from robolearn.policies.policy import Policy
from robolearn.specs import ActionSpec, ArraySpec, Batch, ObservationSpec

BASE_ACTION = "base_action"
"""Observation key of the action (A,) that is to be corrected."""


class CorrectedDistribution(ActionDistribution):
    """Actions b + scale c of corrections c; beyond [-1, 1] where the correction asks for it.

    Log-probabilities are those of c: a temperature that is aimed at their mean need not know how large the scale is.
    """

    def __init__(self, corrections: ActionDistribution, base: Tensor, scale: Tensor) -> None:
        """
        Args:
            corrections: over (B, 1, A).
            base: (B, 1, A).
            scale: scalar.
        """
        self.corrections, self.base, self.scale = corrections, base, scale
        self.reparameterised = corrections.reparameterised

    def log_prob(self, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        return self.corrections.log_prob((actions - self.base) / self.scale, valid)

    def sample(self, noise: Noise) -> Tensor:
        return self.base + self.scale * self.corrections.sample(noise)

    def sample_with_log_prob(self, noise: Noise) -> tuple[Tensor, Tensor]:
        sample, log_prob = self.corrections.sample_with_log_prob(noise)
        return self.base + self.scale * sample, log_prob

    def mode(self) -> Tensor:
        return self.base + self.scale * self.corrections.mode()

    def entropy(self, noise: Noise, samples: int = 8) -> Tensor:
        return self.corrections.entropy(noise, samples)


class Correction(Policy):
    """A policy of single steps that sees the action proposed to it (`BASE_ACTION`) and returns the corrected one.

    Its head speaks of corrections; its actions and its distribution are b + scale c.
    """

    scale: Tensor
    """Size of the largest correction; a buffer, so that it may grow while training and is saved with the weights."""

    def __init__(self, networks: Policy, scale: float = 0.0) -> None:
        """
        Args:
            networks: whose parts this policy takes over.

        Raises PolicyError where they do not make corrections of single actions.
        """
        config = networks.config
        super().__init__(**networks.parts)
        self.register_buffer("scale", torch.tensor(float(scale)))
        if (config.obs_steps, config.pred_steps) != (1, 1) or not networks.head.reparameterised:
            raise PolicyError(
                "a correction sees one step and corrects one action by a tanh-Gaussian: obs_steps 1, pred_steps 1 and "
                f"head gaussian with squash true; received obs_steps {config.obs_steps}, pred_steps "
                f"{config.pred_steps} and head {config.head}"
            )
        if BASE_ACTION not in networks.observation_spec or config.action_normalisation != "none":
            raise PolicyError(
                f"a correction sees {BASE_ACTION!r} and its actions are not normalised; it sees "
                f"{list(networks.observation_spec)}, action_normalisation is {config.action_normalisation!r}"
            )

    @property
    def kind(self) -> str:
        return f"correction by {super().kind}"

    def distribution(self, obs: dict[str, Tensor]) -> CorrectedDistribution:
        """Return the density of corrections, over corrected actions (B, 1, A), given windows (B, 1, ...)."""
        return CorrectedDistribution(super().distribution(obs), obs[BASE_ACTION], self.scale)

    def act(self, obs: dict[str, Tensor], *, deterministic: bool = False, noise: Noise | None = None) -> Tensor:
        """Return corrected actions (B, 1, A) in [-1, 1] given windows (B, 1, ...), the proposed action among them."""
        correction = super().act(obs, deterministic=deterministic, noise=noise)
        return (obs[BASE_ACTION] + self.scale * correction).clamp(-1.0, 1.0)  # a = clamp(b + scale c)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Raise PolicyError: corrections are learned from reward."""
        raise not_cloned("a correction")


class ResidualPolicy(Policy):
    """A frozen base and its correction. It acts through `PolicyRunner` (or `RealtimeRunner`) alone.

    For whoever asks, its `config` is the base's: how many steps it sees, plans and executes.
    """

    def __init__(self, base: Policy, correction: Correction) -> None:
        """Raises PolicyError where the two do not see and do the same."""
        super(Policy, self).__init__()
        shared = ObservationSpec({k: v for k, v in correction.observation_spec.items() if k != BASE_ACTION})
        other = [key for key, spec in shared.items() if base.observation_spec.get(key, spec) != spec]
        if other or base.action_spec != correction.action_spec:
            raise PolicyError(
                f"a correction of {correction.action_spec.names} that sees {correction.observation_spec.to_dict()} is "
                f"not one of a policy for {base.action_spec.names} that sees {base.observation_spec.to_dict()}"
            )
        self.config, self.action_spec = base.config, base.action_spec
        self.observation_spec = ObservationSpec({**base.observation_spec, **shared})
        self.base, self.correction = base.eval().requires_grad_(False), correction

    @property
    def kind(self) -> str:
        return f"{self.base.kind}, corrected by up to {float(self.correction.scale):g}"

    @property
    def exact_likelihood(self) -> bool:
        return False

    @property
    def planner(self) -> Policy:
        return self.base.planner

    @property
    def corrections(self) -> tuple[Policy, ...]:
        return (*self.base.corrections, self.correction)

    @property
    def learning_part(self) -> Correction:
        return self.correction

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Raise PolicyError: a residual policy is not cloned."""
        raise not_cloned("a policy with a correction")

    def features(self, obs: dict[str, Tensor], *, every_step: bool = False) -> Tensor:
        """Raise PolicyError: base and correction have features of their own."""
        raise PolicyError("a policy with a correction has no features; ask its base, or its correction")

    def distribution(self, obs: dict[str, Tensor]) -> ActionDistribution:
        """Raise PolicyError: the density of its chunks is not known."""
        raise PolicyError(
            "a policy with a correction has no exact log-probability of its chunks; improve it by "
            "finetune --method residual, which corrects it once more"
        )

    def act(self, obs: dict[str, Tensor], *, deterministic: bool = False, noise: Noise | None = None) -> Tensor:
        """Raise PolicyError: what it does at a step depends on the chunk that its base is in the middle of."""
        raise PolicyError("a policy with a correction acts step by step, through robolearn.deploy.runner.PolicyRunner")


def not_cloned(what: str) -> PolicyError:
    """Return the error of cloning a policy that learns from reward."""
    return PolicyError(
        f"{what} is not trained by cloning, it learns from reward: finetune --method residual. To learn from more "
        "demonstrations or corrections, train the base (the folder `base` within), or a new policy (dagger: "
        "--from_scratch true)"
    )


def check_clonable(policy: Policy, place: object) -> None:
    """Raise PolicyError where demonstrations cannot train this policy any further."""
    if policy.learning_part is not policy:
        raise not_cloned(f"{place}, {policy.kind},")


def build_correction(config: PolicyConfig, base: Policy, scale: float = 0.0) -> Correction:
    """Return a fresh correction of `base` whose mode is exactly zero: it begins as the base does.

    It sees what the base sees (`config.obs_keys` of it), by the base's normalisers, and the base's action.

    Raises PolicyError where the base has no normalisers to take over.
    """
    keys = config.obs_keys or tuple(base.observation_spec)
    seen = base.observation_spec.select(keys)
    config = replace(config, obs_keys=(*keys, BASE_ACTION))
    networks = build_policy(config, with_action(seen, base.action_spec), base.action_spec)
    take_over_normalisers(networks, base)
    networks.head.start_at_zero()
    return Correction(networks, scale).to(next(base.parameters()).device)


def take_over_normalisers(networks: Policy, base: Policy) -> None:
    """Let fresh networks see observations by the normalisers of the policy that they are to stand beside.

    Raises PolicyError where that one has none.
    """
    known = _normalised_encoders(base)
    for key, encoder in _low_dim(networks).items():
        if key == BASE_ACTION:
            continue
        if key not in known or known[key].normaliser.is_identity:
            raise PolicyError(
                f"the policy to start from does not normalise {key!r}, so that what is learned beside it would not "
                "know its scale either; train the policy with policy.obs_normalisation mean_std, or leave the key out "
                "(policy.obs_keys)"
            )
        encoder.normaliser.load_state_dict(known[key].normaliser.state_dict())


def with_action(spec: ObservationSpec, actions: ActionSpec) -> ObservationSpec:
    """Return an observation with the base's action in it. Raises PolicyError where it has such a key already."""
    if BASE_ACTION in spec:
        raise PolicyError(
            f"the policy to correct sees a key {BASE_ACTION!r} itself; give it another name (task.rename)"
        )
    return ObservationSpec({**spec, BASE_ACTION: ArraySpec(shape=(actions.size,))})


def _normalised_encoders(policy: Policy) -> dict[str, LowDimEncoder]:
    """Return the encoders of low-dimensional keys of a policy and of all that it corrects, the innermost first."""
    return {k: v for part in (policy.planner, *policy.corrections) for k, v in _low_dim(part).items()}


def _low_dim(policy: Policy) -> dict[str, LowDimEncoder]:
    encoder = policy.encoder
    assert isinstance(encoder, ObservationEncoder)
    pairs = zip(encoder.keys, encoder.encoders.values())
    return {key: module for key, module in pairs if isinstance(module, LowDimEncoder)}
