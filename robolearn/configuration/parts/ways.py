"""Ways of fine-tuning a policy, one class each, told apart by `name`; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robolearn.configuration.parts.algorithms import CriticConfig, PPOConfig, QConfig, SACConfig, TD3Config
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.tree.bounds import MAX_STEPS, check_range
from robolearn.errors import ConfigError


def _check_scaling(algorithm: PPOConfig | SACConfig | TD3Config) -> None:
    if algorithm.normalise_obs:
        raise ConfigError("fine-tuning sees observations by the policy's own scaling; leave normalise_obs out")


@dataclass(frozen=True, kw_only=True)
class _PracticeConfig(PPOConfig):
    """What the ways by PPO share."""

    epochs: int = 5
    batch_size: int = 512
    critic_learning_rate: float | None = 1e-3
    critic_warmup: int = 2
    critic: CriticConfig = field(default_factory=CriticConfig)
    """The value network."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_scaling(self)


@dataclass(frozen=True, kw_only=True)
class _ClonedConfig(_PracticeConfig):
    """What those share that change the cloned policy itself: demonstrations to go back to."""

    cloning_coef: float = 0.1
    """Weight of the cloning loss on the `demonstrations`, where any are named; it falls with `prior_decay`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "cloning_coef", low=0)


@dataclass(frozen=True, kw_only=True)
class PPOTuningConfig(_ClonedConfig):
    """PPO on a policy with an exact likelihood (gaussian, mixture, autoregressive): small steps from where it is."""

    name: Literal["ppo"] = "ppo"
    num_steps: int = 128
    learning_rate: float = 1e-5
    clip: float = 0.1
    target_kl: float | None = 0.01
    min_std: float | None = 0.1
    """Raise the head's smallest standard deviation to this: what cloning was sure of must be explored again, and a
    ratio of nearly deterministic densities says nothing. The policy's mode stays what it was; none leaves the head."""


@dataclass(frozen=True, kw_only=True)
class ChainPPOConfig(_ClonedConfig):
    """PPO on the steps of a diffusion or flow policy's chain (DPPO): small steps from where it is."""

    name: Literal["chain_ppo"] = "chain_ppo"  # pyright: ignore[reportIncompatibleVariableOverride]
    num_steps: int = 64
    learning_rate: float = 1e-4
    clip: float = 0.01
    first_clip: float = 0.001
    """Clip of the first trained step; it grows to `clip` at the last."""
    trained_steps: int | None = None
    """Steps of the chain that are trained, the last ones; a network of their own runs them, and the features stay as
    they are. None trains all, features included."""
    denoising_gamma: float = 0.99
    """Discount of the advantage for each step of the chain that follows: early steps decide less."""
    min_std: float = 0.1
    """Smallest standard deviation of a step while exploring, in normalised action units; nothing but this explores
    where the sampler adds no noise (flow, ddim with eta 0)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.first_clip <= self.clip:
            raise ConfigError(f"first_clip must lie in (0, clip {self.clip}], received {self.first_clip}")
        if not self.min_std > 0.0:
            raise ConfigError(f"min_std must be positive: steps without noise have no density; received {self.min_std}")
        if not 0.0 < self.denoising_gamma <= 1.0:
            raise ConfigError(f"denoising_gamma must lie in (0, 1], received {self.denoising_gamma}")
        for name in ("entropy_coef", "compile"):
            if getattr(self, name):
                raise ConfigError(f"chain_ppo has no {name}, received {getattr(self, name)}; leave it out")


def _robust_critics() -> QConfig:
    """Critics that stay in bounds at many gradient steps for each transition (RLPD)."""
    return QConfig(hidden_sizes=(256, 256), members=5, subset=2, layer_norm=True)


@dataclass(frozen=True, kw_only=True)
class SACTuningConfig(SACConfig):
    """SAC on a cloned tanh-Gaussian, with demonstrations in half of each batch (RLPD)."""

    name: Literal["sac"] = "sac"
    n_step: int = 3
    random_steps: int = 5_000
    """Control steps of the policy itself before learning begins."""
    collect_steps: int = 32
    utd: float = 0.5
    policy_delay: int = 2
    critic_warmup: int = 2_000
    temperature: float = 0.001
    target_entropy: float | None = None
    """Entropy of the policy in nats; none takes minus half the number of action dimensions (RLPD)."""
    entropy_backup: bool = False
    actor_value: Literal["min", "mean"] = "mean"
    critic: QConfig = field(default_factory=_robust_critics)
    min_std: float | None = 0.05
    """Raise the head's smallest standard deviation to this, in the units before tanh; none leaves the head."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_scaling(self)


def _correction() -> PolicyConfig:
    return PolicyConfig(
        obs_clip=10.0,
        backbone=MLPConfig(hidden_sizes=(256, 256), layer_norm=True),
        head=GaussianHeadConfig(initial_std=0.2),
    )


@dataclass(frozen=True, kw_only=True)
class ResidualConfig:
    """A small correction of a frozen policy's every action, learned off-policy: any head, chunks included (ResFiT)."""

    name: Literal["residual"] = "residual"
    algorithm: SACTuningConfig | TD3Config = field(default_factory=SACTuningConfig)
    """What learns the correction; `random_steps` are the base's own."""
    scale: float = 0.2
    """Size of the largest correction, of the way from 0 to 1 that an action can take."""
    first_scale: float = 0.05
    """Its size at first."""
    scale_steps: int = 10_000
    """Gradient steps after the critics' warm-up over which it grows from the one to the other."""
    policy: PolicyConfig = field(default_factory=_correction)
    """The correction: a tanh-Gaussian of one step; `obs_keys` names what it sees, empty means what the base sees. Keys
    are seen whole, velocities too: reward does not mislead it as demonstrations do. `obs_clip` holds critics in bounds
    where practice leaves what was demonstrated."""

    def __post_init__(self) -> None:
        _check_scaling(self.algorithm)
        check_range(self, "scale_steps", low=0, high=MAX_STEPS)
        if not 0.0 < self.first_scale <= self.scale <= 2.0:
            raise ConfigError(f"need 0 < first_scale <= scale <= 2, received {self.first_scale} and {self.scale}")

    @property
    def learning_rate(self) -> float:
        return self.algorithm.learning_rate


@dataclass(frozen=True, kw_only=True)
class ResidualPPOConfig(_PracticeConfig):
    """The same correction learned by PPO (ResIP): many more steps of practice, and none of a critic's wishes."""

    name: Literal["residual_ppo"] = "residual_ppo"  # pyright: ignore[reportIncompatibleVariableOverride]
    num_steps: int = 64
    batch_size: int = 2048
    learning_rate: float = 3e-4
    gamma: float = 0.98
    target_kl: float | None = 0.02
    scale: float = 0.2
    """Size of the largest correction, of the way from 0 to 1 that an action can take."""
    policy: PolicyConfig = field(default_factory=_correction)
    """The correction, as of `residual`; its deviations count in units of the scale."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.scale <= 2.0:
            raise ConfigError(f"need 0 < scale <= 2, received {self.scale}")


def _noise_critics() -> QConfig:
    return QConfig(hidden_sizes=(256, 256), members=2, subset=2, layer_norm=True)


def _steering() -> PolicyConfig:
    return PolicyConfig(
        obs_clip=10.0,
        backbone=MLPConfig(hidden_sizes=(256, 256), layer_norm=True),
        head=GaussianHeadConfig(),
    )


@dataclass(frozen=True, kw_only=True)
class SteeringConfig:
    """The noise that a frozen diffusion or flow policy begins from, learned off-policy (DSRL)."""

    name: Literal["steering"] = "steering"
    algorithm: SACTuningConfig = field(default_factory=SACTuningConfig)
    """What learns it; `random_steps` are the base's own, `critic` values executed chunks."""
    noise_critic: QConfig = field(default_factory=_noise_critics)
    """Critics of noise, which are shown what those of chunks say, and which the steering climbs."""
    bound: float = 1.5
    """Largest noise, in deviations of what the base draws by itself."""
    share_steps: int = 10_000
    """Gradient steps after the critics' warm-up over which the steering takes over from the base's own draws."""
    policy: PolicyConfig = field(default_factory=_steering)
    """The steering: a tanh-Gaussian; `obs_keys` names what it sees, empty means what the base sees. Its steps are the
    base's."""

    def __post_init__(self) -> None:
        _check_scaling(self.algorithm)
        check_range(self, "share_steps", low=0, high=MAX_STEPS)
        if not self.bound > 0.0:
            raise ConfigError(f"bound must be positive, received {self.bound}")
        if self.algorithm.compile:
            raise ConfigError("steering has no compile, received True; leave it out")
        steps = (self.policy.obs_steps, self.policy.pred_steps, self.policy.exec_steps)
        if steps != (1, 1, 1):
            raise ConfigError(
                "a steering sees and plans as many steps as its base; leave policy.obs_steps, pred_steps and "
                f"exec_steps out, received {steps}"
            )

    @property
    def learning_rate(self) -> float:
        return self.algorithm.learning_rate


Way = PPOTuningConfig | ChainPPOConfig | ResidualConfig | ResidualPPOConfig | SACTuningConfig | SteeringConfig
"""Ways of fine-tuning, told apart by `name`."""

OFF_POLICY = (ResidualConfig, SACTuningConfig, SteeringConfig)
"""Those that learn from a replay, and so from what others did, too."""
