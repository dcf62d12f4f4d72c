"""`robolearn record`: demonstrations of an expert, or of a person at a device, into one HDF5 file."""

from __future__ import annotations

from collections.abc import Mapping

from robolearn.configuration.record import RecordConfig
from robolearn.errors import count, hint

CONFIG = RecordConfig


def run(config: RecordConfig) -> int:
    if config.device:
        return _by_hand(config)
    from robolearn.episodes.record import record

    done = record(config)
    for note in done.notes:
        print(f"note: {note}")
    print(f"recorded {count(done.added, 'episode')} of {config.task.id} into {done.path}, which holds {done.total}")
    labels = ("--target", "labels") if config.disturbances else ()
    print(f"next: {hint('dataset', 'info', done.path)}    {hint('train', '--dataset', done.path, *labels)}")
    return 0


def _by_hand(config: RecordConfig) -> int:
    from robolearn.teleop.demonstrate import demonstrate

    done = demonstrate(config)
    late = f"; {count(done.late, 'late step')} of {done.steps}, by {_reasons(done.late_by)}" if done.late else ""
    print(f"recorded {count(done.kept, 'episode')}, {done.discarded} not kept{late}")
    print(f"{done.path} holds {count(done.total, 'complete episode')} of {config.task.id}")
    print(f"next: {hint('view', done.path)}    {hint('train', '--dataset', done.path)}")
    if done.total < config.episodes:
        print(f"to go on: {hint('record', '--config', f'{done.path}.yaml', '--resume')}")
    return 0


def _reasons(late_by: Mapping[str, int]) -> str:
    """The reasons, the worst first, with their numbers where there are several."""
    worst = sorted(late_by.items(), key=lambda item: -item[1])
    return ", ".join(name if len(worst) == 1 else f"{name} ({steps})" for name, steps in worst)
