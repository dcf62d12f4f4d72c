"""Record a person's demonstrations: environment, device, file, page and session put together."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from robolearn.configuration.record import RecordConfig
from robolearn.configuration.tree.yaml_files import write_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.datasets.recording.repair import repair
from robolearn.envs.make import make
from robolearn.episodes.record import check_same_recording, config_beside, default_name, open_writer
from robolearn.teleop.devices.device import Device
from robolearn.teleop.devices.known_devices import make_device
from robolearn.teleop.live_pictures import make_pictures
from robolearn.teleop.page import SessionPage
from robolearn.teleop.session import Session


@dataclass(frozen=True, kw_only=True)
class Demonstrated:
    """The outcome of a session."""

    path: Path
    kept: int
    """Episodes that this session added."""
    total: int
    """Complete episodes in the file."""
    discarded: int
    late: int
    """Control steps that began more than half a period late, and all of them."""
    steps: int
    late_by: Mapping[str, int]
    """Late steps by what made them late."""


def demonstrate(config: RecordConfig) -> Demonstrated:
    """Run one session as `config` says, on a page that shows it, until its episodes are kept or the operator quits.

    Whatever ends it, every kept episode is in the file, and Ctrl-C or a crash keeps the one in progress up to its last
    second, marked unsuccessful and interrupted.

    Raises DeviceError where the device or a map of its commands is missing, DatasetError where the disk fails.
    """
    path = Path(config.output or f"datasets/{default_name(config)}.hdf5")
    if config.resume:
        check_same_recording(config, path)
    total, first = complete_episodes(path, config.seed) if config.resume else (0, None)
    with ExitStack() as stack:
        env = stack.enter_context(make(config.task.in_this_process(), 1))
        device = make_device(config.device, config.profile or None, env, **config.device_options)
        stack.enter_context(connected(device))
        if address := getattr(device, "address", None):
            print(f"\n  {config.device}:  {address}", flush=True)
        pictures = stack.enter_context(make_pictures(env, config.session))
        writer = stack.enter_context(open_writer(path, env, append=first is not None))
        write_yaml(replace(config, output=str(path), resume=False), config_beside(path))
        session = Session(
            env,
            device,
            writer,
            task=config.task.id,
            config=config.session,
            target=config.episodes,
            kept=total,
            first_seed=config.seed if first is None else first,
            keep_failures=config.keep_failures,
            operator=config.operator,
            device_name=config.device,
            notes=config.notes,
            pictures=pictures,
        )
        try:
            with SessionPage(session, config.session, path=path) as page:
                session.run(page.publish)
        except KeyboardInterrupt:
            kept = f"kept {len(session.kept_now)} of this session, {session.kept} in all"
            print(f"\n{kept}, in {path}; to go on, add --resume", file=sys.stderr)
            raise
    return Demonstrated(
        path=path,
        kept=len(session.kept_now),
        total=session.kept,
        discarded=session.discarded,
        late=session.pacer.late,
        steps=session.pacer.ticks,
        late_by=dict(session.pacer.late_by),
    )


@contextmanager
def connected(device: Device) -> Iterator[Device]:
    """Connect a device, and let go of it at the end."""
    device.connect()
    try:
        yield device
    finally:
        device.close()


def complete_episodes(path: Path, first_seed: int = 0) -> tuple[int, int | None]:
    """Return how many complete episodes a file of a former session holds, and the seed after the last one.

    What a crash left in progress is kept, marked as interrupted, and does not count: a person cannot repeat it.

    Args:
        first_seed: of the recording, where the file holds no episode.
    """
    if parts_of(path).exists():
        repair(path)
    if not path.exists():
        return 0, None
    with Dataset(path) as dataset:
        complete = sum(not cut for cut in dataset.interrupted)
        return complete, max((info.seed + 1 for info in dataset.info), default=first_seed)
