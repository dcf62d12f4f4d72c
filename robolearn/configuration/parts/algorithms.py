"""Configuration of the RL algorithms. Free of torch, so that the command line starts fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from robolearn.configuration.tree.bounds import MAX_BATCH, MAX_STEPS, MAX_UNITS, check_range
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """A fully connected value network behind a copy of the policy's encoders."""

    hidden_sizes: tuple[int, ...] = (256, 256)
    """Units of each hidden layer."""
    activation: Literal["relu", "tanh", "elu", "silu"] = "tanh"
    """Non-linearity after each layer."""
    layer_norm: bool = False
    """Normalise each layer's output."""

    def __post_init__(self) -> None:
        check_range(self, "hidden_sizes", low=1, high=MAX_UNITS)


@dataclass(frozen=True, kw_only=True)
class QConfig:
    """An ensemble of action-value networks behind a copy of the policy's encoders."""

    hidden_sizes: tuple[int, ...] = (256, 256)
    """Units of each hidden layer."""
    activation: Literal["relu", "tanh", "elu", "silu"] = "relu"
    """Non-linearity after each layer."""
    members: int = 2
    """M, critics in the ensemble: 2 for SAC and TD3, 10 for REDQ and RLPD."""
    subset: int = 2
    """Critics, drawn anew for each update, whose least value is the target."""
    layer_norm: bool = False
    """Normalise each layer's output: keeps values in bounds at high update-to-data ratios (RLPD, DroQ)."""
    dropout: float = 0.0
    """Probability of dropping a unit while training (DroQ uses 0.01)."""

    def __post_init__(self) -> None:
        check_range(self, "hidden_sizes", low=1, high=MAX_UNITS)
        check_range(self, "members", low=1, high=1000)
        if not 1 <= self.subset <= self.members:
            raise ConfigError(f"subset must lie in 1..members ({self.members}), received {self.subset}")


@dataclass(frozen=True, kw_only=True)
class OffPolicyConfig:
    """Settings that SAC, TD3 and DQN share: replay, returns and how often to update."""

    gamma: float = 0.99
    """Discount of one control step."""
    n_step: int = 1
    """Steps of reward before the value takes over."""
    batch_size: int = 256
    """Transitions of a gradient step."""
    capacity: int = 1_000_000
    """Transitions in the replay buffer."""
    replay_directory: str = ""
    """Folder of memory-mapped files for the replay buffer; empty keeps it in memory."""
    random_steps: int = 5_000
    """Control steps of uniformly random actions before learning begins."""
    collect_steps: int = 1
    """Macro-steps of each environment between updates."""
    overlap: bool = False
    """Collect the next steps while the updates from the last ones run. The policy that acts is then as old as these
    updates, utd x collect_steps x environments, and never older; runs stay repeatable. Pays where steps are slow."""
    utd: float = 1.0
    """Gradient steps for each transition collected (the update-to-data ratio)."""
    tau: float = 0.005
    """Share of the way that the target network goes towards the critic at each step."""
    learning_rate: float = 3e-4
    """Adam's step size of the actor (and of the temperature)."""
    critic_learning_rate: float | None = None
    """Adam's step size of the critics; none takes the actor's."""
    policy_delay: int = 1
    """Critic updates for each update of the actor."""
    critic_warmup: int = 0
    """First gradient steps, which train the critics alone."""
    demonstration_share: float = 0.5
    """Share of each batch that is drawn from the demonstrations, where there are any (RLPD)."""
    max_grad_norm: float = 0.0
    """Clip the gradient norms of the actor and of the critics, each by itself; 0 leaves them alone."""
    normalise_obs: bool = False
    """Scale observations by their mean and deviation over the random steps, which stay as they are from then on."""
    bf16: bool = False
    """Matrix products in bfloat16, where the processor has it; weights and losses stay in float32."""
    compile: bool = False
    """Fuse each update into one graph: half a minute at first, then faster."""
    critic: QConfig = field(default_factory=QConfig)
    """The critics."""

    def __post_init__(self) -> None:
        check_range(self, "n_step", "collect_steps", "policy_delay", low=1, high=MAX_STEPS)
        check_range(self, "batch_size", low=1, high=MAX_BATCH)
        check_range(self, "capacity", low=1, high=MAX_STEPS)
        check_range(self, "random_steps", "critic_warmup", low=0, high=MAX_STEPS)
        if not 0.0 <= self.demonstration_share < 1.0:
            raise ConfigError(
                f"demonstration_share must lie in [0, 1), received {self.demonstration_share}; to learn from "
                "demonstrations alone, clone them (robolearn train)"
            )
        for name in ("utd", "tau", "learning_rate"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} must be positive, received {getattr(self, name)}")
        if self.normalise_obs and self.random_steps < 100:
            raise ConfigError(
                f"normalise_obs takes its statistics from the random steps and needs at least 100, "
                f"received random_steps {self.random_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class SACConfig(OffPolicyConfig):
    """Soft actor-critic (Haarnoja et al. 2018) with a learned temperature; REDQ, DroQ and RLPD are settings of it."""

    name: Literal["sac"] = "sac"
    temperature: float = 1.0
    """Weight of the entropy, at the start where it is learned."""
    learn_temperature: bool = True
    """Adapt the temperature so that the entropy meets its target."""
    target_entropy: float | None = None
    """Entropy of the policy in nats; none takes minus the number of action dimensions."""
    entropy_backup: bool = True
    """Count the entropy of later steps in the target values."""
    actor_value: Literal["min", "mean"] = "min"
    """What the actor climbs: the least of the critics' values, or their mean (REDQ, RLPD)."""


@dataclass(frozen=True, kw_only=True)
class TD3Config(OffPolicyConfig):
    """Twin delayed deterministic policy gradient (Fujimoto et al. 2018) on SAC's parts."""

    name: Literal["td3"] = "td3"
    policy_delay: int = 2
    """Critic updates for each update of the actor."""
    exploration_std: float = 0.1
    """Noise on the actions that collect data."""
    target_std: float = 0.2
    """Noise on the target's actions, which smooths values over neighbouring actions."""
    target_clip: float = 0.5
    """Bound of that noise."""


@dataclass(frozen=True, kw_only=True)
class DQNConfig(OffPolicyConfig):
    """Double deep Q-learning (van Hasselt et al. 2016) for discrete actions."""

    name: Literal["dqn"] = "dqn"
    epsilon: tuple[float, float] = (1.0, 0.05)
    """Share of random actions at the start and in the end."""
    epsilon_steps: int = 10_000
    """Control steps over which it falls."""
    double: bool = True
    """The network chooses the action that the target network values."""
    huber: bool = True
    """Errors beyond one count linearly."""


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Proximal policy optimisation (Schulman et al. 2017); A2C and REINFORCE are its parts switched off.

    A2C: epochs 1, batch_size 0 (one batch), gae_lambda 1. REINFORCE with return-to-go: also baseline mean or none.
    """

    name: Literal["ppo"] = "ppo"
    gamma: float = 0.99
    """Discount of one control step."""
    gae_lambda: float = 0.95
    """Bias-variance knob of the advantages, per macro-step."""
    num_steps: int = 256
    """L, macro-steps of each environment in one rollout."""
    epochs: int = 10
    """Passes over a rollout."""
    batch_size: int = 64
    """Rows of a minibatch; 0 takes the whole rollout at once."""
    learning_rate: float = 3e-4
    """Adam's step size of the actor."""
    critic_learning_rate: float | None = None
    """Adam's step size of the critic; none takes the actor's."""
    anneal: bool = False
    """Let the step sizes fall linearly to zero at the end of the run."""
    surrogate: Literal["clip", "kl"] = "clip"
    """Clipped ratio, or a KL penalty to the acting policy whose weight adapts to `target_kl`."""
    clip: float = 0.2
    """Ratios beyond 1 +- this earn nothing."""
    target_kl: float | None = None
    """With the clipped surrogate: end an update once its KL exceeds this. With the penalty: what it aims at."""
    step_kl: float | None = None
    """Let the actor's step size fall while updates move the policy by more than this KL, and rise back to
    `learning_rate` once they do not (after rsl_rl's adaptive schedule); none never does."""
    value_clip: float | None = None
    """Limit how far a value moves from its old one in an update."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    normalise_advantages: bool = True
    """Scale the advantages of a rollout to zero mean and unit variance."""
    recompute_advantages: bool = True
    """Recompute values and advantages before each epoch, not once for the update (Andrychowicz et al. 2021)."""
    baseline: Literal["critic", "mean", "none"] = "critic"
    """What is subtracted from the returns: learned values, the rollout's mean, or nothing."""
    max_grad_norm: float = 0.5
    """Clip the gradient norms of the actor and of the critic, each by itself."""
    critic_warmup: int = 0
    """First rollouts that train the critic alone."""
    prior_coef: float = 0.0
    """Weight of the KL divergence to the policy that training started from."""
    prior_decay: float = 1.0
    """That weight (and that of a cloning loss) is multiplied by this after each update: hold on to the start at first,
    let go of it later."""
    normalise_returns: bool = False
    """Scale rewards by the running standard deviation of the discounted return."""
    normalise_obs: bool = False
    """Keep the statistics of the policy's observation normalisers up to date with what is seen."""
    compile: bool = False
    """Fuse each gradient step into one graph: half a minute at first, then several times faster for small networks."""

    def __post_init__(self) -> None:
        check_range(self, "num_steps", "epochs", low=1, high=MAX_STEPS)
        check_range(self, "batch_size", low=0, high=MAX_BATCH)
        check_range(self, "critic_warmup", low=0, high=MAX_STEPS)
        for name in ("gamma", "gae_lambda", "prior_decay"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must lie in [0, 1], received {getattr(self, name)}")
        for name in ("learning_rate", "clip", "max_grad_norm"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} must be positive, received {getattr(self, name)}")
        if self.step_kl is not None and not self.step_kl > 0.0:
            raise ConfigError(f"step_kl must be positive (0.015 is usual) or none, received {self.step_kl}")
        if self.surrogate == "kl" and not self.target_kl:
            raise ConfigError("surrogate kl needs a target_kl (0.01 is usual), received none")
        if self.critic_warmup and self.baseline != "critic":
            raise ConfigError(f"critic_warmup needs baseline critic, received baseline {self.baseline}")
