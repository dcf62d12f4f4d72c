"""Record an expert's demonstrations into one dataset file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.provenance import check_same_inputs
from robolearn.configuration.record import RecordConfig
from robolearn.configuration.tree import write_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.datasets.recording.repair import repair
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.envs.checks import ignores_seeds
from robolearn.envs.experts import NoisyExpert, make_expert
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.actor import Decision
from robolearn.episodes.disturbances import Disturbances
from robolearn.episodes.episode_loop import EpisodeLoop, Slot
from robolearn.episodes.recorder import Attempt, EpisodeRecorder, record_episodes
from robolearn.errors import ConfigError, TaskError, count
from robolearn.specs import ActionMode, ActionSpec, Observation
from robolearn.training.progress import Progress


class ExpertDriver:
    """The expert drives; its action without noise is the label, also where a disturbance drives in its place."""

    def __init__(self, expert: NoisyExpert, disturbances: Disturbances) -> None:
        self.expert, self.disturbances = expert, disturbances

    def reset(self, *, seeds: Sequence[int], mask: Tensor) -> None:
        self.expert.reset(seeds, mask)
        self.disturbances.reset(seeds=seeds, mask=mask)

    def decide(self, obs: Observation) -> Decision:
        actions, disturbed = self.disturbances.apply(self.expert.act(obs))
        modes = torch.where(disturbed, int(ActionMode.DISTURBANCE), int(ActionMode.DEMONSTRATION)).to(torch.int8)
        return Decision(actions=actions, modes=modes, expert_actions=self.expert.label)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The outcome of a recording."""

    path: Path
    added: int
    """Demonstrations recorded now."""
    total: int
    """Demonstrations in the file."""
    notes: tuple[str, ...] = ()
    """What was noticed about expert and environment, a sentence each."""


def _spared(names: Sequence[str], spec: ActionSpec) -> list[int]:
    """Return the dimensions of an action by name. Raises ConfigError where one is missing, or where all are named."""
    if unknown := [name for name in names if name not in spec.names]:
        raise ConfigError(f"undisturbed names {', '.join(unknown)}; the action has {', '.join(spec.names)}")
    if set(names) >= set(spec.names):
        raise ConfigError("undisturbed names all of the action, so that nothing could be disturbed; leave some out")
    return [spec.names.index(name) for name in names]


def record(config: RecordConfig) -> Recorded:
    """Record an expert as `config` says.

    Every kept episode is committed at once. An interruption loses only those in progress, which `resume` runs again
    from their seeds, so that the file is the same as without it.

    Raises TaskError where the expert solves too few episodes.
    """
    path = Path(config.output or f"datasets/{default_name(config)}.hdf5")
    if config.resume:
        check_same_recording(config, path)
    before, first = recorded(path, config.seed) if config.resume else (0, None)
    kept = before
    seeds = range(config.seed if first is None else first, config.seed + config.attempts)
    with make(config.task, config.num_envs) as env:
        expert = NoisyExpert(make_expert(config.expert, env), config.action_noise, seed=config.seed)
        unseeded = ignores_seeds(env, config.seed)
        disturbances = Disturbances(
            config.disturbances,
            control_hz=env.control_hz,
            num_envs=env.num_envs,
            speed=config.disturbance_speed,
            spared=_spared(config.undisturbed, env.action_spec),
            seed=config.seed,
        )
        loop = EpisodeLoop(env, ExpertDriver(expert, disturbances), seeds, states=True)
        attempts, done_now = 0, []
        try:
            with (
                open_writer(path, env, append=first is not None) as writer,
                Progress("record", config.episodes, unit="demo", start=kept) as progress,
            ):
                # Only now is this the recording that the file holds.
                write_yaml(replace(config, output=str(path), resume=False), config_beside(path))
                describe = {"source": "demo", "operator": f"expert:{config.expert}", "device": "script"}
                describe["notes"] = config.notes
                recorder = EpisodeRecorder(writer, describe=describe, model=model_name(env))

                def keep(slot: Slot) -> bool:
                    return kept < config.episodes and (slot.success or config.keep_failures)

                with closing(record_episodes(loop, recorder, keep)) as done:
                    while kept < config.episodes and (attempt := next(done, None)) is not None:
                        attempts += 1
                        kept += attempt.name is not None
                        done_now.append(attempt)
                        progress.update(kept, note=f"{attempts - kept + progress.start} failed")
        except KeyboardInterrupt:
            print(
                f"\nkept {kept} of {config.episodes} demonstrations in {path}; to go on, add --resume", file=sys.stderr
            )
            raise
    if kept < config.episodes:
        raise TaskError(
            f"the expert {config.expert!r} solved {kept} of {attempts} attempts at {config.task.id}, fewer than the "
            f"{config.episodes} demonstrations asked for; {path} holds those. Raise --max_attempts, lower "
            "--action_noise and --disturbances, or pass --keep_failures"
        )
    notes = (*filter(None, (unseeded, _clipping(done_now))), *loop.watch.notes)
    return Recorded(path=path, added=kept - before, total=kept, notes=notes)


def _clipping(attempts: Sequence[Attempt]) -> str:
    """Return what the kept attempts say about demands beyond the action limits; empty where there were none."""
    attempts = [attempt for attempt in attempts if attempt.name is not None]
    steps, clipped = sum(a.steps for a in attempts), sum(a.clipped_steps for a in attempts)
    if not clipped:
        return ""
    share = sum(a.clipped_steps * a.clipped_share for a in attempts) / clipped
    return (
        f"the expert asked for more than the action limits allow at {clipped} of {count(steps, 'step')} "
        f"({clipped / steps:.0%}); {share:.0%} of the size of these actions was cut off, and the file holds what was "
        "executed"
    )


def check_same_recording(config: RecordConfig, path: Path) -> None:
    """Raise ConfigError where the file holds another recording: another task, demonstrator or first seed.

    What it was made with stands beside it; of a file that lies alone, the task within is compared.
    """
    beside = config_beside(path)
    if beside.exists():
        check_same_inputs(config, beside, output=path)
    elif path.exists():
        with Dataset(path) as dataset:
            before = dict(dataset.env_args)
        now = config.task.env_args()
        known = ("env_name", "env_kwargs") if config.task.gym_id else ("env_name",)
        if any(before.get(key) != now[key] for key in known):
            raise ConfigError(
                f"{path} holds episodes of another task ({before}, now {now}); record into another file, and read both "
                "as one (train takes several files), or merge them: robolearn dataset merge"
            )


def config_beside(path: Path) -> Path:
    """Return where a recording writes how it was made: a name that nothing else has."""
    return path.with_name(path.name + ".yaml")


def recorded(path: Path, first_seed: int = 0) -> tuple[int, int | None]:
    """Return the episodes that an interrupted recording from seeds has committed, and the seed after the last one.

    What was in progress is dropped: it will run again from its seed.

    Args:
        first_seed: of the recording, where nothing was committed.
    """
    if not path.exists() and not parts_of(path).exists():
        return 0, None
    if parts_of(path).exists():
        repair(path, in_progress="drop")
    if not path.exists():
        return 0, None
    with Dataset(path) as dataset:
        return len(dataset), max((info.seed + 1 for info in dataset.info), default=first_seed)


def open_writer(path: Path, env: VectorEnv, append: bool = False, *, task: str = "") -> DatasetWriter:
    """Return a writer for episodes of `env`, which also keeps the model that they run in, where it is known.

    Args:
        task: what the file calls the task; empty takes its id. Episodes that are to be read together with a file of
            somebody else's take that file's name for it.
    """
    xml = env.model_xml
    return DatasetWriter(
        path,
        task=task or TaskConfig.from_env_args(env.env_args).id,
        env_args=env.env_args,
        control_hz=env.control_hz,
        action_spec=env.action_spec,
        observation_spec=env.observation_spec,
        models={} if xml is None else {model_name(env): xml.encode()},
        append=append,
    )


def model_name(env: VectorEnv) -> str:
    """Return the name of the environment's model in a file: a hash of its MJCF, empty where it has none."""
    return "" if env.model_xml is None else sha256(env.model_xml.encode()).hexdigest()[:16]


def default_name(config: RecordConfig) -> str:
    """Return a file name made of the task and the environment it makes."""
    words = [config.task.id.removeprefix("gym:"), *(v for v in config.task.kwargs.values() if isinstance(v, str))]
    return "_".join(words).translate(str.maketrans("/,", "__")).lower()
