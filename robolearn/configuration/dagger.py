"""Configuration of DAgger; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.gates import BetaGateConfig, GateConfig, HumanGateConfig
from robolearn.configuration.parts.loop import LoopConfig, OptimiserConfig
from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.parts.session import CorrectionConfig, SessionConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree.bounds import MAX_BATCH, MAX_ENVS, MAX_EPISODES, MAX_SEED, check_range
from robolearn.errors import ConfigError
from robolearn.seeds import DAGGER_SEED, ROLLOUT_SEED


@dataclass(frozen=True, kw_only=True)
class DaggerConfig(Reading):
    """Correct a policy where it goes: roll it out, correct it where the gate says so, aggregate, train, measure."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("policy", "dataset", "task", "expert", "gate", "device"),
        "rounds": ("rounds", "episodes_per_round", "from_scratch", "weights", "eval_episodes"),
        "training": ("loop.total_steps", "batch_size", "optimiser.learning_rate"),
        "how": ("seed", "num_envs"),
        "output": ("output",),
    }
    OWN_TASK: ClassVar[str] = "dataset"
    BUDGET: ClassVar[tuple[str, ...]] = (
        *("rounds", "num_envs", "task.workers", "task.worker_kind", "output"),
        *("profile", "device_options", "operator", "session", "correction"),
    )
    """Keys that may differ when a run goes on; see `robolearn.configuration.provenance`."""

    policy: str
    """Policy folder to start from."""
    dataset: tuple[str, ...]
    """Demonstration files that the policy was cloned from."""
    task: TaskConfig | None = None
    """Task to roll out in; none takes the one that the data set was recorded in."""
    output: str = "runs/dagger"
    """Run folder; a folder with complete rounds is resumed."""
    expert: str = "auto"
    """Who corrects: auto (the task's own expert), an entry point of robolearn.experts, module:callable, or the folder
    of a better policy."""
    gate: GateConfig = field(default_factory=BetaGateConfig)
    """Who decides when: beta (DAgger's coin, every state labelled), human (simulated), or the robot asks by ensemble,
    thrifty or likelihood."""
    device: str = ""
    """What a person corrects with, who then decides when, too: browser, keyboard, gamepad, spacemouse, network, or
    another device that `robolearn teleop devices` lists; with a gate by which the robot asks, it also asks the person.
    Empty leaves all to `expert` and `gate`."""
    profile: str = ""
    """What the device's inputs do: a profile in teleop/ or a YAML file; empty takes the one named like the device."""
    device_options: dict[str, Any] = field(default_factory=dict)
    """The device's own options, such as `--device_options.index 1` of a second gamepad."""
    operator: str = ""
    """Who is at the device; stored with every episode."""
    session: SessionConfig = field(default_factory=SessionConfig)
    """How a session with a person runs."""
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)
    """How a person takes over and hands back."""
    rounds: int = 2
    """Rounds of collecting and training."""
    episodes_per_round: int = 20
    """Episodes rolled out in each round."""
    from_scratch: bool = False
    """Train a new policy of the same kind in each round instead of going on with the one there is."""
    weights: Literal["plain", "iwr", "sirius"] = "plain"
    """Loss weights: equal, interventions as heavy as all else (IWR), or Sirius' classes, which also learn from the
    policy's own good steps."""
    eval_episodes: int = 50
    """Episodes, the same ones after each round, that every round's policy is measured on without help; 0 for none."""
    batch_size: int = 256
    """Windows in a batch."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """How weights move, in each round."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(total_steps=2000, evaluate_every=0, checkpoint_every=1000)
    )
    """How long each round trains."""
    deterministic: bool = True
    """Roll out the policy's mode instead of samples."""
    seed: int = DAGGER_SEED
    """Seed of the first episode; later ones count up."""
    num_envs: int = 4
    """Environments that run side by side."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "rounds", "episodes_per_round", low=1, high=MAX_EPISODES)
        check_range(self, "eval_episodes", low=0, high=MAX_EPISODES)
        check_range(self, "num_envs", low=1, high=MAX_ENVS)
        check_range(self, "batch_size", low=1, high=MAX_BATCH)
        check_range(self, "seed", low=0, high=MAX_SEED)
        if not self.dataset:
            raise ConfigError("dataset needs at least one file: DAgger aggregates with the demonstrations")
        # Names without a file are those of demonstrations; the rounds' files hold the same names.
        named = [[name] if ":" in name else [f"{file}:{name}" for file in self.dataset] for name in self.exclude]
        object.__setattr__(self, "exclude", tuple(name for names in named for name in names))
        if self.device and self.gate != BetaGateConfig() and isinstance(self.gate, BetaGateConfig | HumanGateConfig):
            raise ConfigError(
                f"with the device {self.device} a person decides when to take over, not the gate {self.gate.name}; "
                "leave out one of them, or take a gate by which the robot asks"
            )
        if self.weights != "plain" and isinstance(self.gate, BetaGateConfig) and not self.device:
            raise ConfigError(f"weights {self.weights} weigh interventions, and the gate beta makes none; use plain")

    @property
    def robot_asks(self) -> bool:
        """Return whether a gate asks the person at the device."""
        return bool(self.device) and not isinstance(self.gate, BetaGateConfig)

    @property
    def eval_seeds(self) -> range:
        """The episodes that every round's policy is measured on: tuning seeds, since rounds are chosen by them."""
        return range(ROLLOUT_SEED, ROLLOUT_SEED + self.eval_episodes)

    def seeds(self, round: int) -> range:
        """Return the seeds of a round's episodes; rounds count from 1."""
        first = self.seed + (round - 1) * self.episodes_per_round
        return range(first, first + self.episodes_per_round)

    def training(self, dataset: tuple[str, ...], policy: str, kind: PolicyConfig) -> BCConfig:
        """Return how a round trains on everything collected so far: on labels and corrections, and with Sirius' weights
        on the policy's own steps, too."""
        return BCConfig(
            dataset=dataset,
            target="actions" if self.weights == "sirius" else "labels",
            weights=self.weights,
            batch_size=self.batch_size,
            optimiser=self.optimiser,
            loop=self.loop,
            seed=self.seed,
            policy=kind if self.from_scratch else PolicyConfig(),
            init_policy="" if self.from_scratch else policy,
            **{f.name: getattr(self, f.name) for f in fields(Reading)},
        )


@dataclass(frozen=True, kw_only=True)
class DaggerReportConfig:
    """Tell what a DAgger run did: success, interventions and autonomy round by round."""

    run: str = field(default="", metadata={"positional": True})
    """Run folder."""

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("name the run folder: robolearn dagger report RUN")


@dataclass(frozen=True, kw_only=True)
class DaggerUndoConfig:
    """Take the last round of a DAgger run back; its files are kept aside."""

    run: str = field(default="", metadata={"positional": True})
    """Run folder."""

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("name the run folder: robolearn dagger undo RUN")


@dataclass(frozen=True, kw_only=True)
class GateTruthConfig:
    """Score gates against the truth: whether the policy fails from the states it visited, each restored and tried."""

    run: str = field(default="", metadata={"positional": True})
    """Run folder of a task whose states can be restored."""
    round: int = 0
    """Whose policy and episodes; 0 takes the first round."""
    gates: tuple[str, ...] = ("human", "ensemble", "thrifty", "likelihood")
    """Gates to score."""
    every: int = 10
    """Steps between two states of an episode that are tried."""
    rollouts: int = 1
    """Times that the policy is rolled out from each state; from twice on it samples instead of taking its mode."""
    num_envs: int = 8
    """Environments that run side by side."""
    expert: str = "auto"
    """The corrector whose labels gates may ask for while it drives."""

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigError("name the run folder: robolearn dagger gates RUN")
        check_range(self, "every", "rollouts", low=1, high=10_000)
        check_range(self, "num_envs", low=1, high=MAX_ENVS)
        check_range(self, "round", low=0, high=MAX_EPISODES)
