"""Configuration of policies: encoders x backbone x action head. Free of torch, so that the command line starts fast."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self, Union

from robolearn.configuration.parts.plugins import BaseHeadConfig, NetworkConfig, PolicySettings, plugins
from robolearn.configuration.tree.bounds import MAX_CHUNK, MAX_UNITS, check_range
from robolearn.errors import ConfigError

UNBOUNDED = ("mean_std", "quantile")
"""Normalisations that put some of the recorded actions beyond [-1, 1]."""


def _require_positive(*values: tuple[str, float]) -> None:
    for name, value in values:
        if not value > 0:
            raise ConfigError(f"{name} must be positive, received {value}")


def _require_early_steps(early_steps: int, inference_steps: int) -> None:
    if not 0 <= early_steps < inference_steps:
        raise ConfigError(
            f"early_steps must lie between 0 and inference_steps ({inference_steps}) - 1, received {early_steps}"
        )


def _require_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} must lie in [0, 1], received {value}")


def _require_dropout(value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"dropout must lie in [0, 1), received {value}")


def _require_bounded_actions(head: str, policy: PolicySettings) -> None:
    if policy.action_normalisation in UNBOUNDED:
        raise ConfigError(
            f"head {head!r} bounds its means to [-1, 1], which action_normalisation "
            f"{policy.action_normalisation!r} does not keep; use 'none' or 'min_max'"
        )


@dataclass(frozen=True, kw_only=True)
class MLPConfig(NetworkConfig):
    """Fully connected layers on the flattened observation history."""

    module = "robolearn.policies.backbones:MLPBackbone"
    name: Literal["mlp"] = "mlp"
    hidden_sizes: tuple[int, ...] = (1024, 1024)
    """Units of each hidden layer."""
    activation: Literal["relu", "tanh", "elu", "gelu", "silu"] = "relu"
    """Non-linearity after each layer."""
    layer_norm: bool = False
    """Normalise each layer's output."""
    dropout: float = 0.0
    """Probability of dropping a unit while training."""

    def __post_init__(self) -> None:
        _require_positive(*(("hidden_sizes", size) for size in self.hidden_sizes or (0,)))
        check_range(self, "hidden_sizes", low=1, high=MAX_UNITS)
        _require_dropout(self.dropout)


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(NetworkConfig):
    """A recurrent network run over the observation history."""

    module = "robolearn.policies.backbones:LSTMBackbone"
    name: Literal["lstm"] = "lstm"
    hidden_size: int = 400
    """Units of each layer."""
    num_layers: int = 2
    """Stacked layers."""

    def __post_init__(self) -> None:
        _require_positive(("hidden_size", self.hidden_size), ("num_layers", self.num_layers))


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(NetworkConfig):
    """A causal transformer over the observation history, and over the tokens of pictures."""

    module = "robolearn.policies.transformer_backbone:TransformerBackbone"
    sees_tokens = True
    name: Literal["transformer"] = "transformer"
    width: int = 512
    """Size of the activations."""
    num_layers: int = 6
    """Transformer blocks."""
    num_heads: int = 8
    """Attention heads of each block."""
    dropout: float = 0.1
    """Probability of dropping a unit while training."""

    def __post_init__(self) -> None:
        _require_positive(*((name, getattr(self, name)) for name in ("width", "num_layers", "num_heads")))
        _require_dropout(self.dropout)


@dataclass(frozen=True, kw_only=True)
class DeterministicHeadConfig(BaseHeadConfig):
    """A point estimate trained with a squared or absolute error; averages over modes, kept as the baseline."""

    module = "robolearn.policies.heads.deterministic:DeterministicHead"
    name: Literal["deterministic"] = "deterministic"
    error: Literal["l2", "l1"] = "l2"
    """Error that is minimised."""


@dataclass(frozen=True, kw_only=True)
class GaussianHeadConfig(BaseHeadConfig):
    """A diagonal Gaussian, squashed by tanh or not."""

    module = "robolearn.policies.heads.gaussian:GaussianHead"
    name: Literal["gaussian"] = "gaussian"
    squash: bool = True
    """Squash samples into (-1, 1) with tanh (needed by SAC); otherwise they are clipped on their way to the robot."""
    bounded_mean: bool = True
    """Unless samples are squashed, keep the mean within 1.05 of zero: far beyond the limits every sample is clipped to
    the same action, and no reward tells them apart. False is PPO's usual form."""
    state_dependent_std: bool = True
    """Predict the standard deviation from the observation instead of learning one vector."""
    min_std: float = 1e-3
    """Smallest standard deviation."""
    max_std: float = 2.0
    """Largest one; a squashed Gaussian much wider than this splits into two modes at the limits."""
    initial_std: float = 0.5
    """Standard deviation at initialisation."""

    def __post_init__(self) -> None:
        if not 0.0 < self.min_std < self.initial_std < self.max_std:
            received = f"{self.min_std}, {self.initial_std}, {self.max_std}"
            raise ConfigError(f"need 0 < min_std < initial_std < max_std, received {received}")

    def check(self, policy: PolicySettings) -> None:
        if self.squash or self.bounded_mean:
            _require_bounded_actions(self.name, policy)

    def with_floor(self, min_std: float) -> Self:
        if self.min_std >= min_std:
            return self
        return replace(self, min_std=min_std, initial_std=max(self.initial_std, 2 * min_std))


@dataclass(frozen=True, kw_only=True)
class MixtureHeadConfig(BaseHeadConfig):
    """A mixture of diagonal Gaussians over the whole chunk, means squashed by tanh (robomimic's GMM)."""

    module = "robolearn.policies.heads.mixture:MixtureHead"
    name: Literal["mixture"] = "mixture"
    num_modes: int = 5
    """K, the number of components."""
    min_std: float = 1e-3
    """Added to softplus to keep components from collapsing."""
    low_noise: bool = True
    """A sampled action is the mean of a component drawn by its weight, as in robomimic's evaluations: the several ways
    of doing a thing without the unsteadiness of each. RL always explores with the whole density."""
    min_p: float = 0.2
    """Of the heaviest component's weight: lighter ones are never drawn with `low_noise` (0 keeps all). Little data
    shaped them, and what they do is seldom what anybody showed."""

    def __post_init__(self) -> None:
        _require_positive(("num_modes", self.num_modes), ("min_std", self.min_std))
        _require_share("min_p", self.min_p)

    def check(self, policy: PolicySettings) -> None:
        _require_bounded_actions(self.name, policy)

    def with_floor(self, min_std: float) -> Self:
        return self if self.min_std >= min_std else replace(self, min_std=min_std)


@dataclass(frozen=True, kw_only=True)
class AutoregressiveHeadConfig(BaseHeadConfig):
    """Each number of the chunk drawn from bins given those before it, then placed exactly inside its bin."""

    module = "robolearn.policies.heads.autoregressive:AutoregressiveHead"
    name: Literal["autoregressive"] = "autoregressive"
    num_bins: int = 32
    """Bins per dimension."""
    spacing: Literal["uniform", "quantile"] = "uniform"
    """Evenly spaced bins, or bins that hold equal shares of the demonstrated actions."""
    width: int = 128
    """Size of the transformer's activations."""
    num_layers: int = 2
    """Transformer blocks."""
    num_heads: int = 4
    """Attention heads of each block."""
    dropout: float = 0.0
    """Probability of dropping a unit while training."""
    min_scale: float = 1e-3
    """Smallest scale of the density inside a bin, in action units."""
    context_noise: float = 0.0
    """Noise on the earlier numbers while training, in action units, so that later ones look at the observation too."""
    min_p: float = 0.1
    """Sampled actions leave out bins less likely than this share of the likeliest one, and sit at the peak inside
    their bin: an error of one number is read by all that follow. RL always explores with the whole density."""

    def __post_init__(self) -> None:
        if self.num_bins < 2:
            raise ConfigError(f"num_bins must be at least 2, received {self.num_bins}")
        if self.min_scale <= 0:
            raise ConfigError(f"min_scale must be positive, received {self.min_scale}")
        _require_positive(*((name, getattr(self, name)) for name in ("width", "num_layers", "num_heads")))
        _require_dropout(self.dropout)
        _require_share("min_p", self.min_p)

    def check(self, policy: PolicySettings) -> None:
        if self.spacing == "uniform" and policy.action_normalisation == "mean_std":
            raise ConfigError(
                "head.spacing uniform divides [-1, 1], beyond which mean_std normalisation puts many actions; "
                "use head.spacing quantile, or action_normalisation min_max"
            )


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A 1-D convolutional U-Net over the chunk's steps, conditioned by FiLM (Diffusion Policy's)."""

    name: Literal["unet"] = "unet"
    channels: tuple[int, ...] = (256, 512, 1024)
    """Channels at each resolution; the chunk is halved between them."""
    kernel_size: int = 5
    """Steps each convolution sees."""
    num_groups: int = 8
    """Groups of the group normalisation."""
    time_size: int = 256
    """Features of the noise level."""

    def __post_init__(self) -> None:
        _require_positive(*((name, getattr(self, name)) for name in ("kernel_size", "num_groups", "time_size")))
        _require_positive(*(("channels", size) for size in self.channels or (0,)))


@dataclass(frozen=True, kw_only=True)
class DenoisingTransformerConfig:
    """A transformer over the chunk's steps, conditioned by adaptive layer norms."""

    name: Literal["transformer"] = "transformer"
    width: int = 256
    """Size of the activations."""
    num_layers: int = 8
    """Transformer blocks."""
    num_heads: int = 4
    """Attention heads of each block."""
    dropout: float = 0.0
    """Probability of dropping a unit while training."""

    def __post_init__(self) -> None:
        _require_positive(*((name, getattr(self, name)) for name in ("width", "num_layers", "num_heads")))
        _require_dropout(self.dropout)


@dataclass(frozen=True, kw_only=True)
class DenoisingMLPConfig:
    """Residual fully connected layers over the flattened chunk: the cheapest denoiser, for state observations."""

    name: Literal["mlp"] = "mlp"
    width: int = 256
    """Units of each layer."""
    num_blocks: int = 3
    """Residual blocks of two layers."""
    time_size: int = 32
    """Features of the noise level."""

    def __post_init__(self) -> None:
        _require_positive(("width", self.width), ("num_blocks", self.num_blocks), ("time_size", self.time_size))


DenoiserConfig = UNetConfig | DenoisingTransformerConfig | DenoisingMLPConfig


@dataclass(frozen=True, kw_only=True)
class DiffusionHeadConfig(BaseHeadConfig):
    """Denoising diffusion over action chunks (Diffusion Policy)."""

    module = "robolearn.policies.heads.diffusion:DiffusionHead"
    name: Literal["diffusion"] = "diffusion"
    network: DenoiserConfig = field(default_factory=DenoisingMLPConfig)
    """The denoiser: mlp trains on a processor, unet is the published one, for long chunks and a GPU."""
    prediction: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    """Target of the network: the noise, the clean chunk, or the velocity between them."""
    train_steps: int = 100
    """Noise levels."""
    schedule: Literal["squaredcos_cap_v2", "linear", "scaled_linear"] = "squaredcos_cap_v2"
    """Growth of the noise over the levels."""
    solver: Literal["ddpm", "ddim", "dpm"] = "ddim"
    """Sampler: ancestral, deterministic (with eta 0), or the second-order multistep solver DPM-Solver++."""
    inference_steps: int = 10
    """Denoising steps when acting."""
    eta: float = 0.0
    """Noise of the ddim sampler: 0 none, 1 as much as ddpm."""
    clip: float = 1.0
    """Bound on the predicted clean chunk, in normalised units; 0 for none."""
    early_steps: int = 0
    """First steps that are run by a network of their own: fine-tuning that trains the last steps only leaves such a
    policy. 0 runs one network throughout."""

    def __post_init__(self) -> None:
        if not 1 <= self.inference_steps <= self.train_steps:
            raise ConfigError(
                f"inference_steps must lie between 1 and train_steps ({self.train_steps}), "
                f"received {self.inference_steps}"
            )
        if self.prediction == "epsilon" and self.inference_steps == 1:
            raise ConfigError(
                "predicted noise says nothing of the chunk after a single step: with inference_steps 1 use prediction "
                "sample or v_prediction, or take more steps"
            )
        _require_share("eta", self.eta)
        _require_early_steps(self.early_steps, self.inference_steps)
        if self.clip < 0:
            raise ConfigError(f"clip must not be negative, received {self.clip}")

    def check(self, policy: PolicySettings) -> None:
        if self.clip and policy.action_normalisation in UNBOUNDED:
            raise ConfigError(
                f"head.clip {self.clip} would cut off actions that {policy.action_normalisation} normalisation "
                "puts beyond it; use action_normalisation min_max, or head.clip 0"
            )


@dataclass(frozen=True, kw_only=True)
class FlowHeadConfig(BaseHeadConfig):
    """Flow matching along straight lines from noise to action chunks."""

    module = "robolearn.policies.heads.flow:FlowHead"
    name: Literal["flow"] = "flow"
    network: DenoiserConfig = field(default_factory=DenoisingMLPConfig)
    """The velocity network: mlp trains on a processor, unet is for long chunks and a GPU."""
    inference_steps: int = 10
    """Integration steps when acting."""
    solver: Literal["euler", "midpoint"] = "euler"
    """Integrator; midpoint asks the network twice a step."""
    time_sampling: Literal["uniform", "beta"] = "uniform"
    """Training times: even, or with more weight on the noisy end (pi0's Beta(1.5, 1))."""
    early_steps: int = 0
    """First steps that are run by a network of their own: fine-tuning that trains the last steps only leaves such a
    policy. 0 runs one network throughout."""

    def __post_init__(self) -> None:
        if self.inference_steps < 1:
            raise ConfigError(f"inference_steps must be at least 1, received {self.inference_steps}")
        _require_early_steps(self.early_steps, self.inference_steps)


@dataclass(frozen=True, kw_only=True)
class ACTHeadConfig(BaseHeadConfig):
    """A conditional variational auto-encoder of transformers that predicts the whole chunk at once (ACT)."""

    module = "robolearn.policies.heads.act:ACTHead"
    name: Literal["act"] = "act"
    width: int = 512
    """Size of the activations."""
    num_heads: int = 8
    """Attention heads of each block."""
    encoder_layers: int = 4
    """Blocks of the style encoder, and of the encoder of features and style."""
    decoder_layers: int = 7
    """Blocks of the decoder."""
    latent_size: int = 32
    """Size of the style variable."""
    kl_weight: float = 10.0
    """Weight of the style's divergence from its prior."""
    dropout: float = 0.1
    """Probability of dropping a unit while training."""

    def __post_init__(self) -> None:
        sizes = ("width", "num_heads", "encoder_layers", "decoder_layers", "latent_size")
        _require_positive(*((name, getattr(self, name)) for name in sizes))
        _require_dropout(self.dropout)


@dataclass(frozen=True, kw_only=True)
class ActionValuesHeadConfig(BaseHeadConfig):
    """A value for each discrete action, of which the best is taken: what DQN learns."""

    module = "robolearn.policies.heads.action_values:ActionValuesHead"
    discrete = True
    name: Literal["values"] = "values"

    def check(self, policy: PolicySettings) -> None:
        if policy.pred_steps != 1 or policy.action_normalisation != "none":
            raise ConfigError(
                f"head {self.name!r} values single discrete actions: pred_steps must be 1 and action_normalisation "
                f"none, received {policy.pred_steps} and {policy.action_normalisation}"
            )


BackboneConfig = MLPConfig | LSTMConfig | TransformerConfig
HeadConfig = (
    DeterministicHeadConfig
    | GaussianHeadConfig
    | MixtureHeadConfig
    | AutoregressiveHeadConfig
    | DiffusionHeadConfig
    | FlowHeadConfig
    | ACTHeadConfig
    | ActionValuesHeadConfig
)

if not TYPE_CHECKING:
    BackboneConfig = Union[(BackboneConfig, *plugins("backbone"))]
    HeadConfig = Union[(HeadConfig, *plugins("head"))]


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """Encoder of images, with group normalisation and spatial softmax, one for each camera."""

    network: Literal["resnet18", "shallow"] = "resnet18"
    """The convolutions: those usual for visuomotor policies, or four small ones, much faster, for plain scenes."""
    share: bool = False
    """Run one network on all cameras."""
    crop: float = 0.9
    """Share of height and width kept: at a random place while training, the middle when acting; 1 keeps all."""
    jitter: float = 0.0
    """Strength of random changes of brightness, contrast and saturation while training."""
    keypoints: int = 32
    """Image positions the network reports."""
    features: int = 64
    """Features of each camera, or of each token."""
    tokens: int = 0
    """Tokens along a side of each camera's map, for a transformer to look at in place of keypoints; 0 for keypoints."""

    def __post_init__(self) -> None:
        _require_positive(("keypoints", self.keypoints), ("features", self.features))
        if not 0.0 < self.crop <= 1.0:
            raise ConfigError(f"crop must lie in (0, 1], received {self.crop}")
        _require_share("jitter", self.jitter)
        check_range(self, "tokens", low=0, high=MAX_CHUNK)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Parts of a policy."""

    obs_keys: tuple[str, ...] = ()
    """Observation keys the policy sees; empty means all that the data set has."""
    obs_ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    """First dimension, and the one after the last, that the policy sees of a key; keys that are not named are seen
    whole. Hides what tells the last action (velocities, efforts), which clones copy instead of looking at the task."""
    obs_steps: int = 1
    """To, observation steps the policy sees."""
    pred_steps: int = 1
    """Tp, action steps predicted at once."""
    exec_steps: int = 1
    """Ta, predicted steps that are executed before the policy is asked again."""
    obs_normalisation: Literal["mean_std", "min_max", "quantile", "none"] = "mean_std"
    """Scaling of low-dimensional observations; its statistics are stored in the policy."""
    obs_clip: float = 0.0
    """Bound on low-dimensional observations after scaling, against what hardly moved in the demonstrations and is
    hundreds of deviations off when things go wrong; 0 for none."""
    obs_fine: float = 0.0
    """Share of the scaling above from which low-dimensional observations are shown on a logarithmic scale around zero,
    too (0.01): small distances are told apart in what spans a metre; 0 for no."""
    action_normalisation: Literal["none", "min_max", "mean_std", "quantile"] = "none"
    """Scaling of actions (already in [-1, 1]) before the head sees them."""
    vision: VisionConfig = field(default_factory=VisionConfig)
    """Encoder of images, where there are any."""
    backbone: BackboneConfig = field(default_factory=MLPConfig)
    """Network between the encoders and the action head."""
    head: HeadConfig = field(default_factory=MixtureHeadConfig)
    """Action distribution."""

    def __post_init__(self) -> None:
        check_range(self, "obs_steps", "pred_steps", "exec_steps", low=1, high=MAX_CHUNK)
        if self.exec_steps > self.pred_steps:
            raise ConfigError(
                f"exec_steps must not exceed pred_steps, received {self.exec_steps} > {self.pred_steps}; "
                "a policy can only execute what it predicted"
            )
        check_range(self, "obs_clip", "obs_fine", low=0)
        if self.vision.tokens and not self.backbone.sees_tokens:
            raise ConfigError(
                f"vision.tokens are for a backbone that looks at each of them, which {self.backbone.name} does not; "
                "take policy.backbone transformer, or vision.tokens 0"
            )
        for key, (first, last) in self.obs_ranges.items():
            if not 0 <= first < last:
                raise ConfigError(
                    f"obs_ranges of {key!r} must be [first, last) with 0 <= first < last, received {[first, last]}"
                )
        self.head.check(self)
