"""A recording session with a person at the controls: a clock, a device, one environment, and a state machine.

    ready ──start──▶ countdown ──▶ recording ──────────ended, success, failure──────▶ review ──▶ ready (next scene)
      ▲  └──first motion────────────▲   │ ▲                                             │
      │                          pause, idle                     success, failure, start: kept
      │                                 ▼ │                       discard: forgotten     rerecord: the same scene again
      └──discard, rerecord────────── paused

Buttons (see `robolearn.teleop.devices.device.BUTTONS`): in every state `undo` takes the last kept episode back and
`quit` ends the session; while an episode is being recorded it pauses at first, and ends when pressed again. While
nothing is recorded the world stands still. Every step goes into the file as it happens; a lost device, a silent page or
an operator who lets go of the deadman makes the robot hold still, and the file says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch

from robolearn.configuration.parts.session import SessionConfig
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.envs.interface import VectorEnv
from robolearn.episodes.episode_loop import EpisodeLoop, Slot, Tick
from robolearn.episodes.record import model_name
from robolearn.episodes.recorder import EpisodeRecorder
from robolearn.errors import DatasetError
from robolearn.specs import ActionMode, Observation
from robolearn.teleop.devices.actions import CommandMapper
from robolearn.teleop.devices.device import (
    Command,
    Device,
    DeviceError,
    DeviceLost,
    EpisodicDevice,
    GrippingDevice,
    SeeingDevice,
    hold,
)
from robolearn.teleop.driving import Operator, SessionDriver
from robolearn.teleop.pacer import Pacer, punctual
from robolearn.teleop.plan_path import intended_path
from robolearn.teleop.touch import Touch

MOVING = 0.02
"""Largest component of a twist from which it counts as motion."""
RECONNECT_S = 1.0
REVIEW_S = 0.8
"""For how long an outcome that needs no answer is shown."""


class State(StrEnum):
    """The states of a session."""

    READY = "ready"
    COUNTDOWN = "countdown"
    RECORDING = "recording"
    PAUSED = "paused"
    REVIEW = "review"
    DONE = "done"


class Pictures(Protocol):
    """Shows the operator what cameras see; never makes the session wait."""

    def show(self, env: VectorEnv) -> None:
        """Take the present state of environment 0; an older one that is not drawn yet is dropped."""
        ...

    def rotation(self) -> np.ndarray:
        """Return (3, 3), from the frame of the camera shown (x into the picture, y left, z up) to the world's."""
        ...

    def project(self, env: VectorEnv, points: np.ndarray) -> list[list[list[float]]]:
        """Return where (P, 3) points of the world lie in each camera's picture, in shares of width and height."""
        ...


class Scenes:
    """The seeds of the scenes to come; one may be asked for again."""

    def __init__(self, first: int, within: range | None = None) -> None:
        """
        Args:
            within: seeds that are never left: after its last comes its first; None counts up for ever.
        """
        self.next, self.within = first, within
        self._again: int | None = None

    def again(self, seed: int) -> None:
        self._again = seed

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self._again is not None:
            seed, self._again = self._again, None
            return seed
        if self.within is not None and self.next not in self.within:
            self.next = self.within.start
        self.next += 1
        return self.next - 1


class Session:
    """Records what an operator demonstrates or corrects in one environment, until enough is kept or they quit."""

    def __init__(
        self,
        env: VectorEnv,
        device: Device,
        writer: DatasetWriter,
        *,
        task: str,
        config: SessionConfig,
        target: int | None,
        kept: int = 0,
        first_seed: int = 0,
        seeds: range | None = None,
        keep_failures: bool = False,
        operator: str = "",
        device_name: str = "",
        notes: str = "",
        pictures: Pictures | None = None,
        driver: SessionDriver | None = None,
        describe: Mapping[str, Any] = MappingProxyType({"source": "demo"}),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Args:
            env: one environment.
            device: connected.
            target: episodes to keep; None has no end. A person may go on beyond it, or take the last one back; devices
                that need nobody (expert, policy, replay) start every scene and end the session themselves.
            kept: episodes that the file holds already.
            seeds: of the scenes, which begin anew after the last one; None counts up from `first_seed` for ever.
            driver: who decides the action; None is the operator alone.
            describe: what else the file says of every episode (`EpisodeInfo`).
        """
        assert env.num_envs == 1
        self.env, self.device, self.writer, self.config, self.pictures = env, device, writer, config, pictures
        self.task, self.target, self.keep_failures = task, target, keep_failures
        self.operator, self.notes, self.device_name = operator, notes, device_name
        self.mapper = CommandMapper(env.action_spec, task, needs_twist=not isinstance(device, SeeingDevice))
        self.pacer = Pacer(config.rate or env.control_hz, clock=clock, sleep=sleep)
        self.state, self.message, self.outcome = State.READY, "", None
        self._automatic = isinstance(device, SeeingDevice)
        self.kept_before, self.kept_now = kept, []
        self.discarded = 0
        self._scenes, self._driver = Scenes(first_seed, seeds), driver or Operator(env.action_spec.size)
        self._loop = EpisodeLoop(env, self._driver, self._scenes, states=True)
        describe = {**describe, "device": device_name}
        # Pictures in memory would be many gigabytes in minutes.
        pictures_seen = any(spec.is_image for spec in env.observation_spec.values())
        remember = self.corrects and self._driver.config.rewind_s > 0.0 and not pictures_seen
        self._recorder = EpisodeRecorder(writer, describe=describe, model=model_name(env), remember=remember)
        self._touch = Touch(env)
        self._clock = clock
        self._command = hold(clock())
        self._gripper, self._moved_at = -1.0, clock()
        self._gripper_before: float | None = None
        """What the command before this one said of the gripper."""
        self._old_gripper: float | None = None
        """What the device said of the gripper when the operator took over: no command until it says something else."""
        self._until: float | None = None
        """When the countdown or the review is over; a review without it waits for an answer."""
        self._lost_at: float | None = None
        self._silent = False
        self._idle_pause = False
        self._question = ""
        """Why the robot waits for the operator."""
        self._asked_at = clock()
        self._late_steps = 0
        self._slot = self._next_scene()
        self._can_rewind = remember and env.get_states() is not None

    kept_now: list[tuple[str, int]]
    """(name in the file, seed) of the episodes kept in this session, in order."""
    operator: str
    """Who is at the device; may be changed, for the episodes that begin from then on."""
    notes: str
    """Free text; may be changed, for the episodes that are kept from then on."""
    outcome: bool | None
    """Whether the episode under review is solved."""

    @property
    def kept(self) -> int:
        """Episodes that the file holds."""
        return self.kept_before + len(self.kept_now)

    @property
    def corrects(self) -> bool:
        """Return whether the operator corrects a policy."""
        return self._driver.corrects

    @property
    def obs(self) -> Observation:
        """(1, ...) per key, what the environment shows now."""
        return self._loop.obs

    def run(self, on_tick: Callable[[Session], None] = lambda session: None) -> None:
        """Tick at the task's rate until the session is done.

        Raises DatasetError where the disk fails; what was committed is safe, and the episode in progress can be
        recovered.
        """
        with punctual():
            while self.state is not State.DONE:
                self.pacer.wait()
                self.tick()
                with self.pacer.section("page"):
                    on_tick(self)

    def tick(self) -> None:
        """Take one control step: read the device, answer its buttons, and move the world where it is to move."""
        with self.pacer.section("device"):
            self._gripper_before, self._command = self._command.gripper, self._read()
            for button in self._command.buttons:
                self.press(button)
        if (self.state is State.COUNTDOWN and self._countdown_s == 0.0) or (
            self.state is State.READY and (self._automatic or self._motion_starts())
        ):
            self._record()
        elif self.state is State.PAUSED and self._question:
            self._await_answer()
        elif self.state is State.PAUSED and self._idle_pause and self._is_moving():
            self._resume("motion")
        elif self.state is State.REVIEW and self._until is not None and self._clock() >= self._until:
            self._settle(keep=bool(self.outcome) or self.keep_failures)
        if self.state is State.RECORDING:
            self._advance()
        if self.pictures is not None:
            with self.pacer.section("pictures"):
                self.pictures.show(self.env)

    def press(self, button: str) -> None:
        """Do what a button means now; one that means nothing now is answered with a message."""
        meanings = self._meanings()
        if button in meanings:
            meanings[button]()
        elif button == "undo":
            self.message = "nothing to undo in this session"
        else:
            self.message = f"{button} means nothing while {self.state}"

    def _meanings(self) -> dict[str, Callable[[], None]]:
        """Return what each button does now."""
        meanings: dict[str, Callable[[], None]] = {}
        if self.state is State.READY:
            meanings = {"start": self._start, "discard": self._skip}
        elif self.state is State.COUNTDOWN:
            meanings = dict.fromkeys(("start", "pause", "discard", "rerecord"), self._back)
        elif self.state in (State.RECORDING, State.PAUSED):
            turn = self._pause if self.state is State.RECORDING else self._resume
            meanings = {
                "start": turn,
                "pause": turn,
                "success": lambda: self._end(success=True),
                "failure": lambda: self._end(success=False),
                "discard": self._forget,
                "rerecord": lambda: self._forget(again=True),
                "mark": self._mark,
                **self._driver.meanings(),
            }
            if self._can_rewind and self._slot.steps > 1:
                meanings["rewind"] = self._rewind
        elif self.state is State.REVIEW:
            meanings = {
                "start": lambda: self._settle(keep=True),
                "success": lambda: self._settle(keep=True, success=True),
                "failure": lambda: self._settle(keep=True, success=False),
                "discard": self._forget,
                "rerecord": lambda: self._forget(again=True),
            }
        if self.state is not State.DONE:
            meanings["quit"] = self._quit
            if self.kept_now:
                meanings["undo"] = self._undo
        return meanings

    def status(self) -> dict[str, Any]:
        """Return what a page shows, as plain values: state, progress, timing, device and robot."""
        now = self._clock()
        low_dim = {
            key: [_plain(x, 4) for x in value[0].flatten()[:32].tolist()]
            for key, value in self.obs.items()
            if value.dtype != torch.uint8
        }
        driving = self._driver.status()
        return {
            "path": self._projected(np.asarray(driving["plan"])),
            "state": str(self.state),
            "task": self.task,
            "operator": self.operator,
            "notes": self.notes,
            "seed": self._slot.seed,
            "step": self._slot.steps,
            "seconds": self._slot.steps / self.env.control_hz,
            "max_seconds": self.env.max_steps / self.env.control_hz,
            "kept": self.kept,
            "target": self.target,
            "discarded": self.discarded,
            "buttons": list(self._meanings()),
            "outcome": self.outcome,
            "question": self._question if self.state is State.PAUSED else "",
            "countdown_s": self._countdown_s if self.state is State.COUNTDOWN else None,
            "asked": self.state is State.REVIEW and self._until is None,
            "message": self.message,
            "hz": self.pacer.hz,
            "late": self.pacer.late,
            "ticks": self.pacer.ticks,
            "slow": self.pacer.blame(),
            "late_by": dict(self.pacer.late_by),
            "costs_ms": {name: round(1e3 * spent, 2) for name, spent in self.pacer.costs.items()},
            "engaged": self._command.engaged,
            "device_lost": self._lost_at is not None,
            "input_age_ms": _plain(1e3 * (now - self._command.sampled_at), 1),
            "mode": getattr(self.device, "mode", None),
            "twist": [round(float(x), 3) for x in self._command.twist],
            "gripper": round(self._gripper, 3) if self.mapper.has_gripper else None,
            "robot": low_dim,
            "force_n": self._touch.newtons(),
            **driving,
        }

    def _projected(self, plan: np.ndarray) -> list[Any]:
        """Return where the pictures show the way (T, A) actions would take the tool; empty where there is none."""
        if self.pictures is None or not len(path := intended_path(self.env, plan)):
            return []
        return self.pictures.project(self.env, path)

    @property
    def _countdown_s(self) -> float:
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    def _read(self) -> Command:
        """The newest command; a device that is gone is asked for again every second, and the robot holds still."""
        if self._lost_at is not None:
            if self._clock() - self._lost_at < RECONNECT_S:
                return hold(self._command.sampled_at)
            self._lost_at = self._clock()
            try:
                self.device.connect()
            except DeviceError:
                return hold(self._command.sampled_at)
            self._lost_at, self.message = None, "the device is back"
        try:
            if isinstance(self.device, SeeingDevice):
                self.device.see(self.obs)
            return self.device.read()
        except DeviceLost as error:
            self._lost_at, self.message = self._clock(), f"{error}; the robot holds still until it is back"
            if self.state is State.RECORDING:
                self._pause("device lost")
                self.message = f"paused: {error}"
            elif self.state is State.COUNTDOWN:
                self.state = State.READY
            return hold(self._command.sampled_at)

    def _is_moving(self) -> bool:
        command = self._command
        if not command.engaged:
            return False
        if command.action is not None or np.abs(command.twist).max() > MOVING:
            return True
        # A trigger that is held where it was says the same every time, whatever a policy has done to the gripper since.
        if command.gripper is None or command.gripper == self._gripper_before:
            return False
        return abs(command.gripper - self._gripper) > MOVING

    def _motion_starts(self) -> bool:
        """Whether this motion begins an episode; beyond the target only the button does."""
        return self.config.start == "motion" and not self._complete and self._is_moving()

    @property
    def _complete(self) -> bool:
        return self.target is not None and self.kept >= self.target

    def _advance(self) -> None:
        """One recorded control step."""
        moving = self._is_moving()
        self._driver.hear(moving=moving)
        if question := self._driver.question(self.obs):
            self._ask(question)
            return
        if moving or not self._driver.by_hand:
            self._moved_at = self._clock()
        elif self.config.idle_pause_s and self._clock() - self._moved_at > self.config.idle_pause_s:
            self._pause("idle")
            self._idle_pause = True
            return
        if self._driver.by_hand:
            self._note_presence()
            self._driver.action = self._action()
        else:
            self._silent, self._old_gripper = False, self._command.gripper
        self._late_steps += self.pacer.is_late
        with self.pacer.section("physics"):
            tick = self._loop.advance()
        self._follow_gripper(tick)
        with self.pacer.section("recording"):
            self._recorder.take(tick)
        if tick.ended:
            self._ended(tick)
        else:
            with self.pacer.section("policy"):
                self._driver.prepare(self.obs)

    def _ask(self, question: str) -> None:
        """The robot holds still until the operator takes over or lets it go on."""
        self._recorder.add_event(self._slot, "ask", question)
        self.state, self._idle_pause = State.PAUSED, False
        self._question, self._asked_at = question, self._clock()
        self.message = f"the robot asks ({question}): take over, or go on to let it"

    def _await_answer(self) -> None:
        patience_s = self._driver.config.patience_s
        self._driver.hear(moving=self._is_moving())
        if self._driver.by_hand:
            self._resume("answered")
        elif patience_s and self._clock() - self._asked_at >= patience_s:
            self._give_up()

    def _give_up(self) -> None:
        """Nobody answers: the attempt ends here, unsolved; without a step there is nothing to keep."""
        self._recorder.add_event(self._slot, "mark", "unanswered")
        self._loop.end(self._slot)
        self.outcome = False
        self._settle(keep=True)
        self.message = "nobody answered; the attempt has ended"

    def _rewind(self) -> None:
        """Take the last seconds back, and wait for the operator, who drives from there on."""
        steps = min(round(self._driver.config.rewind_s * self.env.control_hz), self._slot.steps - 1)
        step = self._slot.steps - steps
        values = self._recorder.rewind(self._slot, step)
        self._loop.restore(self._slot, step, values[step]["state"])
        self._driver.rewind(step, by_hand=values[step - 1]["mode"] is ActionMode.INTERVENTION)
        self._take_gripper(values[step - 1]["action"])
        self._recorder.add_event(self._slot, "rewind", f"{steps} steps")
        self.state, self._idle_pause, self._question = State.PAUSED, True, ""
        self.message = f"{steps / self.env.control_hz:.1f} s taken back: move, or go on, to drive from here"
        self.pacer.restart()

    def _follow_gripper(self, tick: Tick) -> None:
        """The next command starts from where this action, whoever decided it, has the gripper."""
        self._take_gripper(tick.decision.actions[0].cpu().numpy())

    def _take_gripper(self, action: np.ndarray) -> None:
        told = self.mapper.gripper_of(action)
        if told is not None:
            self._gripper = min(max(told, -1.0), 1.0)
            if self.corrects and isinstance(self.device, GrippingDevice):
                self.device.follow_gripper(self._gripper)

    def _note_presence(self) -> None:
        """Note in the file when the operator lets go and comes back; before the first step there is no place for it."""
        if self._slot.steps and self._command.engaged == self._silent:
            self._silent = not self._command.engaged
            self._recorder.add_event(self._slot, "mark", "operator let go" if self._silent else "operator is back")

    def _action(self) -> np.ndarray:
        """(A,) of the present command; a device that sends what is no action here makes the robot hold still."""
        command = self._in_world(self._command)
        if command.gripper == self._old_gripper:
            command = replace(command, gripper=None)
        else:
            self._old_gripper = None
        try:
            return self.mapper(command, self._gripper)
        except DeviceError as error:
            if self._automatic:
                raise
            self.message = str(error)
            return self.mapper(hold(command.sampled_at), self._gripper)

    def _in_world(self, command: Command) -> Command:
        if command.frame == "world" or self.pictures is None:
            return command
        rotation = self.pictures.rotation()
        twist = np.concatenate([rotation @ command.twist[:3], rotation @ command.twist[3:]])
        return replace(command, twist=twist, frame="world")

    def _ended(self, tick: Tick) -> None:
        """The environment ended the episode: solved, failed or out of time."""
        solved = self._slot.success
        ask = {"always": True, "never": False, "failures": not solved}[self.config.review]
        self._review(solved, ask=ask and not self._automatic)
        if solved:
            self.message = "solved"
        else:
            self.message = "out of time" if bool(tick.truncated[0]) else "failed"

    def _end(self, *, success: bool) -> None:
        """The operator ends the episode."""
        if not self._slot.steps:
            self.message = "nothing is recorded yet"
            return
        self._loop.end(self._slot)
        self._review(success, ask=self.config.review == "always")
        if self._until is not None:
            self._settle(keep=True)

    def _review(self, outcome: bool, *, ask: bool) -> None:
        self.state, self.outcome = State.REVIEW, outcome
        wait_s = 0.0 if self._automatic else REVIEW_S
        self._until = None if ask else self._clock() + wait_s

    def _settle(self, *, keep: bool, success: bool | None = None) -> None:
        """Keep or forget the episode under review, and show the next scene."""
        outcome = bool(self.outcome) if success is None else success
        changes = {"notes": self.notes, "late_steps": self._late_steps}
        name = self._recorder.close(self._slot, keep=keep, success=outcome, **changes)
        if name is None:
            self.discarded += 1
            self.message = "not kept"
        else:
            self.kept_now.append((name, self._slot.seed))
            self.message = f"kept as {name}, {'solved' if outcome else 'not solved'}"
        self._slot = self._next_scene()

    def _forget(self, *, again: bool = False) -> None:
        """Discard the episode in progress or under review."""
        self._loop.end(self._slot)
        if again:
            self._scenes.again(self._slot.seed)
        self._recorder.close(self._slot, keep=False, success=False)
        self.discarded += 1
        self._slot = self._next_scene()
        self.message = "discarded; the same scene again" if again else "discarded"

    def _next_scene(self) -> Slot:
        (slot,) = self._loop.begin()
        self.pacer.restart()  # making a scene may take longer than a step, and is none
        if isinstance(self.device, EpisodicDevice):
            self.device.reset(slot.seed)
        self.state, self.outcome, self._until = State.READY, None, None
        self._gripper, self._silent, self._idle_pause, self._old_gripper = -1.0, False, False, None
        self._question = ""
        if self._complete:
            self.state = State.DONE if self._automatic else State.READY
            self.message = f"all {self.target} are recorded: quit to finish, undo to take the last one back"
        return slot

    def _start(self) -> None:
        if self.config.countdown_s:
            self.state, self._until, self.message = State.COUNTDOWN, self._clock() + self.config.countdown_s, ""
        else:
            self._record()

    def _back(self) -> None:
        self.state, self.message = State.READY, "the countdown was stopped"

    def _record(self) -> None:
        self.state, self.message = State.RECORDING, ""
        self._moved_at, self._late_steps = self._clock(), 0
        self._recorder.describe |= {"operator": self.operator, **self._driver.begin()}

    def _mark(self) -> None:
        self._recorder.add_event(self._slot, "mark", "operator")
        self.message = f"marked step {self._slot.steps}"

    def _skip(self) -> None:
        self._loop.end(self._slot)
        self._slot = self._next_scene()
        self.message = "another scene"

    def _pause(self, reason: str = "operator") -> None:
        self._recorder.add_event(self._slot, "pause", reason)
        self.state, self._idle_pause = State.PAUSED, False
        self.message = f"paused ({reason})"

    def _resume(self, reason: str = "operator") -> None:
        if self._question and not self._driver.by_hand:
            self._driver.decline()
            reason = "declined"
        self._question = ""
        self._recorder.add_event(self._slot, "resume", reason)
        self.state, self._idle_pause, self.message, self._moved_at = State.RECORDING, False, "", self._clock()

    def _undo(self) -> None:
        """Take back the last episode kept in this session."""
        try:
            name = self.writer.remove_last()
        except DatasetError as error:
            self.message = str(error)
            return
        self.kept_now.pop()
        self.message = f"took {name} back"

    def _quit(self) -> None:
        """End the session. One under review is kept as it is shown; one in progress is forgotten when asked twice."""
        if self.state is State.RECORDING and self._slot.steps and not self._automatic:
            self._pause()
            self.message = "quit again to end the session without this episode; start goes on with it"
            return
        if self.state is State.REVIEW:
            self._settle(keep=bool(self.outcome) or self.keep_failures)
        elif self._slot.steps:
            self._forget()
        self.state = State.DONE


def _plain(value: float, digits: int) -> float | None:
    """A number that JSON knows."""
    return round(float(value), digits) if np.isfinite(value) else None
