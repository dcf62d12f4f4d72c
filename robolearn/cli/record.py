"""`robolearn record`: demonstrations of an expert into one HDF5 file."""

from __future__ import annotations

from robolearn.configuration.record import RecordConfig

CONFIG = RecordConfig


def run(config: RecordConfig) -> int:
    from robolearn.episodes.record import record

    path = record(config)
    print(f"recorded {config.episodes} episodes of {config.task.id} into {path}")
    print(f"next: robolearn dataset info {path}    robolearn train --dataset {path}")
    return 0
