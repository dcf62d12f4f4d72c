"""Record an expert's demonstrations into one dataset file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from robolearn.configuration.record import RecordConfig
from robolearn.configuration.task import TaskConfig
from robolearn.configuration.tree import write_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.datasets.recording.repair import repair
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.envs.experts import NoisyExpert, make_expert
from robolearn.envs.interface import Observation, VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.run import Decision, collect
from robolearn.errors import TaskError
from robolearn.specs import ActionMode, EpisodeInfo
from robolearn.training.progress import Progress


class ExpertDriver:
    """The expert drives; its action without noise is the label."""

    def __init__(self, expert: NoisyExpert) -> None:
        self.expert = expert

    def reset(self, seeds: Sequence[int], mask: Tensor) -> None:
        self.expert.reset(seeds, mask)

    def decide(self, obs: Observation) -> Decision:
        actions = self.expert.act(obs)
        modes = torch.full((len(actions),), int(ActionMode.DEMONSTRATION), dtype=torch.int8)
        return Decision(actions=actions, modes=modes, expert_actions=self.expert.label)


def record(config: RecordConfig) -> Path:
    """Record as `config` says and return the file.

    Episodes are kept in order of their seeds, so the file does not depend on `num_envs`. Every kept episode is
    committed at once; an interruption loses only those in progress, and `resume` goes on as if there had been none.

    Raises TaskError where the expert solves too few episodes.
    """
    path = Path(config.output or f"datasets/{default_name(config)}.hdf5")
    kept, first = _recorded(path) if config.resume else (0, None)
    seeds = range(config.seed if first is None else first, config.seed + config.attempts)
    attempts = 0
    with make(config.task, config.num_envs) as env:
        driver = ExpertDriver(NoisyExpert(make_expert(config.expert, env), config.action_noise, seed=config.seed))
        try:
            with (
                open_writer(path, env, append=first is not None) as writer,
                Progress("record", config.episodes, unit="demo", start=kept) as progress,
            ):
                # Only now is this the recording that the file holds.
                write_yaml(replace(config, output=str(path), resume=False), path.with_suffix(".yaml"))
                episodes = collect(env, driver, seeds, info=_describe(config.expert))
                while kept < config.episodes and (episode := next(episodes, None)) is not None:
                    attempts += 1
                    if episode.info.success or config.keep_failures:
                        writer.write_episode(episode)
                        kept += 1
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
            "--action_noise or pass --keep_failures"
        )
    return path


def _recorded(path: Path) -> tuple[int, int | None]:
    """Demonstrations in the file of an interrupted recording, and the seed after its last one."""
    if not path.exists():
        return 0, None
    if parts_of(path).exists():
        repair(path)
    with Dataset(path) as dataset:
        return len(dataset), max((info.seed for info in dataset.info), default=-1) + 1


def open_writer(path: Path, env: VectorEnv, append: bool = False) -> DatasetWriter:
    """A writer for episodes of `env`."""
    return DatasetWriter(
        path,
        task=TaskConfig.from_env_args(env.env_args).id,
        env_args=env.env_args,
        control_hz=env.control_hz,
        action_spec=env.action_spec,
        observation_spec=env.observation_spec,
        append=append,
    )


def default_name(config: RecordConfig) -> str:
    """A file name from the task and the environment it makes."""
    words = [config.task.id.removeprefix("gym:"), *(v for v in config.task.kwargs.values() if isinstance(v, str))]
    return "_".join(words).replace("/", "_").lower()


def _describe(operator: str) -> Callable[[int, bool], EpisodeInfo]:
    def info(seed: int, success: bool) -> EpisodeInfo:
        return EpisodeInfo(success=success, seed=seed, source="demo", operator=f"expert:{operator}", device="script")

    return info
