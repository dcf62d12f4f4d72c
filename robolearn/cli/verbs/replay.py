"""`robolearn replay`: run recorded actions again and say how far the simulator strays, or restore recorded states."""

from __future__ import annotations

from robolearn.configuration.evaluation import ReplayConfig
from robolearn.errors import ConfigError, count

CONFIG = ReplayConfig


def run(config: ReplayConfig) -> int:
    from robolearn.configuration.parts.task import TaskConfig
    from robolearn.datasets.dataset import Dataset
    from robolearn.envs.make import make
    from robolearn.evaluation.replay import in_units_of, replay, restore
    from robolearn.evaluation.video import film_task

    with Dataset(config.dataset, reading=config.reading) as dataset:
        task = config.task or TaskConfig.from_env_args(dataset.env_args)
        task = film_task(task) if config.video else task
        with make(task, 1) as made:
            env, frames = in_units_of(dataset, made), []
            for index in config.episodes:
                if not 0 <= index < len(dataset):
                    raise ConfigError(
                        f"episode {index} is not there; {config.dataset} has {count(len(dataset), 'episode')}, from 0"
                    )
                again = restore if config.by == "state" else replay
                result = again(env, dataset.read(index), render=bool(config.video))
                frames += result.frames
                print(f"{dataset.episodes[index]}: {result}")
    if config.video:
        from robolearn.evaluation.video import write_video

        write_video(config.video, frames, fps=dataset.control_hz)
        print(f"wrote {config.video}")
    return 0
