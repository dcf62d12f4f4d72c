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
from collections.abc import Mapping
from pathlib import Path

from robolearn.cli.main import main

PRELOADED = [
    "robolearn.episodes.record",
    "robolearn.evaluation.evaluate_policies",
    "robolearn.imitation.bc",
    "robolearn.imitation.dagger",
    "robolearn.rl.finetune",
    "tests.datasets.session",
]
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(PRELOADED)


def robolearn(
    *args: str | Path,
    cwd: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    limit: int | None = None,
    timeout: float = 280.0,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        limit: bytes beyond which files cannot be written, as on a full disk.
    """
    words = [str(word) for word in args]
    with tempfile.TemporaryDirectory() as said:
        out, err = Path(said) / "out", Path(said) / "err"
        process = forks.Process(target=_run, args=(words, cwd or Path.cwd(), dict(environment), limit, out, err))
        process.start()
        process.join(timeout)
        late = process.exitcode is None
        process.kill()
        process.join()
        printed = [path.read_text(encoding="utf-8") if path.exists() else "" for path in (out, err)]
    if late:
        raise subprocess.TimeoutExpired(words, timeout, *printed)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(words, process.exitcode, *printed)


def _run(words: list[str], cwd: Path, environment: dict[str, str], limit: int | None, out: Path, err: Path) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = ["robolearn", *words]
    try:
        sys.exit(main())
    finally:
        atexit._run_exitfuncs()
