"""A session on a clock of the test's own, with a device that does what the test says, in a world of two numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn.configuration.parts.session import SessionConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.make import make
from robolearn.episodes.record import open_writer
from robolearn.teleop.devices.device import Command, DeviceError, DeviceLost, hold
from robolearn.teleop.session import Session
from tests.envs.toy import POINT_REACH

MAX_STEPS = 40
MAP = 'tasks: ["*toy/*"]\nactions: {action_0: +x, action_1: +y}\n'
"""The toy's actions move a point by up to 0.1 along x and y; it is solved, and ends, within 0.05 of its goal."""


class Clock:
    """Stands still but when somebody sleeps or the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-6)


class Hand:
    """A device whose next command the test sets."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.twist = np.zeros(6)
        self.buttons: list[str] = []
        self.engaged = True
        self.there = True
        self.action: np.ndarray | None = None
        self.seeking: Session | None = None
        """A session whose goal the hand moves to."""

    def connect(self) -> None:
        if not self.there:
            raise DeviceError("it is not plugged in")

    def close(self) -> None: ...

    def read(self) -> Command:
        if not self.there:
            raise DeviceLost("the hand is gone")
        buttons = tuple(self.buttons)
        del self.buttons[: len(buttons)]  # another thread may have pressed one meanwhile
        if not self.engaged:
            return hold(self.clock(), buttons)
        twist = self.twist
        if self.seeking is not None:
            x, y, goal_x, goal_y = self.seeking.obs["state"][0].tolist()
            twist = np.array([np.clip((goal_x - x) / 0.1, -1, 1), np.clip((goal_y - y) / 0.1, -1, 1), 0, 0, 0, 0])
        return Command(
            twist=twist, gripper=None, buttons=buttons, engaged=True, sampled_at=self.clock(), action=self.action
        )


@contextmanager
def session_at(path: Path, config: SessionConfig | None = None, **options: Any) -> Iterator[Session]:
    """Yield a session that records into `path`, in whose folder the toy's action map is written."""
    folder = path.parent / "teleop" / "actions"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.yaml").write_text(MAP, encoding="utf-8")
    clock = Clock()
    kwargs = {"terminates": True}
    task = TaskConfig(id=POINT_REACH, max_steps=MAX_STEPS, worker_kind="sync", kwargs=kwargs)
    with pytest.MonkeyPatch.context() as patch, make(task, 1) as env, open_writer(path, env) as writer:
        patch.chdir(path.parent)
        options = {"target": 10, "operator": "Åsa"} | options
        hand = options.pop("device", None) or Hand(clock)
        yield Session(
            env,
            hand,
            writer,
            task=POINT_REACH,
            config=config or SessionConfig(),
            clock=clock,
            sleep=clock.sleep,
            **options,
        )


def hand_of(session: Session) -> Hand:
    assert isinstance(session.device, Hand)
    return session.device


def tick(session: Session, count: int = 1, *buttons: str) -> None:
    """Let a session make control steps at its rate; the buttons are pressed before the first."""
    hand_of(session).buttons.extend(buttons)
    for _ in range(count):
        session.pacer.wait()
        session.tick()


def solve(session: Session) -> None:
    """Record until the environment ends the episode, which the hand solves."""
    hand = hand_of(session)
    if session.state == "ready":
        tick(session, 1, "start")
    while session.state == "countdown":
        tick(session)
    hand.seeking = session
    for _ in range(MAX_STEPS):
        if session.state != "recording":
            break
        tick(session)
    hand.seeking = None
