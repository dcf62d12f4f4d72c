"""The session of a person who corrects a policy while it is being learned, in a process of its own.

    learner ──job──▶ session ──ready──▶ learner ──go──▶ session ──▶ corrections.hdf5
                        ▲──newest weights, where an episode begins     └── over, or why it could not go on ──▶ learner

Neither Python's lock nor torch of the learner delays a control step. Run as `python -m ... FD`, an inherited socket; it
ends when it is told to, when its operator quits, and when the learner has gone: everything recorded is kept.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robolearn.configuration.finetune import CorrectorConfig, FinetuneCommand, FinetuneConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree import from_dict
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.adapted import AdaptedEnv
from robolearn.envs.interface import Step, VectorEnv
from robolearn.episodes.actor import env_for
from robolearn.errors import ConfigError, RobolearnError
from robolearn.policies.folder import load_policy
from robolearn.policies.policy import Policy
from robolearn.rl.person.line import Line
from robolearn.rl.person.published import NewestPolicy
from robolearn.rl.person.rehearsal import Rehearsal
from robolearn.rl.reward.classified_env import make_judged
from robolearn.rl.ways.practice import simulated_human
from robolearn.teleop.correct import correct
from robolearn.teleop.demonstrate import connected
from robolearn.teleop.devices.actions import CommandMapper
from robolearn.teleop.devices.device import Device, SeeingDevice
from robolearn.teleop.devices.known_devices import make_device
from robolearn.teleop.driving import CorrectedPolicy
from robolearn.teleop.session import Session


class Ended(Exception):
    """The session is to end, for a reason that is no fault."""


class LearningPolicy(CorrectedPolicy):
    """The policy drives as it was learned up to the moment at which an episode begins."""

    def __init__(self, newest: NewestPolicy, config: CorrectorConfig, *, control_hz: float) -> None:
        # By its mode, as it is evaluated: people correct what it does, not its noise.
        runner = PolicyRunner(newest.policy, 1, inference_rows=1)
        super().__init__(runner, config.correction, rate=config.session.rate or control_hz)
        self._newest = newest

    def reset(self, *, seeds: Sequence[int], mask: torch.Tensor) -> None:
        self._newest.take_up()  # most of the loading, while no clock runs
        super().reset(seeds=seeds, mask=mask)

    def begin(self) -> dict[str, Any]:
        self._newest.take_up()
        return {"policy": self._newest.fingerprint}


class SolvedEnds(AdaptedEnv):
    """Another environment, in which an episode ends where it is solved."""

    def step(self, actions: torch.Tensor, mask: torch.Tensor | None = None) -> Step:
        step = self.inner.step(actions, mask)
        return replace(step, terminated=step.terminated | step.success)


@dataclass
class _Heed:
    """Listens to the learner after every control step."""

    line: Line
    session: Session | None = None

    def __call__(self, session: Session) -> None:
        self.session = session
        told = self.line.hear()
        if told is not None:
            raise Ended(told["stop"])
        if not self.line.open:
            raise Ended("the learner has gone; everything is kept, and its run can be resumed")


def main(line: Line) -> int:
    """Do the job that the line tells of; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the learner says when to end
    torch.set_num_threads(1)
    if (job := line.hear(None)) is None:
        return 0
    try:
        line.say(over=_session(job, line))
    except RobolearnError as error:
        line.say(error=type(error).__name__, message=str(error))
        return 2
    return 0


def _session(job: dict[str, Any], line: Line) -> dict[str, Any]:
    """Run the session; returns how it went."""
    config = from_dict(FinetuneCommand, job["config"])
    task = replace(from_dict(TaskConfig, job["task"]), backend="cpu").in_this_process()
    corrector = config.corrector
    assert corrector is not None
    with ExitStack() as stack:
        judged = make_judged(task, 1, config.reward_from, device="cpu", networks=torch.device("cpu"))
        start = load_policy(config.policy)
        env = env_for(start, stack.enter_context(judged), config.policy)
        if config.reward == "success":
            env = SolvedEnds(env)
        device = stack.enter_context(connected(_device(config, corrector, task, start, env)))
        line.say(ready=True)
        if line.hear(None) is None:  # refused elsewhere
            return {}
        if address := getattr(device, "address", None):
            print(f"\n  {corrector.device}:  {address}", flush=True)
        heed, stopped = _Heed(line), ""
        try:
            correct(
                corrector,
                env,
                device,
                LearningPolicy(NewestPolicy(Path(job["published"])), corrector, control_hz=env.control_hz),
                Path(job["path"]),
                verb="finetune",
                task=task.id,
                file_task=_file_task(config, task),
                describe={"source": "rl"},
                target=None,
                # The learner's own practice begins at the other end.
                first_seed=config.practice_seeds[len(config.practice_seeds) // 2],
                seeds=config.practice_seeds,
                on_tick=heed,
            )
        except Ended as ended:
            stopped = str(ended)
    session = heed.session
    assert session is not None, "a session ticks before it ends"
    return {"stopped": stopped, "late": session.pacer.late, "ticks": session.pacer.ticks}


def _device(
    config: FinetuneConfig, corrector: CorrectorConfig, task: TaskConfig, policy: Policy, env: VectorEnv
) -> Device:
    """Return the device, not connected yet; one that acts by itself is in the hand of a simulated human.

    Raises DeviceError where it is missing or has no map of its commands to the task's actions, ConfigError where a
    simulated human has no demonstrations to judge by.
    """
    options = {"expert": corrector.expert} if corrector.device == "expert" else {}
    device = make_device(corrector.device, corrector.profile or None, env, **options | corrector.device_options)
    if not isinstance(device, SeeingDevice):
        CommandMapper(env.action_spec, task.id)
        return device
    if not config.demonstrations:
        raise ConfigError(
            f"the device {corrector.device} acts by itself, and when is judged by the demonstrations; name their "
            "files: --demonstrations FILE"
        )
    return Rehearsal(device, simulated_human(config, policy, env), env.action_spec.size)


def _file_task(config: FinetuneConfig, task: TaskConfig) -> str:
    """Return what the demonstrations call the task, so that the files read as one."""
    if not config.demonstrations:
        return task.id
    with Dataset(config.demonstrations, reading=config.reading) as shown:
        return shown.task


if __name__ == "__main__":
    sys.exit(main(Line(socket.socket(fileno=int(sys.argv[1])))))
