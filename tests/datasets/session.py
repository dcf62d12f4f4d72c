"""A recording session that tests interrupt: every stage of an episode, of its commit, of closing and of appending."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.datasets.factory import add_step, episode, record, writer

STEPS = 6


def session(path: Path, log: Callable[[str], None], *, pace_s: float = 0.0) -> None:
    """Two rounds of recording into one file; `log` hears of every step and commit after it has returned.

    Episode demo_<i> is `episode(i, STEPS)`; numbers match because nothing fails here.
    """
    for round_ in range(2):
        with writer(path, append=round_ > 0, models={f"m{round_}": b"<mujoco/>"}) as recorder:
            log("opened")
            number = 3 * round_
            live = record_slowly(recorder, number, log, pace_s)
            log(f"committing demo_{number}")
            live.commit(episode(number, STEPS).final_obs, success=episode(number, STEPS).info.success)
            log(f"committed demo_{number}")
            names = recorder.write_episodes([episode(number + 1, STEPS), episode(number + 2, STEPS)])
            for name in names:
                log(f"committed {name}")
            recorder.add_mask(f"round{round_}", names)
            record_slowly(recorder, 99, log, pace_s).discard()
            log("closing")
        log("closed")


def record_slowly(recorder: object, number: int, log: Callable[[str], None], pace_s: float) -> object:
    source = episode(number, STEPS)
    live = record(recorder, episode(number, 1), commit=False)  # type: ignore[arg-type]
    live.discard()
    live = recorder.begin_episode(  # type: ignore[attr-defined]
        seed=source.info.seed,
        source=source.info.source,
        round=source.info.round,
        operator=source.info.operator,
        device=source.info.device,
        started_at=source.info.started_at,
    )
    log(f"begun demo_{number}")
    for t in range(STEPS):
        add_step(live, source, t)
        log(f"step demo_{number} {t}")
        time.sleep(pace_s)
    return live


def file_log(path: Path) -> Callable[[str], None]:
    """A log that survives the process: one append per line."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    write = os.write
    return lambda line: (write(fd, f"{line}\n".encode()), None)[1]


def record_and_stand_still(path: Path, log_path: Path) -> None:
    """A process to be killed a second after the last step."""
    log = file_log(log_path)
    with writer(path) as recorder:
        record(recorder, episode(0, 5))
        log("committed demo_0")
        live = recorder.begin_episode(seed=1)
        source = episode(1, 200)
        for t in range(200):
            add_step(live, source, t)
        for _ in range(50):  # a second in which this process ran: where all of it is stalled, no part is over
            time.sleep(0.02)
        log("a second later")
        time.sleep(600)
