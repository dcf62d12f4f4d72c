"""Correct a policy by hand: a session whose gate and expert are a person (HG-DAgger, Kelly et al. 2019)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.parts.session import CorrectionConfig, SessionConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.actor import env_for
from robolearn.episodes.record import open_writer
from robolearn.errors import DeviceError
from robolearn.policies.policy import Policy
from robolearn.teleop.demonstrate import complete_episodes, connected
from robolearn.teleop.devices.actions import CommandMapper
from robolearn.teleop.devices.device import Device, SeeingDevice
from robolearn.teleop.devices.known_devices import make_device
from robolearn.teleop.driving import Asker, CorrectedPolicy
from robolearn.teleop.live_pictures import make_pictures
from robolearn.teleop.page import SessionPage
from robolearn.teleop.session import Session


class ByHand(Protocol):
    """The part of a configuration that is about a person who corrects."""

    @property
    def device(self) -> str: ...
    @property
    def profile(self) -> str: ...
    @property
    def device_options(self) -> dict[str, Any]: ...
    @property
    def operator(self) -> str: ...
    @property
    def session(self) -> SessionConfig: ...
    @property
    def correction(self) -> CorrectionConfig: ...


def device_for_correcting(config: ByHand, task: TaskConfig, env: VectorEnv) -> Device:
    """Return the device, not connected yet.

    Raises DeviceError where it is missing, acts by itself, or has no map of its commands to the task's actions.
    """
    device = make_device(config.device, config.profile or None, env, **config.device_options)
    if isinstance(device, SeeingDevice):
        raise DeviceError(
            f"the device {config.device} acts by itself and cannot decide when to take over; take one that a person "
            "holds, or correct with --expert and --gate"
        )
    CommandMapper(env.action_spec, task.id)
    return device


def correct(
    config: ByHand,
    env: VectorEnv,
    device: Device,
    driver: CorrectedPolicy,
    path: Path,
    *,
    verb: str,
    task: str,
    file_task: str,
    describe: Mapping[str, Any],
    target: int | None,
    first_seed: int,
    seeds: range | None = None,
    on_tick: Callable[[Session], None] = lambda session: None,
) -> Session:
    """Run one session in which a person corrects the policy of `driver`, and return it; go on where `path` ends.

    Every kept attempt is one episode of autonomous and corrected steps together, failed ones, too.

    Args:
        env: one environment, in the policy's units.
        device: connected.
        verb: of the command line, whose session it is.
        task: its id.
        file_task: what the file calls the task: the demonstrations' name for it.
        describe: what the file says of every episode.
        target: episodes that the file is to hold; None has no end.
        first_seed: of the first scene, where the file is new.
        on_tick: called after every control step; what it raises ends the session, and the page shows its message.

    Raises DatasetError where the disk fails.
    """
    kept, following = complete_episodes(path)
    with ExitStack() as stack:
        pictures = stack.enter_context(make_pictures(env, config.session))
        writer = stack.enter_context(open_writer(path, env, append=following is not None, task=file_task))
        session = Session(
            env,
            device,
            writer,
            task=task,
            config=config.session,
            target=target,
            kept=kept,
            first_seed=first_seed if following is None else following,
            seeds=seeds,
            keep_failures=True,
            operator=config.operator,
            device_name=config.device,
            pictures=pictures,
            driver=driver,
            describe=describe,
        )
        with SessionPage(session, config.session, path=path, verb=verb) as page:

            def tell(session: Session) -> None:
                page.publish(session)
                on_tick(session)

            session.run(tell)
    return session


def correct_round(
    config: DaggerConfig,
    task: TaskConfig,
    policy: Policy,
    path: Path,
    *,
    round: int,
    fingerprint: str,
    file_task: str,
    asker: Asker | None = None,
) -> int:
    """Run the session of a DAgger round, until the operator quits. A file that holds the round's episodes needs none.

    Args:
        round: counted from 1; its first scene is that of the round's first seed.
        fingerprint: by which the file names the policy.
        file_task: what the file calls the task: the demonstrations' name for it.
        asker: judges where the robot asks; None leaves all to the person.

    Returns the complete episodes that the file holds; fewer than the round's where the operator quit before.

    Raises DeviceError where the device or a map of its commands is missing, DatasetError where the disk fails.
    """
    have, _ = complete_episodes(path)
    if have >= config.episodes_per_round:
        return have
    with ExitStack() as stack:
        env = env_for(policy, stack.enter_context(make(task.in_this_process(), 1)), config.policy)
        device = stack.enter_context(connected(device_for_correcting(config, task, env)))
        # One row for each forward pass: with a person at the controls latency counts, not equal bits in every batch.
        runner = PolicyRunner(policy, 1, deterministic=config.deterministic, inference_rows=1)
        session = correct(
            config,
            env,
            device,
            CorrectedPolicy(runner, config.correction, rate=config.session.rate or env.control_hz, asker=asker),
            path,
            verb="dagger",
            task=task.id,
            file_task=file_task,
            describe={"source": "dagger", "round": round, "policy": fingerprint},
            target=config.episodes_per_round,
            first_seed=config.seeds(round)[0],
        )
        if asker is not None:
            asker.finish()
        for note in runner.notes:
            print(f"note: {note}", file=sys.stderr)
    return session.kept
