"""Configuration of improving a cloned policy by its own experience; free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from robolearn.configuration.parts.gates import HumanGateConfig
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.reading import Reading
from robolearn.configuration.parts.session import CorrectionConfig, SessionConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.parts.ways import OFF_POLICY, PPOTuningConfig, ResidualPPOConfig, Way
from robolearn.configuration.reward import check_reward_from
from robolearn.configuration.teleop import ACTING, INPUTS
from robolearn.configuration.tree.bounds import MAX_ENVS, MAX_EPISODES, MAX_SEED, check_range
from robolearn.configuration.tree.fields import first_changed
from robolearn.errors import ConfigError
from robolearn.seeds import PRACTICE_SEED, PRACTICE_SEEDS


@dataclass(frozen=True, kw_only=True)
class CorrectorConfig:
    """Who takes over in practice: an expert where a simulated human would, or a person at a device (HIL-SERL, Luo et
    al. 2024)."""

    expert: str = "auto"
    """Who corrects: auto (the task's own expert), an entry point of robolearn.experts, module:callable, or the folder
    of a better policy."""
    gate: HumanGateConfig = field(default_factory=HumanGateConfig)
    """When: the simulated human, who judges by the demonstrations; also of devices that act by themselves."""
    record: Literal["corrected", "all", "none"] = "corrected"
    """Which practice episodes are written, whole, to corrections.hdf5 in the run folder; of a session at a device it
    is all."""
    device: str = ""
    """What a person corrects with, who then decides when, too, in a world of their own beside the learner's and in real
    time: browser, keyboard, gamepad, spacemouse, network, or another device that `robolearn teleop devices` lists. With
    `expert` (or policy) it is a rehearsal: the device acts where the simulated human would. Empty: no such session."""
    profile: str = ""
    """What the device's inputs do: a profile in teleop/ or a YAML file; empty takes the one named like the device."""
    device_options: dict[str, Any] = field(default_factory=dict)
    """The device's own options, such as `--corrector.device_options.index 1` of a second gamepad."""
    operator: str = ""
    """Who is at the device; stored with every episode."""
    session: SessionConfig = field(default_factory=SessionConfig)
    """How the session runs."""
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)
    """How a person takes over and hands back."""

    def __post_init__(self) -> None:
        if self.expert in INPUTS:
            raise ConfigError(
                f"corrector.expert {self.expert} is a device; a person corrects with it by --corrector.device "
                f"{self.expert}"
            )
        if self.device:
            self._check_session()
        elif named := first_changed(self, ("profile", "device_options", "operator", "session", "correction")):
            raise ConfigError(
                f"corrector.{named} is about a person at a device, and no device is named; name it: "
                "--corrector.device browser"
            )

    @property
    def rehearses(self) -> bool:
        """Return whether the device of the session needs nobody."""
        return self.device in ACTING

    def _check_session(self) -> None:
        if not self.rehearses and (named := first_changed(self, ("expert", "gate"))):
            raise ConfigError(
                f"with the device {self.device} a person corrects and decides when, which leaves nothing to "
                f"corrector.{named}; leave one of them out"
            )
        if self.record == "none":
            raise ConfigError(
                "the learner learns from the file that the session records into; leave corrector.record none out"
            )


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Reading):
    """Improve a policy by practice, from the task's success alone or from its reward."""

    OWN_TASK: ClassVar[str] = "policy"
    BUDGET: ClassVar[tuple[str, ...]] = (
        *("loop", "export", "task.workers", "device", "output", "resume"),
        *(f"corrector.{name}" for name in ("profile", "device_options", "operator", "session", "correction")),
    )
    """Keys that may differ when a run goes on; see `robolearn.configuration.provenance`."""

    policy: str = field(metadata={"positional": True})
    """Policy folder to start from."""
    method: Way = field(default_factory=PPOTuningConfig)
    """How it learns."""
    demonstrations: tuple[str, ...] = ()
    """Data set files that learning goes back to: half of each batch (residual, steering, sac), or a cloning loss beside
    the surrogate (ppo, chain_ppo); residual_ppo has no use for them."""
    corrector: CorrectorConfig | None = None
    """Who may take over in practice (residual, steering, sac): `auto` is the task's own expert, `corrector.device` says
    what a person corrects with. What they do counts as practice and as demonstrations; none leaves practice to the
    policy."""
    task: TaskConfig | None = None
    """Task to practise; none takes the one that the policy was made for."""
    output: str = "runs/finetune"
    """Run folder; the improved policy is its sub-folder `policy`."""
    reward: Literal["success", "env"] = "success"
    """One where the task is solved (which ends the episode) and else zero, or the environment's own reward."""
    reward_from: str = ""
    """Folder of a success classifier (robolearn reward train), which then says in practice where the task is solved;
    evaluation asks the environment. Empty asks the environment in practice, too."""
    max_steps: int | None = 200
    """Steps until a training episode is truncated; none takes the task's own limit. Evaluation keeps the task's."""
    num_envs: int = 32
    """Environments that run side by side."""
    seed: int = 0
    """Seed of the exploration noise and of the new networks."""
    first_seed: int = PRACTICE_SEED
    """Seed of the first training episode."""
    num_seeds: int = PRACTICE_SEEDS
    """Training, evaluations and the final test take this many seeds, so that other seeds stay fresh for reports."""
    eval_episodes: int = 100
    """Seeds, the last ones, that the policy is evaluated on before, during and after; the best evaluation is what picks
    the policy to export. 0 evaluates never."""
    test_episodes: int = 100
    """Seeds, those before the evaluations', on which the picked policy is tested against the start, pair by pair:
    nothing was trained or picked on them. 0 leaves the test out."""
    export: Literal["best", "last"] = "best"
    """Export the policy of the best evaluation (the one that training started from counts), or the last."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(total_steps=50, log_every=1, evaluate_every=10, checkpoint_every=10)
    )
    """Updates (PPO: one rollout of `num_envs` x `method.num_steps` macro-steps each; off-policy ways: `collect_steps`
    instead, and their share `utd` of gradient steps), and how often to report and save."""
    device: str = "cpu"
    """Where the networks live: cpu, cuda, or auto."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "num_envs", low=1, high=MAX_ENVS)
        check_range(self, "num_seeds", low=1, high=MAX_EPISODES)
        check_range(self, "seed", "first_seed", low=0, high=MAX_SEED)
        check_range(self, "eval_episodes", "test_episodes", low=0, high=MAX_EPISODES)
        if self.eval_episodes + self.test_episodes >= self.num_seeds:
            raise ConfigError(
                f"eval_episodes {self.eval_episodes} and test_episodes {self.test_episodes} leave no seed to practise "
                f"on out of num_seeds {self.num_seeds}; raise num_seeds"
            )
        if self.device in INPUTS:
            raise ConfigError(
                f"device says where the networks live, received {self.device}; a person corrects by --corrector.device "
                f"{self.device}"
            )
        if self.demonstrations and isinstance(self.method, ResidualPPOConfig):
            raise ConfigError(
                "method residual_ppo learns from its own practice only; leave demonstrations out, or take residual"
            )
        check_reward_from(self.reward_from, self.reward)
        self._check_corrector()
        if self.export == "best" and not self.eval_episodes:
            raise ConfigError("export best needs evaluations: set eval_episodes, or export last")

    def _check_corrector(self) -> None:
        if self.corrector is None:
            return
        if not isinstance(self.method, OFF_POLICY):
            raise ConfigError(
                f"method {self.method.name} learns from actions of its own only, a corrector's are not; use method "
                "residual, steering or sac, or correct the policy first (robolearn dagger)"
            )
        if not self.demonstrations and (self.corrector.rehearses or not self.corrector.device):
            raise ConfigError(
                "the corrector takes over where practice strays from the demonstrations, and there are none; name "
                "their files: --demonstrations FILE"
            )

    @property
    def practice_seeds(self) -> range:
        """The seeds of training episodes."""
        return range(self.first_seed, self.test_seeds.start)

    @property
    def test_seeds(self) -> range:
        """The seeds of the final test; neither training nor evaluations ever take them."""
        return range(self.eval_seeds.start - self.test_episodes, self.eval_seeds.start)

    @property
    def eval_seeds(self) -> range:
        """The seeds that evaluation takes; training never does."""
        end = self.first_seed + self.num_seeds
        return range(end - self.eval_episodes, end)


@dataclass(frozen=True, kw_only=True)
class FinetuneCommand(FinetuneConfig):
    """Improve a policy by practice."""

    COMMON: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("policy", "method", "demonstrations", "corrector", "task", "reward", "reward_from", "max_steps"),
        "training": ("loop.total_steps", "method.learning_rate"),
        "how": ("seed", "num_envs", "device"),
        "evaluation": ("eval_episodes", "export"),
        "output": ("output", "resume"),
    }

    resume: bool = False
    """Go on where the run in the output folder stopped."""
