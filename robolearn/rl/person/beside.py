"""The learner's side of a person's session: starts it, hands it the newest policy, and says what became of it.

Whatever becomes of the session, the learner goes on with its own practice; whatever becomes of the learner, the session
keeps what was recorded.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robolearn import errors
from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree import to_dict
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.datasets.recording.repair import repair
from robolearn.errors import ConfigError, DatasetError, DeviceError, RobolearnError, count
from robolearn.policies.policy import Policy
from robolearn.rl.learner import Reporting
from robolearn.rl.person.line import Line
from robolearn.rl.person.published import Publisher
from robolearn.specs import ActionMode
from robolearn.training import distributed

PROGRAM = "robolearn.rl.person.session_process"
START_S = 180.0
"""For so long a session may take until it has its device and its environment."""
STOP_S = 60.0
"""For so long it may take to finish its file; whatever it has not done by then, `robolearn dataset repair` does."""
FOLDER = "session"


class PersonBeside:
    """A session beside a run: `ready`, `begin`, `attend` after every update, `close`."""

    def __init__(self, config: FinetuneConfig, task: TaskConfig, path: Path, *, resume_hint: str) -> None:
        """Start the process.

        Args:
            task: to practise.
            path: the file to record into, in the run's folder.
            resume_hint: what to tell someone who wants to sit down again.

        Raises ConfigError under torchrun.
        """
        assert config.corrector is not None
        if distributed.world_size() > 1:
            raise ConfigError(
                f"a session at the device {config.corrector.device} goes with a single process, torchrun started "
                f"{distributed.world_size()}; call robolearn finetune by itself"
            )
        self.path, self.device = path, config.corrector.device
        self.published = path.parent / FOLDER
        self.over = False
        """Whether the session has ended."""
        self._resume_hint = resume_hint
        self._publisher: Publisher | None = None
        """None before the session has begun."""
        self._closed = False
        self._report: Mapping[str, Any] = {}
        ours, theirs = socket.socketpair()
        self._line = Line(ours)
        self._process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            # The terminal's Ctrl-C is the learner's; and the scheduler shares time out among such groups, not threads.
            start_new_session=True,
        )
        theirs.close()
        paths = {"path": str(path.absolute()), "published": str(self.published.absolute())}
        self._line.say(config=to_dict(config), task=to_dict(task), **paths)

    def ready(self) -> None:
        """Wait until device and environment are there. Raises what the session was refused with."""
        told = self._line.hear(START_S)
        if told is not None and "error" in told:
            self._process.wait()
            raise _refusal(told)
        if told is None:
            why = f"did not start within {START_S:.0f} s"
            if self._line.open:
                self._process.kill()
            code = self._process.wait()
            if not self._line.open:
                why = f"ended as it began ({_exit(code)}); see its message above"
            raise DeviceError(f"the session at the device {self.device} {why}")

    def begin(self, policy: Policy, *, resume: bool) -> None:
        """Let the session begin, by `policy`."""
        self._publisher = Publisher(policy, self.published)
        self._publisher.begin(again=resume)
        self._line.say(go=True)

    def attend(self) -> None:
        """Publish the newest policy where it is time, and hear what the session has to say; never waits."""
        if self.over:
            return
        assert self._publisher is not None
        self._publisher.publish_when_due()
        self._hear_out(0.0)
        if not self._line.open:
            self._ended()
            _say(
                f"the session at the device {self.device} is over: {self._why()}. Practice goes on without; what was "
                f"recorded is kept, and to sit down again, stop this (Ctrl-C), then {self._resume_hint}"
            )

    def close(self, why: str = "the learner was stopped; everything is kept") -> None:
        """End the session and say what it brought; what is in progress is kept as far as it went.

        Args:
            why: for the page.
        """
        if self._closed:
            return
        self._closed = True
        if not self.over:
            if self._publisher is None:
                self._line.close()  # it ends without a word
            else:
                self._line.say(stop=why)
                self._hear_out(STOP_S)
            self._ended()
        if self._publisher is not None:
            _say(self.summary())

    def summary(self) -> str:
        """Return a sentence on what the session brought."""
        episodes, corrected = _recorded(self.path)
        if not episodes:
            return f"nobody began an episode at the device {self.device}: the policy had its own practice alone"
        kept = f"{count(episodes, 'episode')} of the session at the device {self.device} in {self.path}"
        late, ticks = (self._report.get("over", {}).get(name, 0) for name in ("late", "ticks"))
        late = f"; {late} of {count(ticks, 'control step')} began late" if late else ""
        if not corrected:
            return f"kept {kept}; nobody took over in any, so that they are practice and no demonstrations{late}"
        return f"kept {kept}; somebody took over in {corrected}{late}"

    def _hear_out(self, patience_s: float) -> None:
        while (told := self._line.hear(patience_s)) is not None:
            self._report = told

    def _ended(self) -> None:
        """Wait for the process that has hung up, and finish its file where it could not."""
        self.over = True
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._line.close()
        if self._publisher is not None and parts_of(self.path).exists():
            try:
                repair(self.path)
            except DatasetError as error:
                _say(str(error))

    def _why(self) -> str:
        if "error" in self._report:
            return str(self._report["message"])
        if "over" not in self._report:
            return f"its process has died ({_exit(self._process.returncode)})"
        return self._report["over"].get("stopped") or "its operator quit"


class Attended(Reporting):
    """An algorithm beside whose updates a person's session runs."""

    def __init__(self, algorithm: Reporting, person: PersonBeside) -> None:
        super().__init__(algorithm.algorithm, algorithm.source)
        self.person = person

    def update(self, batch: Any) -> dict[str, Any]:
        metrics = super().update(batch)
        self.person.attend()
        return metrics


def _recorded(path: Path) -> tuple[int, int]:
    """Return the number of episodes in a file, and of those in which somebody took over."""
    if not path.exists():
        return 0, 0
    with Dataset(path) as dataset:
        modes = [dataset.arrays(i, ["action_modes"])["action_modes"] for i in range(len(dataset))]
    return len(modes), sum(bool((of == ActionMode.INTERVENTION).any()) for of in modes)


def _refusal(told: Mapping[str, Any]) -> RobolearnError:
    """Return the error that the session's process met."""
    kind = getattr(errors, str(told["error"]), DatasetError)
    return kind(told["message"])


def _exit(code: int) -> str:
    """Return how a process ended, in words."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _say(note: str) -> None:
    print(f"\nnote: {note}", file=sys.stderr, flush=True)
