"""`robolearn ...` in a process of its own that need not import everything anew: a fork of one that has."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robolearn.cli.main import main

PRELOADED = [
    "robolearn.episodes.record",
    "robolearn.evaluation.evaluate_policies",
    "robolearn.imitation.bc",
    "robolearn.imitation.dagger",
    "robolearn.rl.finetune",
    "robolearn.teleop.correct",
    "robolearn.teleop.demonstrate",
    "tests.datasets.session",
    "tests.opengl",
]
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(PRELOADED)


class Fork:
    """A function in a process of its own, while it runs; has of `subprocess.Popen` what tests ask for."""

    def __init__(
        self,
        function: Callable[..., object],
        *args: Any,
        cwd: Path | None = None,
        environment: Mapping[str, str] = os.environ,
        limit: int | None = None,
    ) -> None:
        """
        Args:
            function: of a module; what it returns goes to `sys.exit`.
            limit: bytes beyond which files cannot be written, as on a full disk.
        """
        self._folder = tempfile.TemporaryDirectory()
        self._out, self._err = Path(self._folder.name) / "out", Path(self._folder.name) / "err"
        given = (cwd or Path.cwd(), dict(environment), limit, self._out, self._err)
        self._process = forks.Process(target=_run, args=(function, args, *given))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    @property
    def out(self) -> str:
        """What it has printed."""
        return self._out.read_text(encoding="utf-8") if self._out.exists() else ""

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8") if self._err.exists() else ""

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("fork", timeout or 0.0, self.out, self.err)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def start(*args: str | Path, **options: Any) -> Fork:
    """Start a command; the options are those of `Fork`."""
    return Fork(command, [str(word) for word in args], **options)


def robolearn(*args: str | Path, timeout: float = 280.0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; the options are those of `Fork`."""
    process = start(*args, **options)
    try:
        code = process.wait(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(args, code, process.out, process.err)


def command(words: list[str]) -> int:
    """Do as `robolearn WORDS`, in a fork."""
    sys.argv = ["robolearn", *words]
    return main()


def _run(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    cwd: Path,
    environment: dict[str, str],
    limit: int | None,
    out: Path,
    err: Path,
) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        sys.exit(function(*args))
    finally:
        atexit._run_exitfuncs()
