"""Where single environments run: in this process, in threads, or in worker processes over one shared block of memory.

A step costs one short message per worker and no copies: observations, rewards, flags and actions of all N
environments lie in one `Rows`, whose memory the workers map as well. Workers end when the pipe to their parent closes,
so none outlives it, however it dies. They are started as fresh interpreters, not forked: forking a process that holds
threads or a GL or CUDA context is undefined, and re-importing the caller's main module, as `multiprocessing` does,
breaks plain scripts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from typing import Any, Protocol

import numpy as np

from robolearn.envs.config import TaskConfig
from robolearn.envs.host import Command, Host, Rows
from robolearn.errors import TaskError

_START = """
import json, sys
job = json.loads(sys.argv[1])
sys.path[:] = job["path"]
from robolearn.envs.host import serve
serve(job)
"""


class Workers(Protocol):
    """N environments behind one set of rows."""

    facts: dict[str, Any]
    rows: Rows

    def run(self, command: Command) -> list[dict[str, Any]]:
        """Carry out a command for the environments in `rows.mask`; returns the faults."""
        ...

    def render(self, index: int) -> np.ndarray: ...

    def close(self) -> None: ...


class LocalWorkers:
    """All environments in this process, in one loop or in `count` threads."""

    def __init__(self, task: TaskConfig, num_envs: int, count: int) -> None:
        bounds = _split(num_envs, count)
        self._hosts = [Host(task, first, last) for first, last in bounds]
        self._pool = ThreadPoolExecutor(count, "robolearn-env") if count > 1 else None
        self._owner = [host for host, (first, last) in zip(self._hosts, bounds) for _ in range(first, last)]
        self.facts = self._hosts[0].describe()
        layout = Rows.layout(num_envs, self.facts)
        self.rows = Rows.over(layout, bytearray(Rows.size(layout)))
        for host in self._hosts:
            host.bind(self.rows)

    def run(self, command: Command) -> list[dict[str, Any]]:
        each = map if self._pool is None else self._pool.map
        return [fault for faults in each(lambda host: host.run(command), self._hosts) for fault in faults]

    def render(self, index: int) -> np.ndarray:
        return self._owner[index].render(index)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        for host in self._hosts:
            host.close()


class ProcessWorkers:
    """`count` worker processes with their share of the environments each."""

    def __init__(self, task: TaskConfig, num_envs: int, count: int) -> None:
        self._task, self._bounds = task, _split(num_envs, count)
        self._block = _shared_file()
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _end, self._workers, self._block)
        try:
            for first, last in self._bounds:
                self._workers.append(_Worker(task, first, last, self._block))
            replies = [worker.receive() for worker in self._workers]
            for worker, reply in zip(self._workers, replies):
                if "error" in reply:
                    raise fault_error(task, reply | {"index": worker.first, "command": "be made"})
        except BaseException:
            self._finalizer()
            raise
        self.facts: dict[str, Any] = replies[0]
        layout = Rows.layout(num_envs, self.facts)
        os.ftruncate(self._block, Rows.size(layout))
        self.rows = Rows.over(layout, mmap.mmap(self._block, Rows.size(layout)))
        for worker in self._workers:
            worker.send(["map", num_envs, self.facts])
        for worker in self._workers:
            worker.receive()

    def run(self, command: Command) -> list[dict[str, Any]]:
        busy = [w for w in self._workers if self.rows.mask[w.first : w.last].any()]
        for worker in busy:
            worker.send([command])
        return [fault for worker in busy for fault in worker.receive()["faults"]]

    def render(self, index: int) -> np.ndarray:
        worker = next(w for w in self._workers if w.first <= index < w.last)
        worker.send(["render", index])
        reply = worker.receive()
        if "error" in reply:
            raise fault_error(self._task, reply | {"index": index, "command": "render"})
        return np.frombuffer(worker.connection.recv_bytes(), np.uint8).reshape(reply["shape"]).copy()

    def close(self) -> None:
        self._finalizer()


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, task: TaskConfig, first: int, last: int, block: int) -> None:
        self.first, self.last, self._task = first, last, task
        self.connection, theirs = Pipe()
        self._unread = 0
        job = {
            "path": sys.path,
            "task": task.env_args(),
            "rows": [first, last],
            "pipe": theirs.fileno(),
            "block": block,
        }
        try:
            text = json.dumps(job)
        except (TypeError, ValueError) as error:
            raise TaskError(
                f"{task.id}: kwargs for worker processes must be plain values ({error}), received {task.kwargs}; "
                "use worker_kind='thread' or 'sync'"
            ) from None
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, text],
            pass_fds=(theirs.fileno(), block),
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # the workers are the parallelism
        )
        theirs.close()
        self._unread = 1

    def send(self, message: list[Any]) -> None:
        """Send a command, after reading what an interrupt (Ctrl-C) has left unread."""
        while self._unread:
            self.receive()
        try:
            self.connection.send_bytes(json.dumps(message).encode())
        except OSError:
            raise self._died() from None
        self._unread += 1

    def receive(self) -> dict[str, Any]:
        try:
            reply = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise self._died() from None
        self._unread -= 1
        return reply

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.close()
        try:
            self.process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _died(self) -> TaskError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2.0)
        code = self.process.returncode
        how = f"exit code {code}" if code is None or code >= 0 else f"signal {signal.Signals(-code).name}"
        return TaskError(
            f"the worker of environments {self.first} to {self.last - 1} of {self._task.id} died ({how}), "
            f"kwargs {self._task.kwargs}; its last words, if any, are on standard error. Running with "
            "worker_kind='sync' shows the fault in this process"
        )


def make_workers(task: TaskConfig, num_envs: int) -> Workers:
    """As `task` says; a single environment needs no worker unless one is asked for."""
    count = min(num_envs, task.workers or len(os.sched_getaffinity(0)))
    if task.worker_kind == "sync" or (num_envs == 1 and task.workers is None):
        return LocalWorkers(task, num_envs, 1)
    return (LocalWorkers if task.worker_kind == "thread" else ProcessWorkers)(task, num_envs, count)


def fault_error(task: TaskConfig, fault: Mapping[str, Any]) -> TaskError:
    """The exception for a fault that a worker reported."""
    if not fault["traceback"]:
        return TaskError(fault["error"])
    return TaskError(
        f"environment {fault['index']} of {task.id} failed to {fault['command']}: {fault['error']} "
        f"(kwargs {task.kwargs})\n{fault['traceback'].rstrip()}"
    )


def _split(num_envs: int, count: int) -> list[tuple[int, int]]:
    bounds = np.linspace(0, num_envs, count + 1).astype(int).tolist()
    return list(itertools.pairwise(bounds))


def _shared_file() -> int:
    """A file descriptor without a name: nothing to clean up, and no limit of /dev/shm to run into."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("robolearn-envs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _end(workers: list[_Worker], block: int) -> None:
    for worker in workers:
        with contextlib.suppress(OSError):
            worker.connection.close()
    for worker in workers:
        worker.end()
    os.close(block)
