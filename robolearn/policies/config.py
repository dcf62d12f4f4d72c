"""Configuration of policies: encoders x backbone x action head. Free of torch, so that the command line starts fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """Fully connected layers on the flattened observation history."""

    name: Literal["mlp"] = "mlp"
    hidden_sizes: tuple[int, ...] = (1024, 1024)
    """Units of each hidden layer."""
    activation: Literal["relu", "tanh", "gelu", "silu"] = "relu"
    """Non-linearity after each layer."""
    layer_norm: bool = False
    """Normalise each layer's output."""
    dropout: float = 0.0
    """Probability of dropping a unit while training."""


@dataclass(frozen=True, kw_only=True)
class LSTMConfig:
    """A recurrent network run over the observation history."""

    name: Literal["lstm"] = "lstm"
    hidden_size: int = 400
    """Units of each layer."""
    num_layers: int = 2
    """Stacked layers."""


@dataclass(frozen=True, kw_only=True)
class DeterministicHeadConfig:
    """A point estimate trained with a squared or absolute error; averages over modes, kept as the baseline."""

    name: Literal["deterministic"] = "deterministic"
    error: Literal["l2", "l1"] = "l2"
    """Error that is minimised."""


@dataclass(frozen=True, kw_only=True)
class GaussianHeadConfig:
    """A diagonal Gaussian, squashed by tanh or not."""

    name: Literal["gaussian"] = "gaussian"
    squash: bool = True
    """Squash samples into (-1, 1) with tanh (needed by SAC); otherwise the mean is squashed and samples are not."""
    state_dependent_std: bool = True
    """Predict the standard deviation from the observation instead of learning one vector."""
    min_std: float = 1e-3
    """Smallest standard deviation."""
    initial_std: float = 0.5
    """Standard deviation at initialisation."""


@dataclass(frozen=True, kw_only=True)
class MixtureHeadConfig:
    """A mixture of diagonal Gaussians over the whole chunk, means squashed by tanh (robomimic's GMM)."""

    name: Literal["mixture"] = "mixture"
    num_modes: int = 5
    """K, the number of components."""
    min_std: float = 1e-3
    """Added to softplus to keep components from collapsing."""


BackboneConfig = MLPConfig | LSTMConfig
HeadConfig = DeterministicHeadConfig | GaussianHeadConfig | MixtureHeadConfig


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What a policy is made of."""

    obs_keys: tuple[str, ...] = ()
    """Observation keys the policy sees; empty means all that the data set has."""
    obs_steps: int = 1
    """To, observation steps the policy sees."""
    pred_steps: int = 1
    """Tp, action steps predicted at once."""
    exec_steps: int = 1
    """Ta, predicted steps that are executed before the policy is asked again."""
    obs_normalisation: Literal["mean_std", "min_max", "quantile", "none"] = "mean_std"
    """How low-dimensional observations are scaled; statistics are stored in the policy."""
    action_normalisation: Literal["none", "min_max", "mean_std", "quantile"] = "none"
    """How actions (already in [-1, 1]) are scaled before the head sees them."""
    backbone: BackboneConfig = field(default_factory=MLPConfig)
    """Network between the encoders and the action head."""
    head: HeadConfig = field(default_factory=MixtureHeadConfig)
    """Action distribution."""

    def __post_init__(self) -> None:
        for name in ("obs_steps", "pred_steps", "exec_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, received {getattr(self, name)}")
        if self.exec_steps > self.pred_steps:
            raise ConfigError(
                f"exec_steps must not exceed pred_steps, received {self.exec_steps} > {self.pred_steps}; "
                "a policy can only execute what it predicted"
            )
